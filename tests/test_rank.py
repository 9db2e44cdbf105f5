import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ranker_contract import RankerContract

from llmrec.errors import RequestError
from llmrec.rank import diversify, top_k, unseen


class TestTopK(RankerContract):
    """The smallest ranker there is: similarity to the last item."""

    def make(self, toy):
        class Nearest:
            name = "nearest"

            def rank(self, histories, k, allowed=None):
                scores = np.zeros((len(histories), toy.n_items), dtype=np.float32)
                for line, history in zip(scores, histories, strict=True):
                    if len(history):
                        np.einsum("nd,d->n", toy.vectors, toy.vectors[history[-1]], out=line)
                return top_k(scores, k, allowed)

        return Nearest()


def brute_top_k(line, k, allowed):
    pairs = sorted((-float(s), row) for row, s in enumerate(line) if allowed[row] and s > -np.inf)[:k]
    return [row for _, row in pairs] + [-1] * (k - len(pairs))


@st.composite
def questions(draw):
    shape = (draw(st.integers(1, 4)), draw(st.integers(1, 15)))
    # Few different values make many ties.
    values = st.sampled_from([0.0, -0.0, 1.0, 0.5, -2.0, -np.inf, np.inf, 0.25])
    scores = draw(hnp.arrays(np.float32, shape, elements=values))
    mask = draw(hnp.arrays(np.bool_, shape if draw(st.booleans()) else shape[1:]))
    return scores, draw(st.integers(1, 20)), mask


@given(questions())
@settings(max_examples=400, deadline=None)
def test_top_k_equals_sorting_everything(question):
    scores, k, allowed = question
    before = scores.copy()
    rows, best = top_k(scores, k, allowed)
    masks = np.broadcast_to(allowed, scores.shape)
    assert rows.tolist() == [brute_top_k(line, k, mask) for line, mask in zip(scores, masks, strict=True)]
    for line, row, score in zip(scores, rows, best, strict=True):
        assert (score[row >= 0] == line[row[row >= 0]]).all() and np.isneginf(score[row < 0]).all()
    assert (scores == before).all()


def test_top_k_on_float64_ties_as_float32():
    rows, scores = top_k(np.array([[1.0, 1.0 + 1e-12]]), 2)
    assert rows.tolist() == [[0, 1]] and scores.dtype == np.float32


def test_top_k_without_items():
    rows, scores = top_k(np.zeros((2, 0)), 3)
    assert (rows == -1).all() and np.isneginf(scores).all()


@pytest.mark.parametrize(
    ("scores", "allowed", "says"),
    [
        (np.array([[np.nan, 1.0]]), None, "1 scores are NaN"),
        (np.zeros(3), None, r"shape \(3,\)"),
        (np.zeros((2, 3)), np.ones(2, dtype=np.bool_), r"bool\[2\].*need bool of \[3\] or \[2, 3\]"),
        (np.zeros((2, 3)), np.ones(3), r"float64\[3\]"),
    ],
)
def test_top_k_refuses(scores, allowed, says):
    with pytest.raises(ValueError, match=says):
        top_k(scores, 2, allowed)


def test_unseen():
    mask = unseen([np.array([0, 2, 2]), np.array([], dtype=np.int64)], 4)
    assert mask.tolist() == [[False, True, False, True], [True] * 4]


@pytest.mark.parametrize("row", [-1, 4])
def test_unseen_refuses_rows_outside_the_catalogue(row):
    with pytest.raises(RequestError, match=f"row {row}; the catalogue has rows 0 to 3"):
        unseen([np.array([0, row])], 4)


VECTORS = np.array([[1, 0], [1, 0], [0, 1], [0.6, 0.8]], dtype=np.float32)
LIST = np.array([[0, 1, 2, 3, -1]]), np.array([[4.0, 3.0, 2.0, 1.0, -np.inf]], dtype=np.float32)


def test_diversify_weight_zero_keeps_the_list():
    rows, scores = diversify(*LIST, VECTORS, 4, 0.0)
    assert rows.tolist() == [[0, 1, 2, 3]] and scores.tolist() == [[4.0, 3.0, 2.0, 1.0]]


def test_diversify_worked_by_hand():
    # Relevance 1, 2/3, 1/3, 0. After row 0: row 1 is worth .5 * 2/3 - .5 * 1 < row 2 with .5 * 1/3 - .5 * 0.
    rows, scores = diversify(*LIST, VECTORS, 6, 0.5)
    assert rows.tolist() == [[0, 2, 1, 3, -1, -1]]
    assert scores[0, :4].tolist() == [4.0, 2.0, 3.0, 1.0] and np.isneginf(scores[0, 4:]).all()


def test_diversify_lowers_similarity_and_keeps_the_items():
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(60, 5)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows, scores = top_k(vectors[:8] @ vectors.T, 40)
    same, _ = diversify(rows, scores, vectors, 40, 0.7)
    assert (np.sort(same) == np.sort(rows)).all()
    assert (same[:, 0] == rows[:, 0]).all()

    def alike(lists):
        return np.mean([(vectors[line] @ vectors[line].T)[np.triu_indices(10, 1)].mean() for line in lists[:, :10]])

    assert alike(same) < alike(rows) - 0.1
    alone, _ = diversify(rows[3:4], scores[3:4], vectors, 40, 0.7)
    assert (alone[0] == same[3]).all()


def test_diversify_of_an_empty_list_and_of_equal_scores():
    rows, _ = diversify(np.full((1, 3), -1), np.full((1, 3), -np.inf, np.float32), VECTORS, 2, 0.5)
    assert rows.tolist() == [[-1, -1]]
    rows, _ = diversify(np.array([[0, 1, 2]]), np.ones((1, 3), np.float32), VECTORS, 3, 0.5)
    assert rows.tolist() == [[0, 2, 1]]


@pytest.mark.parametrize(("k", "weight", "says"), [(0, 0.5, "k is 0"), (1, 1.5, "1.5"), (1, -0.1, "-0.1")])
def test_diversify_refuses(k, weight, says):
    with pytest.raises(RequestError, match=says):
        diversify(*LIST, VECTORS, k, weight)
