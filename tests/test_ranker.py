import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ranker_contract import RankerContract

from llmrec.errors import RequestError
from llmrec.ranker import top_k, unseen


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
