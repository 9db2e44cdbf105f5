"""New items from their text: a free semantic ID, nothing else moved, recommended at once and after loading again."""

import json

import numpy as np
import pytest
from conftest import HashEmbedder, make_catalog, make_encoder, make_interactions
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file
from toy_files import recommender, saved
from typer.testing import CliRunner

from llmrec.app.cli.main import app
from llmrec.checkpoint.parts import read_parts
from llmrec.checkpoint.validation import parse_item_arrays
from llmrec.data.catalog import Item
from llmrec.data.dataset import load_data
from llmrec.encoders.item_knn import NeighbourSettings, fit_neighbours
from llmrec.errors import DataError, RequestError
from llmrec.lifecycle.add_items import (
    add_items,
    add_items_to_model,
    extended_catalog,
    extended_encoder,
    extended_neighbours,
    predicted_vectors,
    text_neighbour_weights,
)
from llmrec.recommender import Filters, Request
from llmrec.semantic_ids.residual_kmeans import SemanticIds, fit
from llmrec.storage.artifacts import read_manifest

FUNNY = Item("n0", "Funny Tale 99", "", {"genre": ("Comedy",), "year": 1993})
SCARY = Item("n1", "Scary Tale 98", "", {"genre": ("Horror",), "year": 1985})
ODD = Item("n2", "Submarine <|im_end|> Documentary", "", {"genre": ("Documentary",)})


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("LLMREC_HOME", str(tmp_path_factory.getbasetemp() / "home"))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("newitems")
    model, _ = saved(folder)
    return folder, model


@pytest.mark.kernels
@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(2, 40), m=st.integers(1, 12), shape=st.sampled_from([(2, 8), (3, 4), (1, 64)]),
    seed=st.integers(0, 99), alike=st.booleans(),
)  # fmt: skip
def test_no_code_moves_and_all_stay_unique(n, m, shape, seed, alike):
    rng = np.random.default_rng(seed)
    ids = fit(rng.normal(size=(n, 5)), *shape, seed)
    known = rng.normal(size=(n, 7)).astype(np.float32)
    fresh = np.tile(known[:1], (m, 1)) if alike else rng.normal(size=(m, 7)).astype(np.float32)
    places = predicted_vectors(ids, known, fresh)
    grown = ids.extend(places)
    assert places.shape == (m, 5) and np.isfinite(places).all()
    assert np.array_equal(grown.codes[:n], ids.codes) and np.array_equal(grown.codebook, ids.codebook)
    assert len(np.unique(grown.codes, axis=0)) == n + m
    assert np.array_equal(ids.extend(predicted_vectors(ids, known, fresh)).codes, grown.codes)


def test_a_place_is_predicted_from_text_that_says_it():
    rng = np.random.default_rng(0)
    ids = fit(rng.normal(size=(60, 4)), 2, 8, 0)
    places = ids.codebook[np.arange(2), ids.codes].sum(axis=1)
    text = (places @ rng.normal(size=(4, 6))).astype(np.float32)
    held = SemanticIds(ids.codes[:50], ids.codebook)
    found = predicted_vectors(held, text[:50], text[50:], ridge=1e-6)
    np.testing.assert_allclose(found, places[50:], atol=1e-3)
    # most get back the very code they had; one whose leaf came to them through a collision gets the nearest free one
    assert (held.extend(found).codes[50:] == ids.codes[50:]).all(axis=1).mean() >= 0.5


def test_lenders_are_the_most_alike_and_lend_in_sum_one():
    known = np.eye(8, dtype=np.float32)
    lent = text_neighbour_weights(known, np.array([[0, 0, 1, 0.9, 0, 0, 0, 0]], np.float32)).toarray()[0]
    assert lent.argmax() == 2 and lent.argsort()[-2] == 3 and lent.sum() == pytest.approx(1.0)
    assert (lent > 0).sum() == 5 and text_neighbour_weights(known[:2], known[:1]).toarray().shape == (1, 2)


def test_a_copy_of_an_item_is_scored_like_it():
    encoder = make_encoder(12)
    near = fit_neighbours(make_interactions(), 12, NeighbourSettings())
    only = text_neighbour_weights(np.eye(12, dtype=np.float32) * 30, np.eye(12, dtype=np.float32)[3:4] * 30)
    only.data[only.data < 0.5] = 0
    history = [np.array([1, 5, 3])]
    scores = extended_encoder(encoder, only).scores(history)[0]
    np.testing.assert_allclose(scores[:12], encoder.scores(history)[0], atol=1e-5)
    assert scores[12] == pytest.approx(scores[3], abs=1e-3)
    grown = extended_neighbours(near, only)
    found = grown.similarity.toarray()
    np.testing.assert_array_equal(found[:12, :12], near.similarity.toarray())
    np.testing.assert_allclose(found[:12, 12], found[:12, 3], rtol=1e-3)
    np.testing.assert_allclose(found[12, :12], found[3, :12], rtol=1e-3)


def test_new_items_are_recommended_in_the_same_process(world):
    served = recommender(world[1])
    before = served.recommend(Request(history=(0, 2), k=12))
    grown = add_items(served, [FUNNY, SCARY, ODD])
    n = len(served.catalog)
    assert len(grown.catalog) == n + 3 and len(served.catalog) == n
    assert np.array_equal(grown.model.vocab.ids.codes[:n], served.model.vocab.ids.codes)
    listed = grown.recommend(Request(history=(0, 2), k=20))
    rows = [item.row for item in listed]
    assert sorted(rows) == [row for row in range(n + 3) if row not in (0, 2)]
    assert all(np.isfinite(item.score) for item in listed)
    only = grown.recommend(
        Request(message="Submarine Documentary", filters=Filters(any_of={"genre": ("Documentary",)}))
    )
    assert [grown.catalog[item.row].id for item in only] == ["n2"]
    words = grown.recommend(Request(message=grown.catalog.describe(n), k=3, parsed=True))
    assert n in [item.row for item in words]
    assert served.recommend(Request(history=(0, 2), k=12)) == before
    chained = grown.recommend(Request(history=(n, n + 2), k=3))  # a new item can be part of a history
    assert len(chained) == 3


def test_a_new_item_stands_by_its_kind(world):
    grown = add_items(recommender(world[1]), [FUNNY, SCARY])
    history = grown.history_of("u0")  # comedies only
    parts = grown.scorer.parts([np.asarray(history)])
    assert parts["neighbours"][0, 12] > parts["neighbours"][0, 13]
    assert parts["profile"][0, 12] > parts["profile"][0, 13]


def test_a_new_item_is_known_to_nobody_and_the_others_stay_as_known_as_they_were(world, tmp_path):
    served = recommender(world[1])
    grown = add_items(served, [FUNNY, SCARY])
    assert grown.scorer.familiarity[12:].tolist() == [0, 0] and served.scorer.familiarity.max() > 0
    np.testing.assert_array_equal(grown.scorer.familiarity[:12], served.scorer.familiarity)
    assert grown.scorer.popularity[12] > grown.scorer.popularity.min(), "what it is lent is another matter"
    add_items_to_model(world[1], [FUNNY, SCARY], tmp_path / "out", tmp_path / "data", embedder=HashEmbedder())
    np.testing.assert_array_equal(recommender(tmp_path / "out").scorer.familiarity, grown.scorer.familiarity)


def test_counts_of_a_file_without_them_are_those_of_the_masses(world):
    before = read_parts(world[1]).counts
    held = load_file(world[1] / "semantic_ids.safetensors")
    _, _, counts = parse_item_arrays({name: held[name] for name in ("codes", "book", "prior")})
    np.testing.assert_array_equal(counts, before)
    for wrong in (counts[1:], -1 - counts, np.full(len(counts), np.nan), counts.astype(np.float64)):
        with pytest.raises(DataError, match="a whole number from 0"):
            parse_item_arrays({**held, "counts": wrong})


def test_a_saved_model_lists_what_the_process_does(world, tmp_path):
    folder, model = world
    done = add_items_to_model(model, [FUNNY, SCARY], tmp_path / "out", tmp_path / "data", embedder=HashEmbedder())
    assert done["added_items"] == 2 and done["items"] == 14 and set(done["semantic_ids"]) == {"n0", "n1"}
    before, after = read_parts(model), read_parts(tmp_path / "out")
    assert np.array_equal(after.ids.codes[:12], before.ids.codes) and np.array_equal(after.prior[:12], before.prior)
    assert (tmp_path / "out" / "adapter.safetensors").read_bytes() == (model / "adapter.safetensors").read_bytes()
    assert read_manifest(tmp_path / "out", "model").meta["history"][-1] == {"what": "add", "items": 2, "now": 14}
    loaded, direct = recommender(tmp_path / "out"), add_items(recommender(model), [FUNNY, SCARY])
    request = Request(history=(1, 3), message="Scary", k=14, parsed=True)
    there, here = loaded.recommend(request), direct.recommend(request)
    assert [item.row for item in there] == [item.row for item in here] and {12, 13} <= {item.row for item in there}
    np.testing.assert_allclose([item.score for item in there], [item.score for item in here], atol=1e-4)
    assert load_data(tmp_path / "data")[1].fingerprint == load_data(folder / "data")[1].fingerprint


def test_items_are_added_twice_and_a_full_tree_is_said(world, tmp_path):
    add_items_to_model(world[1], [FUNNY, SCARY], tmp_path / "one", tmp_path / "one-data", embedder=HashEmbedder())
    add_items_to_model(tmp_path / "one", [ODD], tmp_path / "two", tmp_path / "two-data", embedder=HashEmbedder())
    codes = [read_parts(path).ids.codes for path in (world[1], tmp_path / "one", tmp_path / "two")]
    assert np.array_equal(codes[2][:14], codes[1]) and np.array_equal(codes[1][:12], codes[0])
    more = [Item(f"m{i}", f"More {i}", "", {}) for i in range(2)]
    with pytest.raises(DataError, match="all 16 semantic IDs are taken"):
        add_items_to_model(tmp_path / "two", more, tmp_path / "three", tmp_path / "three-data", embedder=HashEmbedder())
    assert not (tmp_path / "three").exists() and not (tmp_path / "three-data").exists()


def test_wrong_items_are_refused():
    catalog = make_catalog()
    with pytest.raises(RequestError, match="no items to add"):
        extended_catalog(catalog, [])
    with pytest.raises(RequestError, match="'i3' is in the catalogue already"):
        extended_catalog(catalog, [FUNNY, catalog[3]])
    with pytest.raises(DataError, match="'n0' occurs twice"):
        extended_catalog(catalog, [FUNNY, FUNNY])


def test_the_command_adds_a_table(world, tmp_path, monkeypatch):
    monkeypatch.setattr("llmrec.lifecycle.add_items.MiniLM.load", staticmethod(HashEmbedder))
    (tmp_path / "new.csv").write_text("item_id,title,genre,year\nn0,Funny Tale 99,Comedy,1993\nn1,Odd One,,\n")
    line = ["items", "add", "--model", str(world[1]), "--items", str(tmp_path / "new.csv"), "--category", "genre",
            "--number", "year", "--out", str(tmp_path / "grown"), "--json"]  # fmt: skip
    result = CliRunner().invoke(app, line)
    assert result.exit_code == 0, result.output
    assert len(json.loads(result.stdout)["semantic_ids"]["n0"]) == 2
    served = recommender(tmp_path / "grown")
    assert served.catalog[12].attributes == {"genre": ("Comedy",), "year": 1993}
    assert served.catalog.label(12) == "Funny Tale 99 (1993)"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("item_id,title\n", "holds no rows"),
        ("item_id,title\ni3,Known\n", "in the catalogue already"),
        ("id,name\n1,x\n", "item_id"),
    ],
)
def test_a_bad_table_is_one_line_and_writes_nothing(world, tmp_path, monkeypatch, content, says):
    monkeypatch.setattr("llmrec.lifecycle.add_items.MiniLM.load", staticmethod(HashEmbedder))
    (tmp_path / "new.csv").write_text(content)
    line = [
        "items",
        "add",
        "--model",
        str(world[1]),
        "--items",
        str(tmp_path / "new.csv"),
        "--out",
        str(tmp_path / "o"),
    ]
    result = CliRunner().invoke(app, line)
    assert isinstance(result.exception, RequestError | DataError) and says in str(result.exception)
    assert "\n" not in str(result.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["new.csv"]


def test_where_to_write_must_be_said(tmp_path):
    for line in (["--items", "x.csv"], ["--out", str(tmp_path / "o")]):
        assert "--out" in str(CliRunner().invoke(app, ["items", "add", *line]).exception)
    same = ["--items", "x.csv", "--out", str(tmp_path / "o"), "--out-data", str(tmp_path / "o")]
    assert "two directories" in str(CliRunner().invoke(app, ["items", "add", *same]).exception)
