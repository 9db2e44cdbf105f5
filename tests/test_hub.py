"""The Hub, played by a directory: what goes up names nothing of this machine, what comes down is verified."""

import json
import shutil
import types
from pathlib import Path

import httpx
import pytest
from conftest import HashEmbedder
from huggingface_hub import ModelCard
from huggingface_hub.errors import HfHubHTTPError
from toy_files import recommender, saved
from typer.testing import CliRunner

from llmrec.app.cli.main import app
from llmrec.checkpoint import hub
from llmrec.checkpoint.card import END, START, fill_card, load_results
from llmrec.errors import ArtifactError, DataError, RequestError
from llmrec.finetune.model_card import model_card
from llmrec.recommender import Recommender, Request
from llmrec.storage.artifacts import MANIFEST, fingerprint_bytes, read_manifest, sha256_file

RESULT = {
    "suite": "accuracy", "dataset": "data", "protocol": {},
    "rows": [
        {"name": "hybrid", "metrics": {"recall@10": {"mean": 0.2259, "ci95": [0.2, 0.25]}}},
        {"name": "item|knn\n`x`<b>", "metrics": {"recall@10": {"mean": 0.2354, "ci95": [0.2, 0.26]}}},
    ],
    "targets": [{"name": "hybrid_over_sasrec_recall10", "value": 1.158}, {"name": "later", "value": None}],
    "provenance": {"n": 943, "commit": "ab" * 20, "command": "llmrec eval --suite accuracy"},
}  # fmt: skip


class Hub:
    """Repositories as directories; every call is written down."""

    def __init__(self, root: Path) -> None:
        self.root, self.commit, self.asked, self.down = root, "c1", [], False

    def answer(self, word):
        self.asked.append(word)
        if self.down:
            raise OSError("no route to host")

    def create_repo(self, repo_id, private, exist_ok):
        self.answer(f"create {repo_id} {private}")
        (self.root / repo_id).mkdir(parents=True, exist_ok=exist_ok)

    def upload_folder(self, repo_id, folder_path, commit_message):
        self.answer(f"upload {repo_id}")
        shutil.copytree(folder_path, self.root / repo_id, dirs_exist_ok=True)
        return types.SimpleNamespace(commit_url=f"https://hub/{repo_id}/commit/1")

    def model_info(self, repo_id, revision, timeout):
        self.answer(f"info {repo_id}@{revision}")
        if not (self.root / repo_id).is_dir():
            raise OSError(f"404: no {repo_id}")
        return types.SimpleNamespace(sha=self.commit)

    def file_exists(self, repo_id, name, revision):
        return (self.root / repo_id / name).is_file()

    def download(self, repo_id, name, revision, etag_timeout):
        self.answer(f"get {name}@{revision}")
        path = self.root / repo_id / name
        if not path.is_file():
            raise OSError(f"404: no {name}")
        link = self.root / "blobs" / f"{len(self.asked)}"
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(path)  # as the Hub's cache does
        return str(link)


@pytest.fixture
def remote(tmp_path, monkeypatch):
    made = Hub(tmp_path / "hub")
    for name in ("HF_HUB_OFFLINE", "LLMREC_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LLMREC_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(hub.huggingface_hub, "HfApi", lambda: made)
    monkeypatch.setattr(hub.huggingface_hub, "hf_hub_download", made.download)
    return made


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("pushed"))[0]


def push(model, **how):
    return hub.push_to_hub(model, "org/toys", base=str(model.with_name("base")), **how)


def test_a_model_goes_up_and_comes_down_the_same(remote, model, monkeypatch):
    assert push(model, with_data=True, results=[RESULT]) == "https://hub/org/toys/commit/1"
    ours = recommender(model)
    loaded = Recommender.from_pretrained("org/toys", embedder=HashEmbedder())
    request = Request(history=(0, 2), k=12)
    assert loaded.recommend(request) == ours.recommend(request) and loaded.users == ours.users
    asked = len(remote.asked)
    Recommender.from_pretrained("org/toys", embedder=HashEmbedder())
    assert remote.asked[asked:] == ["info org/toys@main"], "nothing is fetched twice"
    remote.down = True
    Recommender.from_pretrained("org/toys", embedder=HashEmbedder())
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    asked = len(remote.asked)
    Recommender.from_pretrained("org/toys", embedder=HashEmbedder())
    assert len(remote.asked) == asked, "offline the Hub is not asked"
    with pytest.raises(ArtifactError, match=r"no model 'org/other' on this machine.*offline"):
        Recommender.from_pretrained("org/other")


def test_nothing_of_this_machine_goes_up_with_a_model(remote, model):
    base = model.with_name("base")
    with pytest.raises(RequestError, match="which others cannot find"):
        hub.push_to_hub(model, "org/toys")
    assert remote.asked == []
    hub.push_to_hub(model, "org/toys", base="org/base")
    for path in (remote.root / "org/toys").rglob("*"):
        if path.is_file():
            assert str(base.parent).encode() not in path.read_bytes(), path.name
    assert not (remote.root / "org/toys/data").exists(), "histories go up only when asked for"
    with pytest.raises(ArtifactError, match="came without its data"):
        Recommender.from_pretrained("org/toys")


def test_a_new_commit_is_fetched_and_a_torn_one_leaves_the_old_model(remote, model):
    push(model)
    first = hub.resolve_model("org/toys")
    before = read_manifest(first, "model")
    remote.commit = "c2"
    weights = remote.root / "org/toys/adapter.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    with pytest.raises(ArtifactError, match=r"adapter.safetensors' was changed"):
        hub.resolve_model("org/toys")
    assert read_manifest(first, "model") == before
    weights.unlink()
    with pytest.raises(ArtifactError, match="did not give it: 404"):
        hub.resolve_model("org/toys")
    assert read_manifest(first, "model") == before


def reseal(folder, name, content):
    """Put a file into a repository whose manifest vouches for it, as an attacker would."""
    if content is not None:
        (folder / name).write_bytes(content)
    manifest = json.loads((folder / MANIFEST).read_text())
    del manifest["self"]
    digest = sha256_file(folder / name) if content is not None else "0" * 64
    manifest["files"][name] = {"sha256": digest, "bytes": len(content or b"")}
    manifest["self"] = fingerprint_bytes(json.dumps(manifest, sort_keys=True).encode())
    (folder / MANIFEST).write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("weights.pkl", b"cos\nsystem\n(S'touch pwned'\ntR.", "can run code when loaded"),
        ("modeling_evil.py", b"import os", "can run code when loaded"),
        ("other_config.json", b'{"auto_map": {"AutoModel": "x.Y"}}', "auto_map asks for code"),
        ("../../evil.json", None, "not fetched"),
        ("/etc/passwd", None, "not fetched"),
        (".git/config", None, "not fetched"),
        ("a\\b.json", None, "not fetched"),
        (MANIFEST, None, "not fetched"),
    ],
)
def test_hostile_repositories_are_refused_and_leave_nothing(remote, model, tmp_path, name, content, words):
    push(model)
    reseal(remote.root / "org/toys", name, content)
    with pytest.raises(ArtifactError, match=words):
        Recommender.from_pretrained("org/toys", embedder=HashEmbedder())
    assert not list((tmp_path / "home").rglob("*.json")) and not list(tmp_path.rglob("pwned"))
    if content is None:
        assert not any(name in one for one in remote.asked if one.startswith("get") and MANIFEST not in one)


def test_names_that_are_none_are_not_asked_for(remote, tmp_path):
    for name in ("no-such-dir", "./org/name", "/org/name", "a/b/c", "org/na me", "-x/y"):
        assert hub.resolve_model(name) == Path(name)
    with pytest.raises(ArtifactError, match=r"revision '\.\./x'"):
        hub.resolve_model("org/toys", "../x")
    with pytest.raises(RequestError, match="should be org/name"):
        hub.push_to_hub(tmp_path, "name")
    assert remote.asked == []
    with pytest.raises(ArtifactError, match="neither a directory here nor on the Hub: 404"):
        hub.resolve_model("org/nothing")


def test_a_refusal_of_the_hub_is_one_line(remote, model, monkeypatch):
    def refuse(*args, **kwargs):
        answer = httpx.Response(403, request=httpx.Request("POST", "https://hub"))
        raise HfHubHTTPError("403 Forbidden:\n no write token", response=answer)

    monkeypatch.setattr(remote, "upload_folder", refuse)
    with pytest.raises(ArtifactError, match="did not take it: 403 Forbidden: no write token"):
        push(model)


def test_data_that_may_not_be_passed_on_stays(model, tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "data_of", lambda path: "ml-100k")
    with pytest.raises(RequestError, match="may not be passed on"):
        hub.stage_upload(model, tmp_path / "out", True, "org/base")
    hub.stage_upload(model, tmp_path / "out", False, "org/base")
    assert hub.read_config(tmp_path / "out")["settings"]["data"] == "ml-100k"


def test_a_card_says_what_was_measured_and_is_filled_again_without_a_trace(model):
    plain = (model / "README.md").read_text()
    empty, full = fill_card(plain, []), fill_card(plain, [RESULT])
    assert "Nothing has been measured" in empty and "0.2259 (0.2000 to 0.2500)" in full
    assert full.count(START) == full.count(END) == 1 and full.index(END) < full.index("## Limits")
    assert fill_card(full, [RESULT]) == full and fill_card(full, []) == empty
    assert "later: not measured" in full and "<b>" not in full and "item knn" in full
    metadata = ModelCard(full).data.to_dict()
    measured = metadata["model-index"][0]["results"]
    assert [one["metrics"][0]["value"] for one in measured] == [0.2259], "baselines are not the model's results"
    assert metadata["library_name"] == "llmrec" and "model-index" not in ModelCard(empty).data.to_dict()


def test_the_card_of_the_shipped_model_names_its_base_as_the_hub_does():
    card = fill_card(
        "---\nlicense: apache-2.0\nbase_model: smollm2-135m-instruct\n---\n# A model\n\n## Limits\nMany.\n", []
    )
    assert ModelCard(card).data.to_dict()["base_model"] == "HuggingFaceTB/SmolLM2-135M-Instruct"


MEASURED = {
    "split": "leave-one-out", "part": "test", "users": 943, "users_sampled": 300, "candidates": "all 12 items",
    "seen_filtered": True, "rows_of_the_sample": ["item|knn\n`x`<b>"], "p": {"x": 1},
}  # fmt: skip


def test_numbers_of_a_card_say_their_data_and_sample(model):
    result = {**RESULT, "protocol": MEASURED}
    card = fill_card((model / "README.md").read_text(), [result])
    assert "### accuracy on data\n" in card
    told = "split leave-one-out; part test; users 943; users sampled 300; candidates all 12 items; seen filtered True"
    assert f"Measured on data: {told}; n = 943." in card
    assert "item knn  x  b  (300 users) |" in card and "| hybrid | 0.2259" in card
    (one,) = ModelCard(card).data.to_dict()["model-index"][0]["results"]
    assert one["dataset"]["name"] == one["dataset"]["type"] == "data" and one["dataset"]["split"] == "test"
    sample = {name: value for name, value in MEASURED.items() if name not in ("rows_of_the_sample", "p")}
    assert one["dataset"]["args"] == {**sample, "n": 943} and "config" not in one["dataset"]
    assert fill_card(card, [result]) == card
    words = fill_card((model / "README.md").read_text(), [{**RESULT, "protocol": "in words"}])
    assert "Measured on data: n = 943." in words


@pytest.mark.parametrize(
    ("base", "data", "stated"),
    [
        ("org/unknown", "/my/shop", ["org/unknown`: not stated", "data `shop`: not stated"]),
        ("smollm2-135m-instruct", "shop", ["smollm2-135m-instruct`: Apache-2.0", "shop`: not stated"]),
        ("smollm2-135m-instruct", "ml-100k", ["`: Apache-2.0", "ml-100k`: GroupLens: research use"]),
    ],
)
def test_a_card_claims_no_licence_that_nobody_stated(model, base, data, stated):
    world = recommender(model)
    loaded = types.SimpleNamespace(
        meta={"tokens": 1, "steps": 1, "seconds": 60, "recipe": {}}, model=world.model, fusions=world.fusions,
        settings={"data": data},
    )  # fmt: skip
    card = model_card(loaded, world.catalog, types.SimpleNamespace(id=base, sha256="a" * 64))
    filled = fill_card(card, [])
    assert not any("license" in ModelCard(one).data.to_dict() for one in (card, filled))
    assert all(one in card for one in stated) and "/my/" not in card
    own = card.replace("---\n", "---\nlicense: mit\n", 1)
    assert ModelCard(fill_card(own, [])).data.to_dict()["license"] == "mit", "what somebody stated stays"


def test_only_results_about_the_models_data_count(model, tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(RESULT))
    (tmp_path / "b.json").write_text(json.dumps({**RESULT, "dataset": "other"}))
    assert load_results(tmp_path, "data") == [RESULT]
    result = CliRunner().invoke(
        app, ["card", "--model", str(model), "--results", str(tmp_path), "--out", str(tmp_path / "C.md")]
    )
    assert result.exit_code == 0 and (tmp_path / "C.md").read_text().count("0.2259 (") == 1
    (tmp_path / "c.json").write_text("[1]")
    with pytest.raises(DataError, match=r"c\.json is not a result file"):
        load_results(tmp_path, "data")
    with pytest.raises(DataError, match="no directory"):
        load_results(tmp_path / "none", "data")


def test_push_on_the_command_line(remote, model, tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "a.json").write_text(json.dumps(RESULT))
    words = ["push", "org/toys", "--model", str(model), "--base", "org/base", "--results", str(tmp_path / "results")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.exception
    assert "https://hub/org/toys/commit/1" in result.output
    assert "0.2259 (" in (remote.root / "org/toys/README.md").read_text()
