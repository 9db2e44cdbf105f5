"""What every Ranker must do, on a world of 12 items and 2 tastes whose right answer is known by construction.

A ranker's test is a subclass with a `make`:

    class TestPopularity(RankerContract):
        personal = False
        def make(self, toy):
            return Popularity(toy.counts)
"""

from dataclasses import dataclass

import numpy as np
import pytest

from llmrec.data.interactions import Interactions
from llmrec.errors import RequestError
from llmrec.ranker import Ranker, unseen

N_ITEMS = 12
TASTE_A, TASTE_B = np.arange(6), np.arange(6, 12)


@dataclass(frozen=True)
class Toy:
    """Forty users, each taking four items of one taste; vectors that point to the item's taste."""

    train: Interactions
    counts: np.ndarray  # int64[12]
    vectors: np.ndarray  # float32[12, 8], unit length
    n_items: int = N_ITEMS


def toy_world(seed: int = 0) -> Toy:
    rng = np.random.default_rng(seed)
    ids, rows = [], []
    for user in range(40):
        taste = TASTE_A if user % 2 == 0 else TASTE_B
        ids += [f"u{user}"] * 4
        rows += rng.choice(taste, 4, replace=False).tolist()
    train = Interactions.build(ids, rows, list(range(len(rows))), [1.0] * len(rows))
    vectors = 0.2 * rng.normal(size=(N_ITEMS, 8))
    vectors[TASTE_A, 0] += 1.0
    vectors[TASTE_B, 1] += 1.0
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Toy(train, np.bincount(train.row, minlength=N_ITEMS), vectors.astype(np.float32))


HISTORIES = [
    np.array([0, 1, 2]),
    np.array([11, 7]),
    np.array([], dtype=np.int64),
    np.array([3]),
    np.array([5, 8, 5, 4, 9]),
    np.array([10, 9, 8, 7, 6]),
    np.array([2, 2]),
]


class RankerContract:
    """Subclass it, name the subclass Test..., and give it `make(toy)`."""

    personal = True  # False for a ranker that does not look at the history

    def make(self, toy: Toy) -> Ranker:
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def ranker(cls) -> Ranker:
        return cls().make(toy_world())

    def test_it_is_a_ranker(self, ranker):
        assert isinstance(ranker, Ranker)
        assert ranker.name

    @pytest.mark.parametrize("k", [1, 3, 12, 30])
    def test_shapes_types_and_padding(self, ranker, k):
        rows, scores = ranker.rank(HISTORIES, k)
        assert rows.shape == scores.shape == (len(HISTORIES), k)
        assert rows.dtype == np.int64 and scores.dtype == np.float32
        assert not np.isnan(scores).any()
        real = min(k, N_ITEMS)
        assert ((rows[:, :real] >= 0) & (rows[:, :real] < N_ITEMS)).all()
        assert (rows[:, real:] == -1).all() and np.isneginf(scores[:, real:]).all()

    def test_best_first_ties_by_row_each_item_once(self, ranker):
        for rows, scores in zip(*ranker.rank(HISTORIES, N_ITEMS), strict=True):
            assert sorted(rows.tolist()) == list(range(N_ITEMS))
            pairs = list(zip((-scores).tolist(), rows.tolist(), strict=True))
            assert pairs == sorted(pairs)

    def test_allowed_for_all_users(self, ranker):
        allowed = np.zeros(N_ITEMS, dtype=np.bool_)
        allowed[[1, 4, 8]] = True
        rows, scores = ranker.rank(HISTORIES, 5, allowed)
        assert all(set(line[:3]) == {1, 4, 8} for line in rows.tolist())
        assert (rows[:, 3:] == -1).all() and np.isneginf(scores[:, 3:]).all()

    def test_allowed_for_each_user(self, ranker):
        allowed = unseen(HISTORIES, N_ITEMS)
        rows, _ = ranker.rank(HISTORIES, N_ITEMS, allowed)
        for line, mask in zip(rows, allowed, strict=True):
            assert sorted(line[line >= 0].tolist()) == np.flatnonzero(mask).tolist()

    def test_nothing_allowed_gives_an_empty_list(self, ranker):
        rows, scores = ranker.rank(HISTORIES[:2], 4, np.zeros(N_ITEMS, dtype=np.bool_))
        assert (rows == -1).all() and np.isneginf(scores).all()

    def test_allowed_keeps_the_order(self, ranker):
        allowed = np.arange(N_ITEMS) % 2 == 0
        every, _ = ranker.rank(HISTORIES, N_ITEMS)
        some, _ = ranker.rank(HISTORIES, 6, allowed)
        for full, kept in zip(every, some, strict=True):
            assert kept.tolist() == [row for row in full.tolist() if allowed[row]]

    def test_seen_items_are_not_removed_by_the_ranker(self, ranker):
        rows, _ = ranker.rank(HISTORIES, N_ITEMS)
        assert all(set(history.tolist()) <= set(line) for history, line in zip(HISTORIES, rows.tolist(), strict=True))

    @pytest.mark.kernels
    def test_a_batch_gives_the_bytes_of_single_calls(self, ranker):
        rows, scores = ranker.rank(HISTORIES, 7)
        for i, history in enumerate(HISTORIES):
            alone_rows, alone_scores = ranker.rank([history], 7)
            assert alone_rows.tobytes() == rows[i].tobytes()
            assert alone_scores.tobytes() == scores[i].tobytes()

    @pytest.mark.kernels
    def test_the_same_question_gets_the_same_bytes(self, ranker):
        first, second, third = ranker.rank(HISTORIES, 7), ranker.rank(HISTORIES, 7), self.make(toy_world())
        assert first[0].tobytes() == second[0].tobytes() and first[1].tobytes() == second[1].tobytes()
        assert third.rank(HISTORIES, 7)[0].tobytes() == first[0].tobytes()

    def test_histories_and_mask_are_left_alone(self, ranker):
        histories = [history.copy() for history in HISTORIES]
        allowed = np.ones((len(histories), N_ITEMS), dtype=np.bool_)
        ranker.rank(histories, 5, allowed)
        assert allowed.all()
        assert all((a == b).all() for a, b in zip(histories, HISTORIES, strict=True))

    def test_no_users_no_lists(self, ranker):
        rows, scores = ranker.rank([], 5)
        assert rows.shape == scores.shape == (0, 5)

    def test_k_below_one_is_refused(self, ranker):
        with pytest.raises(RequestError, match="k is 0"):
            ranker.rank(HISTORIES, 0)

    def test_taste_is_understood(self, ranker):
        if not self.personal:
            pytest.skip("the same for everyone")
        histories = [np.array([0, 1]), np.array([3, 2, 4]), np.array([6, 7]), np.array([9, 8, 10])]
        rows, _ = ranker.rank(histories, 3, unseen(histories, N_ITEMS))
        assert (rows[:2] < 6).all(), rows
        assert (rows[2:] >= 6).all(), rows
