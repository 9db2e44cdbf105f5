"""The index on disk against exact search."""

import numpy as np
import pytest

from llmrec.errors import ArtifactError, DataError, RequestError
from llmrec.eval.bench.disk_index import DiskIndex, IndexLayout, build, recall
from llmrec.ranking.item_index import ItemIndex
from llmrec.storage.artifacts import MANIFEST


def clustered(n, dim=16, seed=0):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(60, dim))
    return (centres[rng.integers(0, 60, n)] + 0.4 * rng.normal(size=(n, dim))).astype(np.float32)


@pytest.fixture(scope="module")
def vectors():
    return clustered(6000)


@pytest.fixture(scope="module")
def exact(vectors):
    return ItemIndex(vectors)


@pytest.fixture(scope="module")
def path(vectors, tmp_path_factory):
    folder = tmp_path_factory.mktemp("index") / "items"
    build(folder, vectors, IndexLayout(40, 8, 3))
    return folder


QUERIES = clustered(40, seed=1)


def test_recall_against_exact_search_and_exact_scores(path, vectors, exact):
    index = DiskIndex(path)
    want, scores = exact.search(QUERIES, 10)
    for probes, least in ((40, 0.97), (8, 0.8)):
        rows, found = index.search(QUERIES, 10, probes)
        assert recall(rows, want) >= least
        np.testing.assert_allclose(found, np.einsum("qkd,qd->qk", vectors[rows], QUERIES), rtol=1e-5, atol=1e-5)
        assert (np.diff(found, axis=1) <= 0).all()
    assert recall(index.search(QUERIES, 10, 1)[0], want) < recall(index.search(QUERIES, 10, 8)[0], want)
    assert scores.shape == (40, 10)


def test_the_number_of_shards_changes_nothing_but_files(path, vectors, tmp_path):
    build(tmp_path / "one", vectors, IndexLayout(40, 8, 1))
    for spare in (8,):
        one, three = DiskIndex(tmp_path / "one"), DiskIndex(path)
        a, b = one.search(QUERIES, 5, 40, spare)[0], three.search(QUERIES, 5, 40, spare)[0]
        assert recall(a, b) > 0.99  # more candidates come from three shards than from one
    assert len(list(path.glob("*.lists"))) == 3


def test_filters_and_padding(path):
    allowed = np.zeros(6000, bool)
    allowed[[5, 17, 4000]] = True
    rows, scores = DiskIndex(path).search(QUERIES[:2], 10, 40, allowed=allowed)
    for line, found in zip(rows, scores, strict=True):
        assert sorted(line[:3]) == [5, 17, 4000] and (line[3:] == -1).all() and np.isneginf(found[3:]).all()


@pytest.mark.kernels
def test_the_same_bytes_twice_and_small_catalogues(tmp_path):
    for n in (1, 3, 50, 300):
        small = clustered(n)
        for name in ("a", "b"):
            build(tmp_path / f"{name}{n}", small)
        names = sorted(p.name for p in (tmp_path / f"a{n}").iterdir())
        for name in names:
            assert (tmp_path / f"a{n}" / name).read_bytes() == (tmp_path / f"b{n}" / name).read_bytes(), name
        rows, _ = DiskIndex(tmp_path / f"a{n}").search(small[:1], 3, 99, spare=99)
        assert rows[0, 0] == ItemIndex(small).search(small[:1], 1)[0][0, 0]


def test_damage_and_wrong_shapes_are_refused(path, vectors, tmp_path):
    build(tmp_path / "x", vectors, IndexLayout(40, 8, 2))
    lists = tmp_path / "x" / "shard-0001.lists"
    whole = lists.read_bytes()
    lists.write_bytes(whole[:-1])
    with pytest.raises(ArtifactError, match="bytes"):
        DiskIndex(tmp_path / "x", verify=False)
    lists.write_bytes(b"\0" * len(whole))
    with pytest.raises(ArtifactError, match="was changed"):
        DiskIndex(tmp_path / "x")
    rows, _ = DiskIndex(tmp_path / "x", verify=False).search(QUERIES, 5)  # unverified nonsense stays within bounds
    assert rows.max() < 6000
    (tmp_path / "x" / MANIFEST).unlink()
    with pytest.raises(ArtifactError):
        DiskIndex(tmp_path / "x")
    index = DiskIndex(path)
    for how in ({"k": 0}, {"k": 1, "probes": 0}, {"k": 1, "allowed": np.ones(5, bool)}):
        with pytest.raises(RequestError):
            index.search(QUERIES, **how)
    for bad in (np.zeros((0, 4), np.float32), np.zeros(4, np.float32), np.full((99, 4), np.nan, np.float32)):
        with pytest.raises(DataError):
            build(tmp_path / "bad", bad)
    with pytest.raises(DataError, match="does not fit"):
        build(tmp_path / "bad", vectors, IndexLayout(40, 5, 1))
    assert not (tmp_path / "bad").exists()
