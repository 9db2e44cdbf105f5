"""A model while its world goes on: new interactions, items that go, items that the codebook was not made for."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from conftest import HashEmbedder, make_catalog, make_interactions
from toy_files import recommender, saved
from typer.testing import CliRunner

from llmrec.app.cli.main import app
from llmrec.checkpoint.parts import read_parts, without_rows
from llmrec.data.catalog import Catalog
from llmrec.data.dataset import load_data, save_data
from llmrec.data.interactions import Interactions, leave_one_out, model_selection_users
from llmrec.data.readers.table import append_table, read_items
from llmrec.data.readers.table_mapping import load_mapping
from llmrec.encoders.config import EncoderConfig, Tower, encoder_config_dict
from llmrec.encoders.item_knn import item_counts
from llmrec.encoders.sequential import SequenceEncoder, network
from llmrec.errors import ArtifactError, DataError, RequestError, UserError
from llmrec.finetune.refresh import mean_user_cosine, refit_encoder, refresh_model
from llmrec.lifecycle.drift import measure_drift
from llmrec.lifecycle.remove_items import remove_items_from_model
from llmrec.recommender import Filters, Request
from llmrec.semantic_ids.drift import sid_drift
from llmrec.semantic_ids.residual_kmeans import fit, joint_vectors
from llmrec.storage.artifacts import read_manifest


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory, monkeypatch):
    """Text vectors are cached beside nobody else's."""
    monkeypatch.setenv("LLMREC_HOME", str(tmp_path_factory.getbasetemp() / "home"))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lifecycle")
    model, _ = saved(folder)
    new = make_interactions(users=60, length=6, seed=1)
    save_data(folder / "more", make_catalog(), new, load_data(folder / "data")[2])
    return folder, model


@pytest.mark.kernels
def test_a_refresh_fits_everything_but_the_language_model(world, tmp_path):
    folder, model = world
    out = tmp_path / "model"
    shutil.copytree(model, out)
    done = refresh_model(out, folder / "more", out, epochs=6, rate=1.0)
    assert (out / "adapter.safetensors").read_bytes() == (model / "adapter.safetensors").read_bytes()
    before, after = read_parts(model), read_parts(out)
    assert done.refitted and done.ndcg_after > done.ndcg_before and done.new_users == 20
    assert not np.array_equal(before.encoder.item_vectors, after.encoder.item_vectors)
    assert done.user_cosine < 1 and done.rebuild == (done.user_cosine < 0.8)
    assert np.array_equal(before.ids.codes, after.ids.codes) and not np.array_equal(before.prior, after.prior)
    assert before.encoder.config == after.encoder.config
    train = leave_one_out(load_data(folder / "more")[1]).train
    assert np.array_equal(after.counts, item_counts(train, len(after.counts)))
    assert not np.array_equal(before.counts, after.counts)
    history = read_manifest(out, "model").meta["history"]
    assert [one["what"] for one in history] == ["refresh"] and history[0]["train_fingerprint"] == train.fingerprint
    served = recommender(out)
    assert "u59" in served.users and len(served.recommend(Request(history=served.history_of("u59"), k=3))) == 3


def test_a_refit_that_validates_worse_is_not_kept(world, tmp_path, monkeypatch):
    folder, model = world
    values = iter([0.5, 0.4, 0.3, 0.4, 0.4])
    monkeypatch.setattr("llmrec.finetune.stages.next_item_ndcg", lambda *a: next(values))
    said = []
    done = refresh_model(model, folder / "more", tmp_path / "out", epochs=2, say=said.append)
    assert not done.refitted and done.user_cosine == 1.0 and "is kept" in said[-1]
    assert np.array_equal(read_parts(model).encoder.item_vectors, read_parts(tmp_path / "out").encoder.item_vectors)


def test_nothing_moves_without_epochs_and_new_data(world, tmp_path):
    folder, model = world
    done = refresh_model(model, folder / "data", tmp_path / "out", epochs=0)
    assert (done.refitted, done.user_cosine, done.new_users) == (False, 1.0, 0)
    for name in ("encoder", "neighbours", "semantic_ids", "adapter"):
        name += ".safetensors"
        assert (tmp_path / "out" / name).read_bytes() == (model / name).read_bytes(), name


def test_a_refresh_refuses_another_catalogue_and_leaves_the_old_model(world, tmp_path):
    _, model = world
    save_data(tmp_path / "other", make_catalog(13), make_interactions(n=13), load_data(world[0] / "data")[2])
    before = read_manifest(model, "model")
    with pytest.raises(ArtifactError, match="another catalogue"):
        refresh_model(model, tmp_path / "other", model)
    with pytest.raises(RequestError, match="--rate 0"):
        refresh_model(model, world[0] / "more", model, rate=0.0)
    assert read_manifest(model, "model") == before


@pytest.mark.parametrize(
    ("known", "new", "says"),
    [(1000, 1, "multiply the new ones by 1,000"), (1, 10**6, "divide .* 1,000,000"), (1, 1, "")],
)
def test_new_times_in_another_unit_are_refused(tmp_path, known, new, says):
    catalog = make_catalog()
    log = Interactions.build(["u", "u"], [0, 1], [1_000_000_000 * known, 1_000_000_005 * known], [1.0, 1.0])
    (tmp_path / "new.csv").write_text(f"user_id,item_id,at\nu,i2,{1_700_000_000 * new}\n")
    mapping = load_mapping(None, {"interactions": {"file": str(tmp_path / "new.csv"), "time": "at"}})
    if says:
        with pytest.raises(DataError, match=rf"new\.csv: times around .*{says}"):
            append_table(catalog, log, mapping)
    else:
        assert append_table(catalog, log, mapping)[1].rows_of(0).tolist() == [0, 1, 2]
    order = load_mapping(None, {"interactions": {"file": str(tmp_path / "new.csv")}})
    assert append_table(catalog, log, order)[1].rows_of(0).tolist() == [0, 1, 2]


@pytest.fixture
def mine(tmp_path):
    """A directory that llmrec did not write."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letters.txt").write_text("x")
    return tmp_path / "mine"


def test_a_place_that_is_not_ours_is_refused_before_anything_is_read(world, mine):
    folder, _ = world
    for words in (
        ["data", "append", str(folder / "data"), "--interactions", "no.csv"],
        ["data", "prepare", "--source", "table", "--items", "no.csv", "--interactions", "no.csv"],
    ):
        result = CliRunner().invoke(app, [*words, "--out", str(mine)])
        assert "mine holds files but no manifest.json" in str(result.exception or result.output), words


def test_a_removal_that_cannot_write_its_model_leaves_the_data(world, tmp_path, mine):
    folder, model = world
    shutil.copytree(folder / "data", tmp_path / "data")
    before = read_manifest(tmp_path / "data", "data")
    catalog, log, _ = load_data(tmp_path / "data")
    with pytest.raises(ArtifactError, match="mine holds files"):
        remove_items_from_model(model, catalog, log, ["i1"], mine, tmp_path / "data")
    assert read_manifest(tmp_path / "data", "data") == before
    with pytest.raises(ArtifactError, match="mine holds files"):
        refresh_model(model, folder / "more", mine)


def test_refresh_and_append_on_the_command_line(world, tmp_path):
    folder, model = world
    log = "who,item,at\nu0,i5,900\nu0,i5,900\nnew,i1,901\nnew,i3,902\nnew,nothing,903\n"
    (tmp_path / "new.csv").write_text(log)
    words = ["data", "append", str(folder / "data"), "--interactions", str(tmp_path / "new.csv"), "--user", "who",
             "--item", "item", "--time", "at", "--accept-loss", "--out", str(tmp_path / "data"), "--json"]  # fmt: skip
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.exception
    assert json.loads(result.output)["counts"]["new"] == 3
    assert json.loads(result.output)["dropped"] == {"unknown item": 1, "repeated user, item and time": 1}
    catalog, x, _ = load_data(tmp_path / "data")
    assert catalog.fingerprint == make_catalog().fingerprint and x.rows_of(x.number("new")).tolist() == [1, 3]
    words = [
        "refresh",
        "--model",
        str(model),
        "--data",
        str(tmp_path / "data"),
        "--out",
        str(tmp_path / "m"),
        "--epochs",
        "1",
    ]
    result = CliRunner().invoke(app, [*words, "--json"])
    assert result.exit_code == 0 and json.loads(result.stdout)["new_users"] == 1
    (tmp_path / "same.csv").write_text("user_id,item_id,at\nu0,nothing,1\n")
    mapping = load_mapping(None, {"interactions": {"file": str(tmp_path / "same.csv"), "time": "at"}})
    with pytest.raises(DataError) as caught:
        append_table(catalog, x, mapping)
    assert str(caught.value).endswith(
        f"same.csv: adds nothing to {len(x)} interactions; left out: 1 of unknown item; "
        "e.g. item 'nothing'; the items' ids look like 'i0'"
    )


def test_removed_items_are_gone_and_all_others_keep_their_codes(world, tmp_path):
    _, model = world
    words = ["items", "remove", "--model", str(model), "--ids", "i3, i4", "--out", str(tmp_path / "model")]
    result = CliRunner().invoke(app, [*words, "--out-data", str(tmp_path / "data"), "--json"])
    assert result.exit_code == 0, result.exception
    assert json.loads(result.output)["removed_items"] == 2
    before, after = read_parts(model), read_parts(tmp_path / "model")
    kept = [row for row in range(12) if row not in (3, 4)]
    assert np.array_equal(after.ids.codes, before.ids.codes[kept])
    old, new = recommender(model), recommender(tmp_path / "model")
    ids = {item.id for item in new.catalog.items}
    assert len(ids) == 10 and not ids & {"i3", "i4"}
    history = [0, 2]  # in front of what went: the same rows in both
    scores = old.model.encoder.scores([np.array(history)])[0][kept]
    assert np.allclose(new.model.encoder.scores([np.array(history)])[0], scores)
    assert np.allclose(
        new.scorer.neighbours.similarity.toarray(), old.scorer.neighbours.similarity.toarray()[np.ix_(kept, kept)]
    )
    listed = new.recommend(Request(history=tuple(history), k=100))
    assert {new.catalog[one.row].id for one in listed} == ids - {"i0", "i2"}
    assert all(set(new.history_of(user)) <= set(range(10)) for user in new.users)
    assert new.recommend(Request(filters=Filters(any_of={"genre": ("Horror",)}), k=12))


def test_encoders_of_several_towers_are_refitted_and_cut_as_one_is(world, tmp_path):
    config = EncoderConfig(
        dim=16, layers=1, heads=2, max_len=10, dropout=0.0, lr=0.01,
        towers=(Tower("sasrec"), Tower("hstu", text_dims=4)),
    )  # fmt: skip
    parts = read_parts(world[1])
    towers = SequenceEncoder(network(12, config))
    parts = replace(parts, encoder=towers, config={**parts.config, "encoder": encoder_config_dict(config)})
    split = leave_one_out(load_data(world[0] / "more")[1])
    kept = np.array([0, 1, 2, 5, 6, 7, 8, 9, 10, 11])
    scores = towers.scores([np.array([0, 2])])[0][kept]
    assert np.allclose(without_rows(parts, kept).encoder.scores([np.array([0, 2])])[0], scores)
    refitted, before, after = refit_encoder(
        parts, split, 12, model_selection_users(split), 8, 1.0, 0, lambda line: None
    )
    assert (
        after >= before
        and refitted.item_vectors.shape == (12, 16)
        and 0 < mean_user_cosine(towers, refitted, split) < 1
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--ids", "nope"], "no item 'nope'"),
        ([], "give --ids or --file"),
        (["--ids", ",".join(f"i{n}" for n in range(12))], "a catalogue keeps at least one"),
        (["--file", "/no/such/file"], "/no/such/file"),
    ],
)
def test_a_removal_that_cannot_be_done_writes_nothing(world, tmp_path, words, said):
    out, data = str(tmp_path / "model"), str(tmp_path / "data")
    result = CliRunner().invoke(
        app, ["items", "remove", "--model", str(world[1]), "--out", out, "--out-data", data, *words]
    )
    assert isinstance(result.exception, UserError) and said in str(result.exception)
    assert list(tmp_path.iterdir()) == []


def test_drift_tells_more_of_the_same_from_something_else():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(8, 24))
    known = (centres[rng.integers(8, size=400)] + 0.3 * rng.normal(size=(400, 24))).astype(np.float32)
    alike = (centres[rng.integers(8, size=60)] + 0.3 * rng.normal(size=(60, 24))).astype(np.float32)
    other = (3.0 * rng.normal(size=(60, 24))).astype(np.float32)
    ids = fit(joint_vectors(known, rng.normal(size=(400, 6)), 16, 0.7), 3, 16, 0)
    same, far = sid_drift(known, alike, ids, 0.7, 16), sid_drift(known, other, ids, 0.7, 16)
    assert not same.rebuild and same.far_share < 0.15 and same.reasons == ()
    assert far.rebuild and far.far_share > 0.8 and far.error_new > 2 * far.error_known and len(far.reasons) >= 2
    assert sid_drift(known, known, ids, 0.7, 16).error_new == pytest.approx(same.error_known)
    with pytest.raises(RequestError, match="made without text"):
        sid_drift(known, alike, ids, 0.0, 16)
    with pytest.raises(RequestError, match="semantic IDs"):
        sid_drift(known, alike[:0], ids, 0.7, 16)


def test_drift_says_when_the_tree_is_full():
    rng = np.random.default_rng(1)
    known = rng.normal(size=(16, 6)).astype(np.float32)
    ids = fit(joint_vectors(known, None, 4, 1.0), 2, 4, 0)
    found = sid_drift(known, known[:3] + 0.01, ids, 1.0, 4)
    assert found.free_share == 0 and found.crowded_share == 1 and found.rebuild


def test_a_handful_of_new_items_is_too_few_to_tell():
    rng = np.random.default_rng(0)
    known = rng.normal(size=(400, 24)).astype(np.float32)
    other = (3.0 * rng.normal(size=(60, 24))).astype(np.float32)
    ids = fit(joint_vectors(known, rng.normal(size=(400, 6)), 16, 0.7), 3, 16, 0)
    for count in (1, 3, 19):
        few = sid_drift(known, other[:count], ids, 0.7, 16)
        assert few.far_share == 1 and few.error_new > 2 * few.error_known  # told, and no reason
        assert (few.enough, few.rebuild, few.reasons) == (False, False, ())
    enough = sid_drift(known, other[:20], ids, 0.7, 16)
    assert enough.enough and enough.rebuild
    # three new games of a shop that sells ten are many, and still three
    small = fit(joint_vectors(known[:10], rng.normal(size=(10, 6)), 4, 0.7), 2, 4, 0)
    assert not sid_drift(known[:10], other[:3], small, 0.7, 4).rebuild
    full = sid_drift(known[:10], other[:7], small, 0.7, 4)  # 16 paths, 10 taken
    assert full.rebuild and full.reasons == ("6 free paths are left for 7 new items",) and not full.enough


def test_new_items_like_the_known_ones_are_seldom_a_reason():
    """A mean over few items varies: of a hundred samples of the known items themselves hardly any is called drift."""
    rng = np.random.default_rng(3)
    known = (rng.standard_t(3, size=(600, 16)) * rng.gamma(0.5, size=(600, 1))).astype(np.float32)  # heavy tails
    ids = fit(joint_vectors(known, rng.normal(size=(600, 6)), 8, 0.7), 2, 32, 0)
    called = [sid_drift(known, known[rng.choice(600, 20, replace=False)], ids, 0.7, 8) for _ in range(100)]
    assert sum(any("error" in reason for reason in one.reasons) for one in called) <= 3


def test_drift_is_told_in_words(world, tmp_path, monkeypatch):
    monkeypatch.setattr("llmrec.lifecycle.drift.MiniLM.load", HashEmbedder)
    for count, code in ((3, 0), (20, 1)):
        rows = "".join(f"n{n},Quantum chromodynamics volume {n}\n" for n in range(count))
        (tmp_path / "new.csv").write_text("item_id,title\n" + rows)
        words = ["items", "drift", "--model", str(world[1]), "--items", str(tmp_path / "new.csv")]
        result = CliRunner().invoke(app, words)
        lines = result.output.splitlines()
        assert result.exit_code == code and lines[0].startswith(f"new items: {count}, beside 12 ")
        assert not set("()[]{}'\"") & set(result.output)  # no Python in it
        assert any(line.startswith("too few to tell") for line in lines) == (count == 3)
        assert any(line.startswith("reason to rebuild: ") for line in lines) == (count == 20)
        assert lines[-1].startswith("rebuild: yes" if count == 20 else "rebuild: no")


def test_drift_on_files_exits_with_1_when_the_code_book_should_be_made_again(world, tmp_path, monkeypatch):
    _, model = world
    monkeypatch.setattr("llmrec.lifecycle.drift.MiniLM.load", HashEmbedder)
    rows = "".join(f"n{n},Quantum chromodynamics volume {n}\n" for n in range(20))
    (tmp_path / "new.csv").write_text("item_id,title\ni0,Funny Tale 0\n" + rows)
    result = CliRunner().invoke(
        app, ["items", "drift", "--model", str(model), "--items", str(tmp_path / "new.csv"), "--json"]
    )
    assert result.exit_code == 1, result.exception
    assert json.loads(result.output)["items"] == 20 and json.loads(result.output)["reasons"]
    flags = ["--title", "name", "--item-id", "code", "--json"]
    (tmp_path / "other.csv").write_text((tmp_path / "new.csv").read_text().replace("item_id,title", "code,name"))
    same = CliRunner().invoke(
        app, ["items", "drift", "--model", str(model), "--items", str(tmp_path / "other.csv"), *flags]
    )
    assert same.exit_code == 1 and json.loads(same.output) == json.loads(result.output)
    (tmp_path / "old.csv").write_text("item_id,title\ni0,Funny Tale 0\n")
    with pytest.raises(RequestError, match="is in the catalogue already"):
        measure_drift(model, read_items(load_mapping(None, {"items": {"file": str(tmp_path / "old.csv")}}).items))


def test_the_parts_of_two_catalogues_are_never_mixed(world, tmp_path):
    from llmrec.checkpoint.parts import write_parts

    parts = read_parts(world[1])
    smaller = Catalog(make_catalog().items[:-1], "films")
    with pytest.raises(ArtifactError, match=r"parts of \[12\] items do not fit a catalogue of 11"):
        write_parts(tmp_path / "out", parts, smaller, "data", {"what": "nothing"})
