"""Ranking metrics for one held-out target per user: values per user first, then means.

Definitions for a target at 0-based position r of a list (-1 when it is not there): recall@k = 1 if 0 <= r <
k (equal to the hit rate, as there is one target), ndcg@k = 1 / log2(r + 2) inside the top k, mrr@k = 1 / (r
+ 1) inside the top k; all are 0 otherwise.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

KS = (1, 3, 5, 10, 20, 50)

_AT_RANK: Mapping[str, Callable[[Floats], Floats]] = {
    "recall": lambda r: np.ones_like(r),
    "ndcg": lambda r: 1.0 / np.log2(r + 2.0),
    "mrr": lambda r: 1.0 / (r + 1.0),
}


def ranks_of(rows: Rows, targets: Rows, scores: npt.NDArray[np.floating] | None = None) -> Rows:
    """Return the position of each target in its list.

    Rankers break ties by row number, and catalogues are often listed by age or popularity, so a collapsed model that
    scores everything alike can look better than chance because of the order. With `scores`, a target gets the last
    position in its group of equal scores, so ties never help. A group that reaches the end of the list may continue
    beyond it, so rank one item more than the largest cut-off.

    Args:
        rows: int64[b, k], best first, padded with -1.
        targets: int64[b], catalogue rows.
        scores: float[b, k] for the rows, or None to take the order of the list as it is.

    Returns:
        int64[b], 0-based positions, -1 where the target is not in the list.

    >>> ranks_of(np.array([[7, 3, 5], [1, 2, -1]]), np.array([3, 9])).tolist()
    [1, -1]
    >>> ranks_of(np.array([[7, 3, 5]]), np.array([7]), np.array([[0.5, 0.5, 0.1]])).tolist()
    [1]
    """
    if len(rows) != len(targets) or (scores is not None and scores.shape != rows.shape):
        shape = None if scores is None else scores.shape
        raise ValueError(f"rows {rows.shape}, targets {targets.shape} and scores {shape} do not fit")
    hits = (rows == targets[:, None]) & (rows >= 0)
    found = hits.any(axis=1)
    if rows.shape[1] == 0:
        return np.full(len(rows), -1, dtype=np.int64)
    position = hits.argmax(axis=1)
    if scores is not None:
        own = np.take_along_axis(scores, position[:, None], axis=1)
        tied = (scores == own) & (rows >= 0)
        position = rows.shape[1] - 1 - tied[:, ::-1].argmax(axis=1)
    return np.where(found, position, -1).astype(np.int64)


def target_ranks(scores: npt.NDArray[np.floating], targets: Rows, allowed: npt.NDArray[np.bool_] | None = None) -> Rows:
    """Rank of each target among all allowed items, ties counted against it: int64[b], -1 if it is not allowed.

    Equal to `ranks_of` on a list of the whole catalogue, but without sorting. scores: float[b, n].
    """
    mask = np.broadcast_to(np.True_ if allowed is None else allowed, scores.shape)
    own = np.take_along_axis(scores, targets[:, None], axis=1)
    # The count includes the target itself, hence the minus one; a forbidden target gets -1 whatever its score.
    ranks = ((scores >= own) & mask).sum(axis=1) - 1
    return np.where(np.take_along_axis(mask, targets[:, None], axis=1)[:, 0], ranks, -1).astype(np.int64)


def per_user(ranks: Rows, ks: Sequence[int] = KS) -> dict[str, Floats]:
    """Recall, NDCG and MRR of every user: maps names such as `ndcg@10` to float64[b].

    >>> {name: value.tolist() for name, value in per_user(np.array([1, -1]), ks=[3]).items()}
    {'recall@3': [1.0, 0.0], 'ndcg@3': [0.6309297535714575, 0.0], 'mrr@3': [0.5, 0.0]}
    """
    places = np.where(ranks >= 0, ranks, 0).astype(np.float64)
    return {
        f"{name}@{k}": np.where((ranks >= 0) & (ranks < k), at_rank(places), 0.0)
        for name, at_rank in _AT_RANK.items()
        for k in ks
    }


def exposure(rows: Rows, n_items: int, k: int) -> Rows:
    """Number of top-k lists that contain each item: int64[n_items]. rows: int64[b, >= k] padded with -1."""
    top = rows[:, :k]
    return np.bincount(top[top >= 0], minlength=n_items).astype(np.int64)


def coverage(rows: Rows, n_items: int, k: int) -> float:
    """Share of the catalogue that appears in at least one top-k list, 0..1.

    >>> coverage(np.array([[0, 1], [0, 2]]), n_items=6, k=2)
    0.5
    """
    return float((exposure(rows, n_items, k) > 0).mean()) if n_items else 0.0


def gini(rows: Rows, n_items: int, k: int) -> float:
    """Gini index of exposure over the whole catalogue: 0 when all items are shown equally, near 1 when few are.

    >>> gini(np.array([[0, 1], [2, 3]]), n_items=4, k=2)
    0.0
    """
    shown = np.sort(exposure(rows, n_items, k)).astype(np.float64)
    total = float(shown.sum())
    if total == 0.0:
        return 0.0
    order = 2.0 * np.arange(1, n_items + 1) - n_items - 1.0
    return float((order * shown).sum() / (n_items * total))


def novelty(rows: Rows, counts: Rows, k: int) -> Floats:
    """Mean self-information of the shown items in bits: float64[b], NaN for no items (Zhou et al., 2010).

    An item's probability is its add-one-smoothed share of the train interactions, whose counts are int64[n].
    """
    chance = (counts + 1.0) / (counts.sum() + len(counts))
    return _mean_of(-np.log2(chance), rows[:, :k])


def popularity_lift(rows: Rows, histories: Sequence[Rows], counts: Rows, k: int) -> Floats:
    """How much more popular the shown items are than the user's history: float64[b] (Abdollahpouri et al., 2020).

    0 means as popular as the history, 1 twice as popular. NaN where the list or the history is empty or has no
    interactions.
    """
    popularity = counts.astype(np.float64)
    shown = _mean_of(popularity, rows[:, :k])
    own = np.array([popularity[h].mean() if len(h) else np.nan for h in histories])
    lift = np.full(len(rows), np.nan)
    np.divide(shown, own, out=lift, where=own > 0)
    return lift - 1.0


def diversity(rows: Rows, vectors: npt.NDArray[np.float32], k: int) -> Floats:
    """Intra-list diversity: 1 - mean cosine over all pairs of the top k: float64[b]. NaN below two items.

    vectors: float32[n, d], unit length.
    """
    values = np.full(len(rows), np.nan)
    for i, line in enumerate(rows[:, :k]):
        shown = vectors[line[line >= 0]].astype(np.float64)
        m = len(shown)
        if m >= 2:
            # The sum over pairs equals |sum of vectors|^2 minus the diagonal.
            pairs = np.square(shown.sum(axis=0)).sum() - np.square(shown).sum()
            values[i] = 1.0 - pairs / (m * (m - 1))
    return values


def _mean_of(value: Floats, rows: Rows) -> Floats:
    """Mean of value[row] over the valid rows of each line: float64[b], NaN for lines without any."""
    there = rows >= 0
    sums = np.where(there, value[np.where(there, rows, 0)], 0.0).sum(axis=1)
    means = np.full(len(rows), np.nan)
    np.divide(sums, there.sum(axis=1), out=means, where=there.any(axis=1))
    return means


def bootstrap_ci(values: Floats, seed: int, n: int = 1000, level: float = 0.95) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of values: float64[b] (Efron, 1979).

    Raises:
        ValueError: no values, a NaN, or a level outside 0..1.
    """
    lo, hi = bootstrap_cis(np.asarray(values, dtype=np.float64)[:, None], seed, n, level)
    return float(lo[0]), float(hi[0])


def bootstrap_cis(values: Floats, seed: int, n: int = 1000, level: float = 0.95) -> tuple[Floats, Floats]:
    """As `bootstrap_ci` for the m columns of float64[b, m], resampling whole lines: two float64[m]."""
    users = len(values)
    if users == 0:
        raise ValueError("an interval needs at least one value")
    if np.isnan(values).any():
        raise ValueError("an interval needs numbers; NaN values were given")
    if not 0.0 < level < 1.0:
        raise ValueError(f"level is {level}; it lies between 0 and 1")
    rng = np.random.default_rng(seed)
    means = np.empty((n, values.shape[1]))
    for i in range(n):
        times = np.bincount(rng.integers(0, users, users), minlength=users).astype(np.float64)
        # einsum instead of @: its result does not depend on the number of BLAS threads.
        means[i] = np.einsum("b,bm->m", times, values) / users
    lo, hi = np.quantile(means, [(1.0 - level) / 2.0, (1.0 + level) / 2.0], axis=0)
    return lo, hi


def paired_p(a: Floats, b: Floats, seed: int, n: int = 10_000) -> float:
    """Two-sided p-value that a and b have equal means, from random sign flips of their differences (Fisher, 1935).

    Args:
        a: float64[b], one value per user.
        b: float64[b], the same users in the same order.
        seed: random seed for the flips.
        n: number of flips; the smallest possible p is 1 / (n + 1).

    Returns:
        p in 0..1; 1 when the two are equal everywhere.
    """
    if a.shape != b.shape:
        raise ValueError(f"a has shape {a.shape}, b {b.shape}; a paired test needs the same users")
    return float(paired_ps(np.stack([a, b], axis=1), seed, n)[0, 1])


def paired_ps(values: Floats, seed: int, n: int = 10_000) -> Floats:
    """`paired_p` for every pair of the m columns of float64[b, m], with the same flips for all: float64[m, m].

    Symmetric, 1 on the diagonal. Not corrected for the number of pairs: see `holm`.
    """
    users, m = values.shape
    left, right = np.triu_indices(m, 1)
    gaps = values[:, left] - values[:, right]
    # Sums that differ only by rounding count as equal.
    seen = np.abs(gaps.sum(axis=0)) - 1e-9 * np.abs(gaps).sum(axis=0)
    reached = np.zeros(len(left), np.int64)
    rng = np.random.default_rng(seed)
    for start in range(0, n, 250):
        signs = rng.integers(0, 2, (min(250, n - start), users), dtype=np.int8) * 2.0 - 1.0
        reached += (np.abs(np.einsum("ru,up->rp", signs, gaps)) >= seen).sum(axis=0)
    out = np.ones((m, m))
    out[left, right] = out[right, left] = (reached + 1) / (n + 1)
    return out


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """P-values corrected for multiple testing by Holm's step-down method (1979): same names, same order.

    >>> holm({"a": 0.01, "b": 0.04, "c": 0.03})
    {'a': 0.03, 'b': 0.06, 'c': 0.06}
    """
    out: dict[str, float] = {}
    least = 0.0
    for place, name in enumerate(sorted(p, key=lambda name: p[name])):
        least = max(least, min(1.0, p[name] * (len(p) - place)))
        out[name] = least
    return {name: out[name] for name in p}
