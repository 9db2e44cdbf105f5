"""The index agrees with brute force, exactly or through the inverted file, in any batch."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec.errors import DataError, RequestError
from llmrec.ranking.item_index import ItemIndex


def brute(vectors, queries, k, allowed=None):
    """Rank by an explicit sort, in float64."""
    scores = queries.astype(np.float64) @ vectors.astype(np.float64).T
    if allowed is not None:
        scores = np.where(allowed, scores, -np.inf)
    rows = np.full((len(queries), k), -1)
    for line, one in enumerate(scores):
        best = sorted((row for row in range(len(one)) if one[row] > -np.inf), key=lambda row: (-one[row], row))[:k]
        rows[line, : len(best)] = best
    return rows


def whole_numbers(seed, *shape):
    """Small whole numbers: exact in float32, and full of ties."""
    return np.random.default_rng(seed).integers(-2, 3, shape).astype(np.float32)


@pytest.mark.kernels
@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(1, 40),
    st.integers(0, 70),
    st.integers(1, 60),
    st.sampled_from([0, 1, 2]),
)
def test_exact_search_is_brute_force_with_ties_by_row(seed, n, b, k, mask):
    vectors, queries = whole_numbers(seed, n, 3), whole_numbers(seed + 1, b, 3)
    shape = {0: None, 1: (n,), 2: (b, n)}[mask]
    allowed = None if shape is None else np.random.default_rng(seed + 2).random(shape) < 0.5
    rows, scores = ItemIndex(vectors).search(queries, k, allowed)
    assert rows.dtype == np.int64 and scores.dtype == np.float32 and rows.shape == scores.shape == (b, k)
    np.testing.assert_array_equal(rows, brute(vectors, queries, k, allowed))
    expected = np.take_along_axis(queries @ vectors.T, np.maximum(rows, 0), axis=1)
    np.testing.assert_array_equal(scores, np.where(rows < 0, -np.inf, expected))


@pytest.mark.kernels
def test_a_query_scores_the_same_alone_and_in_any_batch():
    rng = np.random.default_rng(0)
    vectors, queries = (
        rng.normal(size=(301, 48)).astype(np.float32),
        rng.normal(size=(70, 48)).astype(np.float32),
    )
    index = ItemIndex(vectors)
    whole = index.scores(queries)
    for start, stop in [(0, 1), (5, 6), (69, 70), (3, 36)]:
        assert np.array_equal(index.scores(queries[start:stop]), whole[start:stop]), "to the last bit"
    assert np.array_equal(index.scores(queries[::-1])[::-1], whole)
    rows, scores = index.search(queries, 10)
    assert np.array_equal(np.take_along_axis(whole, rows, axis=1), scores)


@pytest.fixture(scope="module")
def large():
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(40, 16))
    vectors = (centres[rng.integers(0, 40, 4000)] + 0.3 * rng.normal(size=(4000, 16))).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return (
        vectors,
        vectors[:50] + 0.05 * rng.normal(size=(50, 16)).astype(np.float32),
        ItemIndex(vectors, exact_below=1),
    )


def test_the_inverted_file_finds_nearly_all_with_exact_scores(large):
    vectors, queries, index = large
    rows, scores = index.search(queries, 10)
    expected = brute(vectors, queries, 10)
    found = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(rows, expected, strict=True)])
    assert found >= 0.95
    np.testing.assert_allclose(scores, np.einsum("bkd,bd->bk", vectors[rows], queries), rtol=1e-5, atol=1e-6)
    assert (np.diff(scores, axis=1) <= 0).all()


@pytest.mark.parametrize("share", [0.5, 0.01, 0.001, 0.0])
def test_the_inverted_file_obeys_filters(large, share):
    vectors, queries, index = large
    allowed = np.random.default_rng(2).random(len(vectors)) < share
    rows, _ = index.search(queries, 10, allowed)
    assert allowed[rows[rows >= 0]].all()
    assert ((rows >= 0).sum(axis=1) == min(10, allowed.sum())).all(), "as many as there are"
    if share <= 0.01:
        np.testing.assert_array_equal(rows, brute(vectors, queries, 10, allowed))


def test_the_inverted_file_gives_everything_when_asked_for_more(large):
    _, queries, index = large
    rows, _ = index.search(queries[:1], 5000)
    assert sorted(rows[0, :4000]) == list(range(4000)) and (rows[0, 4000:] == -1).all()


def test_wrong_asks():
    index = ItemIndex(np.eye(3, dtype=np.float32))
    query = np.ones((2, 3), np.float32)
    with pytest.raises(RequestError, match="k is 0"):
        index.search(query, 0)
    with pytest.raises(RequestError, match=r"\(2, 4\).*needs \(b, 3\)"):
        index.search(np.ones((2, 4), np.float32), 1)
    with pytest.raises(RequestError, match="allowed has shape"):
        index.search(query, 1, np.ones(2, bool))
    with pytest.raises(DataError, match="finite"):
        ItemIndex(np.array([[np.nan]], np.float32))
    with pytest.raises(DataError, match="n x d"):
        ItemIndex(np.ones(3, np.float32))
    empty = ItemIndex(np.zeros((0, 3), np.float32))
    assert (empty.search(query, 2)[0] == -1).all()
