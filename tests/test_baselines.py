import itertools
import tracemalloc

import numpy as np
import pytest
from ranker_contract import RankerContract, toy_world
from threadpoolctl import threadpool_limits

from llmrec.data.interactions import Interactions, leave_one_out
from llmrec.encoders import ease
from llmrec.encoders.ease import ease_weights, window_gram
from llmrec.encoders.item_knn import cooccurrence, ease_matrix, neighbour_matrix
from llmrec.errors import RecipeError, RequestError
from llmrec.eval.baselines.rankers import EncoderRanker, ItemKNN, Popularity, RecentPopularity, TextLookup, item_counts
from llmrec.eval.baselines.tuning import tune_item_knn, tune_recent_popularity, tune_text_lookup

TOY = toy_world()


class TestPopularity(RankerContract):
    personal = False

    def make(self, toy):
        return Popularity(toy.counts)


class TestRecentPopularity(RankerContract):
    personal = False

    def make(self, toy):
        return RecentPopularity(toy.train, toy.n_items, half_life=0.2)


class TestItemKNN(RankerContract):
    def make(self, toy):
        return ItemKNN(toy.train, toy.n_items)


class TestItemKNNInWindow(RankerContract):
    def make(self, toy):
        return ItemKNN(toy.train, toy.n_items, neighbours=4, shrink=0.0, decay=0.5, window=2)


class TestTextLookup(RankerContract):
    def make(self, toy):
        return TextLookup(toy.vectors)


class TestTextLookupWhitened(RankerContract):
    def make(self, toy):
        # Whitening makes noise as loud as taste; the toy's taste is all that these two directions hold.
        return TextLookup(toy.vectors[:, :2], whiten=True)


class TestEncoderRanker(RankerContract):
    def make(self, toy):
        return EncoderRanker(TextLookup(toy.vectors, recent=3), name="toy-encoder")


def test_popularity_by_hand():
    rows, scores = Popularity(np.array([2, 5, 2, 9])).rank([np.array([3])], 4)
    assert rows.tolist() == [[3, 1, 0, 2]] and scores.tolist() == [[9.0, 5.0, 2.0, 2.0]]


def test_recent_popularity_by_hand():
    # Row 0 was taken three times long ago, row 1 twice just now, row 2 once in between, row 3 never.
    train = Interactions.build(["a"] * 6, [0, 0, 0, 2, 1, 1], [0, 0, 0, 5, 10, 10], [1.0] * 6)
    ranker = RecentPopularity(train, 4, half_life=0.5)
    assert ranker.scores([np.array([0])])[0].tolist() == pytest.approx([3 / 4, 2.0, 1 / 2, 0.0], abs=1e-5)
    slow = RecentPopularity(train, 4, half_life=100.0).rank([np.array([0])], 4)[0]
    assert slow.tolist() == [[0, 1, 2, 3]]
    # Where nothing is recent enough to count, all of the past decides.
    quick = RecentPopularity(train, 4, half_life=1e-4).rank([np.array([0])], 4)[0]
    assert quick.tolist() == [[1, 0, 2, 3]]
    with pytest.raises(RequestError, match="half_life is 0"):
        RecentPopularity(train, 4, half_life=0.0)


def test_a_log_without_time_is_plain_popularity():
    train = Interactions.build(["a"] * 3, [1, 1, 0], [7, 7, 7], [1.0] * 3)
    assert RecentPopularity(train, 3, half_life=0.1).rank([np.array([])], 3)[0].tolist() == [[1, 0, 2]]


def walk(*sequences):
    ids = [f"u{i}" for i, rows in enumerate(sequences) for _ in rows]
    rows = list(itertools.chain(*sequences))
    return Interactions.build(ids, rows, list(range(len(rows))), [1.0] * len(rows))


def test_cooccurrence_by_brute_force():
    rng = np.random.default_rng(0)
    sequences = [rng.choice(9, rng.integers(1, 8), replace=False).tolist() for _ in range(12)]
    for window in (0, 1, 3, 100):
        expected = np.zeros((9, 9))
        for rows in sequences:
            for (s, a), (t, b) in itertools.permutations(enumerate(rows), 2):
                gap = abs(s - t)
                if window == 0:
                    expected[a, b] += 1.0
                elif gap <= window:
                    expected[a, b] += 1.0 / gap
        assert np.allclose(cooccurrence(walk(*sequences), 9, window).toarray(), expected, atol=1e-12)


def test_an_item_taken_twice_is_one_item_and_no_neighbour_of_itself():
    pairs = cooccurrence(walk([0, 1, 0]), 2, 0).toarray()
    assert pairs.tolist() == [[0.0, 1.0], [1.0, 0.0]]
    assert cooccurrence(walk([0, 0, 1]), 2, 2).diagonal().tolist() == [0.0, 0.0]


def test_neighbour_matrix_by_brute_force():
    pairs = cooccurrence(TOY.train, 12, 0)
    for alpha, shrink, neighbours in [(0.5, 0.0, 100), (0.3, 5.0, 3), (1.0, 1.0, 1)]:
        dense = pairs.toarray() / (
            TOY.counts[:, None] ** alpha * TOY.counts[None, :].astype(float) ** (1 - alpha) + shrink
        )
        for row in dense:
            row[np.argsort(-row, kind="stable")[neighbours:]] = 0.0
        found = neighbour_matrix(pairs, TOY.counts, neighbours, shrink, alpha).toarray()
        assert np.allclose(found, dense, atol=1e-6)


def test_item_knn_score_by_hand():
    # Two users took 0 and 1, one took 1 and 2: cosines 2 / sqrt(2 * 3) and 1 / sqrt(3 * 1).
    knn = ItemKNN(walk([0, 1], [0, 1], [1, 2], [3, 4]), 5, shrink=0.0, decay=1.0)
    scores = knn.scores([np.array([0, 2])])[0]
    assert scores[1] == pytest.approx(1 / np.sqrt(3) + 0.5 * 2 / np.sqrt(6), abs=1e-6)
    # What no neighbour reaches comes behind, by popularity.
    assert (scores[[0, 2, 3, 4]] < 0).all() and scores[0] > scores[3] == scores[4] == scores[2]


def test_item_knn_recent_and_repeats():
    knn = ItemKNN(walk([0, 1], [2, 3], [0, 1]), 4, shrink=0.0, recent=2, decay=1.0)
    assert knn.rank([np.array([2, 0, 0])], 1)[0].tolist() == [[1]]
    # Only the last two count, the older of which is the same item: its latest place, weight 1.
    assert knn.scores([np.array([2, 0, 0])])[0, 1] == pytest.approx(1.0)
    assert knn.scores([np.array([2, 0, 0])])[0, 3] < 0


def test_regression_neighbours_solve_ridge_regression_over_sliding_windows():
    rng = np.random.default_rng(3)
    sequences = [rng.choice(9, rng.integers(2, 9)).tolist() for _ in range(15)]
    window, ridge, lines = 3, 0.7, []
    for rows in sequences:  # every window that holds an item, those over the ends too
        for start in range(1 - window, len(rows)):
            lines.append(np.bincount(rows[max(0, start) : start + window], minlength=9))
    x = np.array(lines, float)
    assert np.allclose(window_gram(walk(*sequences), 9, window), x.T @ x)
    expected = np.zeros((9, 9))
    for item in range(9):  # each item from all others, one regression at a time
        others = [row for row in range(9) if row != item]
        gram = x[:, others].T @ x[:, others] + ridge * np.eye(8)
        expected[others, item] = np.linalg.solve(gram, x[:, others].T @ x[:, item])
    knn = ItemKNN(walk(*sequences), 9, window=window, ridge=ridge, neighbours=100)
    assert np.allclose(knn.similarity.toarray(), np.maximum(expected, 0), atol=1e-6)
    assert ItemKNN(walk(*sequences), 9, window=window, ridge=ridge, neighbours=2).similarity.nnz <= 18


def test_regression_neighbours_of_many_items_take_one_matrix():
    rng = np.random.default_rng(5)
    n = 1100  # more than are mirrored, and than are cut, at a time
    train = walk(*[rng.choice(n, 30, replace=False).tolist() for _ in range(200)])
    tracemalloc.start()
    matrix = ease_matrix(train, n, 5, 2.0, 50)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 8 * n**2 < peak < 1.8 * 8 * n**2 < ease.bytes_needed(n)
    products = window_gram(train, n, 5)
    inverse = np.linalg.inv(products + 2.0 * np.eye(n))
    expected = np.maximum(inverse / -np.diag(inverse), 0.0)
    np.fill_diagonal(expected, 0.0)
    found = matrix.toarray()
    assert ((found > 0).sum(axis=1) <= 50).all()
    assert np.allclose(np.where(found > 0, expected, 0.0), found, atol=1e-6)
    assert np.allclose(np.sort(found, axis=1)[:, -50:], np.sort(expected, axis=1)[:, -50:], atol=1e-6)


def test_fade_is_kept_with_the_neighbours_and_old_files_have_none():
    knn = ItemKNN(walk([0, 1], [2, 3], [0, 1]), 4, shrink=0.0, decay=0.0, fade=0.5)
    assert knn.scores([np.array([0, 2])])[0, [1, 3]] == pytest.approx([0.5, 1.0])
    again = ItemKNN.from_state(knn.state())
    assert (again.scores([np.array([0, 2])]) == knn.scores([np.array([0, 2])])).all()
    assert ItemKNN.from_state(knn.state() | {"settings": np.array([0.0, 50.0])}).fade == 1.0


def test_regression_refuses_what_no_machine_here_holds():
    with pytest.raises(RecipeError, match="at most 20,000 items, not 20,001"):
        window_gram(TOY.train, 20_001, 5)
    with pytest.raises(RecipeError, match=r"ridge 1e-300 is too small"):
        ease_weights(np.ones((3, 3)), 1e-300)
    with pytest.raises(RecipeError, match=r"ridge -1\.0"):
        ItemKNN(TOY.train, 12, ridge=-1.0)


def test_window_tells_sessions_apart():
    # Everyone takes 0 1 2, later 3 4 5, in one sequence: only a window knows that 2 belongs to 0 and 1.
    train = walk(*[[0, 1, 2, 3, 4, 5]] * 5, *[[3, 4, 5, 0, 1, 2]] * 5)
    whole, near = (ItemKNN(train, 6, shrink=0.0, window=window) for window in (0, 1))
    allowed = np.ones(6, dtype=np.bool_)
    allowed[[0, 1]] = False
    assert near.rank([np.array([0, 1])], 1, allowed)[0].tolist() == [[2]]
    assert len(set(whole.scores([np.array([0, 1])])[0, 2:].tolist())) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"neighbours": 0},
        {"shrink": -1.0},
        {"alpha": 1.5},
        {"decay": -0.1},
        {"recent": 0},
        {"window": -1},
        {"fade": 1.5},
    ],
)
def test_item_knn_refuses_values_out_of_range(wrong):
    with pytest.raises(RequestError, match=str(next(iter(wrong.values())))):
        ItemKNN(TOY.train, 12, **wrong)


def test_a_row_outside_the_catalogue_is_named():
    with pytest.raises(RequestError, match="row 11; the catalogue has 11 rows"):
        item_counts(TOY.train, 11)


def test_text_lookup_by_hand():
    vectors = np.array([[1, 0], [0, 2], [3, 4]], dtype=np.float32)
    scores = TextLookup(vectors, recent=2).scores([np.array([2, 0, 1]), np.array([0])])
    half = 1 / np.sqrt(2)
    assert scores[0].tolist() == pytest.approx([half, half, 1.4 * half], abs=1e-6)
    assert scores[1].tolist() == pytest.approx([1.0, 0.0, 0.6], abs=1e-6)
    with pytest.raises(RequestError, match="recent is 0"):
        TextLookup(vectors, recent=0)


def test_whitening_gives_every_direction_one_variance():
    rng = np.random.default_rng(1)
    vectors = (rng.normal(size=(500, 6)) * [5, 1, 1, 0.2, 3, 0] + 7).astype(np.float32)
    from llmrec.eval.baselines.rankers import whitened

    white = whitened(vectors)
    assert white.shape == (500, 5)
    assert np.allclose(white.mean(axis=0), 0, atol=1e-3)
    assert np.allclose(white.T @ white / 500, np.eye(5), atol=1e-2)


@pytest.mark.kernels
def test_bytes_do_not_depend_on_batch_or_threads():
    rng = np.random.default_rng(2)
    vectors = rng.normal(size=(3000, 96)).astype(np.float32)
    train = walk(*[rng.choice(3000, 30, replace=False).tolist() for _ in range(60)])
    histories = [rng.choice(3000, 20, replace=False) for _ in range(33)]
    for ranker in (TextLookup(vectors), ItemKNN(train, 3000, window=5)):
        answers = []
        for threads, batch in ((1, 33), (2, 33), (2, 7), (1, 1)):
            with threadpool_limits(threads):
                parts = [ranker.rank(histories[i : i + batch], 20) for i in range(0, 33, batch)]
            answers.append(b"".join(np.concatenate([p[j] for p in parts]).tobytes() for j in (0, 1)))
        assert len(set(answers)) == 1


def sessions(users=60, seed=3):
    """Users who walk through one taste in order: the last item tells what comes next."""
    rng = np.random.default_rng(seed)
    starts = rng.integers(6, size=users)
    return walk(*[((s + np.arange(6)) % 6 + 6 * (u % 2)).tolist() for u, s in enumerate(starts)])


def test_tune_item_knn_takes_the_best_of_the_log_and_never_looks_at_the_test():
    split = leave_one_out(sessions())
    grid = {
        "window": (0, 1),
        "shrink": (0.0,),
        "alpha": (0.5,),
        "neighbours": (1, 12),
        "decay": (0.0, 2.0),
        "recent": (50,),
    }
    knn, log = tune_item_knn(split, 12, grid)
    assert len(log) == 8 and all(set(trial.params) == set(grid) for trial in log)
    best = max(log, key=lambda trial: trial.metrics["ndcg@10"])
    assert best.metrics["ndcg@10"] > log[0].metrics["ndcg@10"]
    again = ItemKNN(split.train, 12, **best.params)
    assert (again.similarity != knn.similarity).nnz == 0 and again.decay == knn.decay
    changed = leave_one_out(sessions())
    object.__setattr__(changed, "test", (changed.test + 5) % 12)
    other, other_log = tune_item_knn(changed, 12, grid)
    assert other_log == log and (other.similarity != knn.similarity).nnz == 0


def test_tune_text_lookup_logs_every_trial():
    split = leave_one_out(sessions())
    ranker, log = tune_text_lookup(split, TOY.vectors, {"whiten": (False, True), "recent": (1, 3)})
    assert [trial.params for trial in log] == [
        {"whiten": whiten, "recent": recent} for whiten in (False, True) for recent in (1, 3)
    ]
    assert {trial.ranker for trial in log} == {"text-lookup"}
    best = max(log, key=lambda trial: trial.metrics["ndcg@10"])
    assert ranker.recent == best.params["recent"]


def test_tune_recent_popularity_takes_the_best_half_life():
    # What is taken changes for good half way: only a short half-life knows what comes now.
    ids = [f"u{u}" for u in range(40) for _ in range(5)]
    rows = [row for u in range(40) for row in ((0, 1, 2, 3, 4) if u < 25 else (5, 6, 7, 8, 9))]
    split = leave_one_out(Interactions.build(ids, rows, list(range(200)), [1.0] * 200))
    ranker, log = tune_recent_popularity(split, 12, {"half_life": (0.05, 10.0)})
    assert len(log) == 2 and ranker.weight[5] > 0


def test_tuning_draws_users_by_seed():
    split = leave_one_out(sessions())
    logs = [
        tune_text_lookup(split, TOY.vectors, {"recent": (1,), "whiten": (False,)}, seed=seed, users=9)[1]
        for seed in (0, 0, 1)
    ]
    assert logs[0] == logs[1] != logs[2]


def test_tuning_refuses_an_empty_grid_and_nobody():
    split = leave_one_out(sessions())
    with pytest.raises(RequestError, match="no combination"):
        tune_text_lookup(split, TOY.vectors, {"recent": (), "whiten": (False,)})
    with pytest.raises(RequestError, match="at least 3"):
        tune_text_lookup(leave_one_out(walk([0, 1], [2, 3])), TOY.vectors)
