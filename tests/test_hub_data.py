"""Data sets of the Hugging Face Hub as data: streamed, mapped as tables are, never run; here from directories."""

import json
import logging
import types
from pathlib import Path

import datasets
import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import errors as hub_errors
from typer.testing import CliRunner

from llmrec.app.cli import main as command
from llmrec.app.cli.main import app
from llmrec.data.dataset import load_data
from llmrec.data.readers import hub_tables
from llmrec.data.readers.hub_tables import HubTable, describe_origin, parse_reference, pin_commit, resolve_part
from llmrec.data.readers.table import read_items
from llmrec.data.readers.table_mapping import ItemColumns
from llmrec.errors import DataError, RequestError

FILMS = [
    {"item_id": f"f{n}", "title": f"Film {n}", "genres": ["Drama", "War"][n % 2 :], "year": 1990 + n, "left": "x"}
    for n in range(6)
]
LOG = [{"user_id": f"u{u}", "item_id": f"f{(u + n) % 6}", "at": 1_000_000_000 + n} for u in range(4) for n in range(4)]
MAPPED = ("--category", "genres", "--number", "year", "--time", "at", "--domain", "films")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def data_set(folder: Path, form: str) -> Path:
    """Two configurations, films in a folder and a log in two splits, named by a card."""
    (folder / "films").mkdir(parents=True)
    for name, rows in (("films/all", FILMS), ("train", LOG), ("test", LOG[:5])):
        path = folder / f"{name}.{form}"
        if form == "parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "README.md").write_text(
        f"---\nconfigs:\n- config_name: films\n  data_files: films/all.{form}\n"
        f"- config_name: log\n  data_files:\n  - split: train\n    path: train.{form}\n"
        f"  - split: test\n    path: test.{form}\n---\n# Toys\n"
    )
    return folder


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return data_set(tmp_path_factory.mktemp("hub") / "toys", "parquet")


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    hub_tables._commit.cache_clear()
    for name in ("LLMREC_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)


def prepare(out: Path, *words: str, source: str = "hub") -> types.SimpleNamespace:
    done = CliRunner().invoke(app, ["data", "prepare", "--source", source, "--out", str(out), *words, "--json"])
    assert done.exit_code == 0, done.exception
    return types.SimpleNamespace(notes=json.loads(done.output)["notes"], data=load_data(out))


def failed(out: Path, *words: str) -> str:
    """The one line that the command ends with; nothing is written."""
    before = sorted(out.parent.iterdir())
    done = CliRunner().invoke(app, ["data", "prepare", "--source", "hub", "--out", str(out), *words])
    assert isinstance(done.exception, RequestError | DataError), done.exception
    assert sorted(out.parent.iterdir()) == before and "\n" not in str(done.exception)
    return str(done.exception)


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_two_configurations_are_read_as_the_same_tables_are(form: str, tmp_path: Path) -> None:
    toys = data_set(tmp_path / "toys", form)
    words = ["--path", str(toys), "--items", "films", "--interactions", "log@train", *MAPPED]
    found = prepare(tmp_path / "hub", *words)
    files = ["--items", str(toys / "films" / f"all.{form}"), "--interactions", str(toys / f"train.{form}"), *MAPPED]
    tables = prepare(tmp_path / "table", *files, source="table")
    for one, other in zip(found.data[:2], tables.data[:2], strict=True):
        assert one.fingerprint == other.fingerprint
    assert found.notes[:2] == [
        f"items: directory {toys}, config films",
        f"interactions: directory {toys}, config log, split train",
    ]
    assert found.notes[2:] == tables.notes and any("left" in note for note in found.notes)
    assert tuple(found.data[2].notes) == tuple(found.notes)
    # what is not named is the table that --config and --split say
    words = ["--path", str(toys), "--config", "log", "--split", "test", "--items", "films@train", *MAPPED]
    assert len(prepare(tmp_path / "test", *words).data[1]) == 5
    mapping = tmp_path / "m.toml"
    mapping.write_text(
        'domain = "films"\n[items]\ncategory = ["genres"]\nnumber = ["year"]\n[interactions]\ntime = "at"\n'
    )
    words = ["--path", str(toys), "--items", "films", "--interactions", "log", "--mapping", str(mapping)]
    assert prepare(tmp_path / "toml", *words).data[0].fingerprint == found.data[0].fingerprint


def test_one_flat_table_holds_items_and_interactions(tmp_path: Path) -> None:
    films = {one["item_id"]: one for one in FILMS}
    flat = [{**films[one["item_id"]], **one} for one in LOG]
    folder = tmp_path / "flat"
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(flat), folder / "data.parquet")
    found = prepare(tmp_path / "out", "--path", str(folder), "--strict", *MAPPED)
    catalog, log, report = found.data
    assert (len(catalog), len(log), dict(report.dropped)) == (6, 16, {})
    assert catalog[0].attributes == {"genres": ("Drama", "War"), "year": 1990}
    assert not any("at" in note.split() or "genres" in note for note in found.notes if "not read" in note)


def test_mistakes_name_what_there_is(toys: Path, tmp_path: Path) -> None:
    out, path = tmp_path / "out", ["--path", str(toys)]
    both = [*path, "--items", "films", "--interactions", "log"]
    for words, said in (
        ([], "--path is missing"),
        (["--path", "no-such"], "'no-such' should be OWNER/NAME"),
        (path, "has several configurations; choose with --config from: films, log"),
        ([*path, "--config", "books"], "has no configuration 'books'; choose with --config from: films, log"),
        ([*both, "--split", "dev"], "has no split 'dev'; choose with --split from: train"),
        ([*both, "--interactions", "log@dev"], "has no split 'dev'; choose with --split from: train, test"),
        ([*both, "--title", "name"], "no column 'name'; found: item_id, title, genres, year, left; say with --title"),
        ([*both, "--time", "when"], "no column 'when'; found: user_id, item_id, at; say with --time"),
        ([*both, "--items", "a b"], "'a b' should be a configuration of the data set"),
        ([*both, "--revision", "main"], "--revision is for repositories of the Hub"),
    ):
        assert said in failed(out, *words), words
    for words, said in ((["--config", "films"], "belong to --source hub"), (["--items", "hf:x"], "hf:OWNER/NAME")):
        done = CliRunner().invoke(app, ["data", "prepare", "--source", "table", "--out", str(out), *words])
        assert said in str(done.exception)


def test_no_code_is_run_and_no_file_outside_is_read(toys: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    script = tmp_path / "coded"
    script.mkdir()
    (script / "coded.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    (script / "a.csv").write_text("item_id,title\n1,a\n")
    assert "needs its own loading script, and llmrec never runs code" in failed(out, "--path", str(script))
    secret = tmp_path / "secret.csv"
    secret.write_text("item_id,title\n1,a\n")
    for number, files in enumerate((str(secret), "../secret.csv")):
        folder = tmp_path / f"outside{number}"
        folder.mkdir()
        (folder / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  data_files: {files}\n---\n")
        (folder / "a.csv").write_text("item_id,title\n1,a\n")
        assert "its card names a file outside the data set" in failed(out, "--path", str(folder))
    images = tmp_path / "images"
    images.mkdir()
    (images / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert "is read as imagefolder; a table is one of: csv, json, parquet, arrow" in failed(out, "--path", str(images))
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "holds no files of a table" in failed(out, "--path", str(empty))
    assert not (tmp_path / "ran").exists()


def test_ids_that_were_rounded_are_refused_here_too(tmp_path: Path) -> None:
    folder = tmp_path / "rounded"
    folder.mkdir()
    pq.write_table(pa.table({"item_id": pa.array([16_777_216.0], pa.float32()), "title": ["a"]}), folder / "a.parquet")
    with pytest.raises(DataError, match=r"row 1: item_id 16777216 is of type float"):
        read_items(ItemColumns(file=HubTable(str(folder))))


# ---- the Hub, without a network


def response(status: int) -> types.SimpleNamespace:
    return types.SimpleNamespace(status_code=status, headers={}, request=None)


def test_a_repository_is_pinned_to_its_commit_once(toys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def dataset_info(self: object, path: str, **how: object) -> object:
        asked.append((path, how["revision"]))
        return types.SimpleNamespace(sha=COMMIT)

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
    films, log = (resolve_part(HubTable("org/toys", revision="v1"), one) for one in ("films", "log@train"))
    assert pin_commit(films) == HubTable("org/toys", "films", "", COMMIT) == pin_commit(pin_commit(films))
    assert pin_commit(log).revision == COMMIT and asked == [("org/toys", "v1")]
    assert describe_origin(pin_commit(log)) == (
        f"data set org/toys of the Hugging Face Hub, config log, split train, revision {COMMIT}"
    )
    assert parse_reference("hf:org/toys:films@train") == HubTable("org/toys", "films", "train")


def test_a_repository_is_streamed_at_that_commit_and_nothing_else_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[object, ...]] = []
    files = {"train": [f"hf://datasets/org/toys@{COMMIT}/films.csv"]}

    class Builder:
        __module__ = "datasets.packaged_modules.csv.csv"
        config = types.SimpleNamespace(data_files=files)

        def as_streaming_dataset(self) -> dict[str, object]:
            return {"train": datasets.Dataset.from_list(FILMS).to_iterable_dataset()}

    def load_dataset_builder(*words: object, cache_dir: str, **how: object) -> Builder:
        asked.append((*words, how))
        return Builder()

    monkeypatch.setattr(datasets, "load_dataset_builder", load_dataset_builder)
    table = HubTable("org/toys", "films", "train", COMMIT)
    assert [one.title for one in read_items(ItemColumns(file=table))] == [one["title"] for one in FILMS]
    assert asked == [("org/toys", "films", {"revision": COMMIT})]
    for outside in ("/etc/passwd", "https://elsewhere/a.csv", "hf://datasets/org/other@main/a.csv"):
        files["train"] = [f"hf://datasets/org/toys@{COMMIT}/films.csv", outside]
        with pytest.raises(DataError, match="its card names a file outside the data set"):
            read_items(ItemColumns(file=table))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (hub_errors.GatedRepoError("gated", response=response(403)),
         "org/toys is open only to those who were let in: ask for access at https://huggingface.co/datasets/org/toys, "
         "then log in with `hf auth login`"),
        (hub_errors.RepositoryNotFoundError("no", response=response(401)),
         "no data set 'org/toys' on the Hub, or a private one: check the name, or log in with `hf auth login`"),
        (hub_errors.RevisionNotFoundError("no", response=response(404)), "org/toys has no revision 'v1' on the Hub"),
        (hub_errors.HfHubHTTPError("Server\nerror", response=response(500)), "the Hub says no: Server error"),
        (ConnectionError("no route"), "the Hub does not answer (no route)"),
    ],
)  # fmt: skip
def test_what_the_hub_says_is_one_line(
    error: Exception, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dataset_info(*_: object, **__: object) -> object:
        raise error

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
    assert said in failed(tmp_path / "out", "--path", "org/toys", "--revision", "v1")


def test_offline_or_without_the_library_nothing_is_asked(
    toys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LLMREC_OFFLINE", "1")
    words = ["llmrec", "data", "prepare", "--source", "hub", "--path", "org/toys", "--out", str(tmp_path / "out")]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as caught:
        command.main()
    said = capsys.readouterr().err
    assert caught.value.code == 2 and said.count("\n") == 1
    assert "hf:org/toys: the Hub may not be asked (offline: LLMREC_OFFLINE=1); give a directory instead" in said
    words = ["--path", str(toys), "--items", "films", "--interactions", "log", *MAPPED]
    assert len(prepare(tmp_path / "local", *words).data[0]) == 6, "a directory needs no network"
    monkeypatch.setattr(hub_tables.importlib.util, "find_spec", lambda name: None)
    assert "pip install 'llmrec[datasets]'" in failed(tmp_path / "out", *words)
    assert logging.getLogger("datasets").level >= logging.ERROR
