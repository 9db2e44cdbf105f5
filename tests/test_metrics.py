import doctest
from math import log2

import numpy as np
import pytest
from sklearn.metrics import ndcg_score

from llmrec.eval import metrics
from llmrec.eval.metrics import KS, per_user, ranks_of, target_ranks
from llmrec.ranker import top_k

CASES = 1000


def random_cases(seed=0):
    """(scores float[n], allowed bool[n], target) without ties."""
    rng = np.random.default_rng(seed)
    for _ in range(CASES):
        n = int(rng.integers(2, 120))
        allowed = rng.random(n) < rng.uniform(0.3, 1.0)
        target = int(rng.integers(n))
        allowed[target] |= rng.random() < 0.9
        yield rng.permutation(n).astype(np.float32), allowed, target


def brute(rows, target, k):
    """The definitions, item by item: gains 1 for the target, discount log2, ideal list has it on top."""
    recall = dcg = mrr = 0.0
    for place, row in enumerate(rows[:k], start=1):
        if row == target:
            recall, dcg, mrr = 1.0, 1.0 / log2(place + 1), 1.0 / place
    return {"recall": recall, "ndcg": dcg / (1.0 / log2(2)), "mrr": mrr}


def test_metrics_equal_scikit_learn_and_the_definition_on_1000_cases():
    for scores, allowed, target in random_cases():
        rows, _ = top_k(scores[None], max(KS), allowed)
        ours = per_user(ranks_of(rows, np.array([target])))
        relevance = np.zeros((1, len(scores)))
        relevance[0, target] = 1.0
        # An item that is not allowed is one that scores below everything; a forbidden target cannot be found.
        shown = np.where(allowed, scores, -1.0 - np.arange(len(scores)))[None]
        for k in KS:
            for name, value in brute(rows[0].tolist(), target, k).items():
                assert abs(ours[f"{name}@{k}"][0] - value) < 1e-9
            oracle = ndcg_score(relevance, shown, k=k, ignore_ties=True) if allowed[target] else 0.0
            assert abs(ours[f"ndcg@{k}"][0] - oracle) < 1e-9


def test_target_ranks_is_ranks_of_over_everything():
    rng = np.random.default_rng(3)
    for _ in range(200):
        b, n = rng.integers(1, 5), int(rng.integers(1, 20))
        scores = rng.integers(0, 6, (b, n)).astype(np.float32)
        allowed = rng.random((b, n)) < 0.8
        targets = rng.integers(0, n, b)
        rows, best = top_k(scores, n + 1, allowed)
        assert target_ranks(scores, targets, allowed).tolist() == ranks_of(rows, targets, best).tolist()


def test_padding_is_never_a_hit():
    assert ranks_of(np.array([[2, -1, -1]]), np.array([-1])).tolist() == [-1]
    assert all(value[0] == 0.0 for value in per_user(np.array([-1])).values())
    assert ranks_of(np.zeros((2, 0), np.int64), np.array([0, 1])).tolist() == [-1, -1]


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="do not fit"):
        ranks_of(np.zeros((2, 3), np.int64), np.array([1]))
    with pytest.raises(ValueError, match="do not fit"):
        ranks_of(np.zeros((1, 3), np.int64), np.array([1]), np.zeros((1, 2)))


def collapsed(n, users, order, targets):
    """Lists of a model that scores everything alike, over a catalogue in the given row order."""
    rows, scores = top_k(np.zeros((users, n), dtype=np.float32), max(KS) + 1)
    where = np.argsort(order)
    return rows, scores, where[targets]


def test_a_collapsed_model_is_chance_when_rows_are_in_random_order():
    # Targets fall on few items, as popularity has it. Over random row orders, ties as they come are chance.
    rng = np.random.default_rng(5)
    n, users = 400, 200
    targets = np.minimum(rng.geometric(0.05, users) - 1, n - 1)
    for k in (10, 50):
        means = []
        for _ in range(300):
            rows, _, placed = collapsed(n, users, rng.permutation(n), targets)
            means.append(per_user(ranks_of(rows, placed))[f"recall@{k}"].mean())
        lo, hi = metrics.bootstrap_ci(np.array(means), seed=0, level=0.999)
        assert lo <= k / n <= hi, (k, lo, hi)


def test_a_collapsed_model_never_beats_chance_with_ties_counted_against_it():
    # The trap: rows listed by popularity. As they come, ties look like a good model; counted against it, not.
    rng = np.random.default_rng(6)
    n, users = 400, 500
    targets = np.minimum(rng.geometric(0.05, users) - 1, n - 1)
    rows, scores, placed = collapsed(n, users, np.arange(n), targets)
    lucky = per_user(ranks_of(rows, placed))
    honest = per_user(ranks_of(rows, placed, scores))
    assert lucky["recall@10"].mean() > 5 * 10 / n
    assert all(honest[f"{name}@{k}"].sum() == 0.0 for name in ("recall", "ndcg", "mrr") for k in KS)


def test_partly_collapsed_scores_never_gain_from_ties():
    # Rounding scores into ever fewer levels can only lose.
    rng = np.random.default_rng(7)
    n, users = 300, 400
    targets = rng.integers(0, n, users)
    scores = rng.normal(size=(users, n)).astype(np.float32)
    scores[np.arange(users), targets] += 2.0
    found = []
    for step in (1e-6, 0.5, 1.0, 2.0, 100.0):
        rows, best = top_k(np.floor(scores / step), max(KS) + 1)
        found.append(per_user(ranks_of(rows, targets, best))["ndcg@10"].mean())
    assert found == sorted(found, reverse=True) and found[0] > 0.2 and found[-1] == 0.0


def test_without_ties_scores_change_nothing():
    rng = np.random.default_rng(8)
    scores = rng.permuted(np.tile(np.arange(30.0), (50, 1)), axis=1)
    rows, best = top_k(scores, 30)
    targets = rng.integers(0, 30, 50)
    assert (ranks_of(rows, targets, best) == ranks_of(rows, targets)).all()


def test_coverage_gini_and_exposure_by_brute_force():
    rng = np.random.default_rng(9)
    for _ in range(100):
        n, k = int(rng.integers(2, 30)), int(rng.integers(1, 6))
        rows = np.stack([rng.choice(n + 6, 6, replace=False) for _ in range(5)])
        rows[rows >= n] = -1
        shown = [sum(int(item in line[:k]) for line in rows.tolist()) for item in range(n)]
        assert metrics.exposure(rows, n, k).tolist() == shown
        assert metrics.coverage(rows, n, k) == pytest.approx(sum(s > 0 for s in shown) / n, abs=1e-12)
        total = sum(shown)
        apart = sum(abs(a - b) for a in shown for b in shown) / (2 * n * total) if total else 0.0
        assert metrics.gini(rows, n, k) == pytest.approx(apart, abs=1e-9)


def test_gini_of_one_item_for_everybody():
    assert metrics.gini(np.zeros((7, 1), np.int64), 100, 1) == pytest.approx(0.99)


def test_novelty_by_hand():
    counts = np.array([7, 3, 1, 0])  # smoothed 8, 4, 2, 1 of 15
    rows = np.array([[0, 1], [3, -1], [-1, -1]])
    bits = [log2(15 / 8), log2(15 / 4), log2(15 / 1)]
    found = metrics.novelty(rows, counts, 2)
    assert found[:2].tolist() == pytest.approx([(bits[0] + bits[1]) / 2, bits[2]]) and np.isnan(found[2])


def test_popularity_lift_by_hand():
    counts = np.array([10, 4, 2, 0])
    none = np.array([], dtype=np.int64)
    found = metrics.popularity_lift(
        np.array([[0, 1], [2, 3], [0, 1]]), [np.array([1, 2]), np.array([0]), none], counts, 2
    )
    assert found[:2].tolist() == pytest.approx([7 / 3 - 1, 1 / 10 - 1]) and np.isnan(found[2])


def test_diversity_by_pairs():
    rng = np.random.default_rng(10)
    vectors = rng.normal(size=(20, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = np.array([[1, 5, 9, 3, 7], [2, 4, -1, -1, -1], [6, -1, -1, -1, -1]])
    pairs = [vectors[a] @ vectors[b] for i, a in enumerate(rows[0]) for b in rows[0][i + 1 :]]
    found = metrics.diversity(rows, vectors, 5)
    assert found[0] == pytest.approx(1 - np.mean(pairs), abs=1e-6)
    assert found[1] == pytest.approx(1 - vectors[2] @ vectors[4], abs=1e-6) and np.isnan(found[2])


def test_bootstrap_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(11)
    inside = 0
    for trial in range(200):
        lo, hi = metrics.bootstrap_ci(rng.normal(3.0, 1.0, 80), seed=trial, n=300)
        inside += lo <= 3.0 <= hi
    assert 0.88 <= inside / 200 <= 0.99


def test_bootstrap_is_seeded_and_the_columns_are_independent_of_each_other():
    values = np.random.default_rng(12).random((50, 3))
    lo, hi = metrics.bootstrap_cis(values, seed=4, n=200)
    assert metrics.bootstrap_ci(values[:, 1], seed=4, n=200) == (lo[1], hi[1])
    assert metrics.bootstrap_ci(values[:, 1], seed=5, n=200) != (lo[1], hi[1])
    assert metrics.bootstrap_ci(np.full(9, 0.25), seed=0) == (0.25, 0.25)


@pytest.mark.parametrize(("values", "level"), [([], 0.95), ([1.0, np.nan], 0.95), ([1.0], 1.0)])
def test_bootstrap_refuses(values, level):
    with pytest.raises(ValueError, match=r"interval|level"):
        metrics.bootstrap_ci(np.array(values), seed=0, level=level)


def test_paired_p_equals_all_sign_flips():
    rng = np.random.default_rng(13)
    a, b = rng.normal(0.6, 1.0, 10), rng.normal(0.0, 1.0, 10)
    flips = 1.0 - 2.0 * ((np.arange(1024)[:, None] >> np.arange(10)) & 1)
    exact = np.mean(np.abs(flips @ (a - b)) >= abs((a - b).sum()) - 1e-9)
    assert metrics.paired_p(a, b, seed=0) == pytest.approx(exact, abs=0.015)
    assert metrics.paired_p(a, b, seed=0) == metrics.paired_p(b, a, seed=0)


def test_paired_p_finds_a_difference_and_no_difference():
    rng = np.random.default_rng(14)
    a = (rng.random(800) < 0.2).astype(float)
    assert metrics.paired_p(a, a.copy(), seed=0) == 1.0
    better = np.where(rng.random(800) < 0.1, 1.0, a)
    assert metrics.paired_p(better, a, seed=0) == pytest.approx(1 / 10_001)
    # Under no difference p is uniform: few are small.
    small = [metrics.paired_p(*rng.normal(size=(2, 30)), seed=i, n=400) < 0.1 for i in range(200)]
    assert 0.03 <= np.mean(small) <= 0.19
    with pytest.raises(ValueError, match="same users"):
        metrics.paired_p(a, a[:5], seed=0)


def test_paired_ps_are_the_single_tests():
    rng = np.random.default_rng(15)
    values = rng.normal([0.0, 0.0, 0.4, 0.4], size=(40, 4))
    values[:, 1] = values[:, 0]
    found = metrics.paired_ps(values, seed=2, n=3000)
    assert (found == found.T).all() and (found.diagonal() == 1.0).all() and found[0, 1] == 1.0
    for i, j in [(0, 2), (1, 3), (2, 3)]:
        assert found[i, j] == metrics.paired_p(values[:, i], values[:, j], seed=2, n=3000)


def test_holm_keeps_the_order_and_never_falls_below_the_plain_p():
    p = {"a": 0.04, "b": 0.001, "c": 0.5, "d": 0.02}
    found = metrics.holm(p)
    assert found == pytest.approx({"a": 0.08, "b": 0.004, "c": 0.5, "d": 0.06})
    assert metrics.holm({}) == {} and metrics.holm({"a": 0.7, "b": 0.9}) == {"a": 1.0, "b": 1.0}


def test_doctests():
    assert doctest.testmod(metrics).failed == 0 and doctest.testmod(metrics).attempted >= 5
