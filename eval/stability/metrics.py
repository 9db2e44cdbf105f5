"""Agreement of two rankings of the same request: Kendall's tau, rank-biased overlap, overlap, top-1 flips.

A request without a list agrees with nothing, so that a missing answer does not count as stability.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt
from scipy.stats import kendalltau

from llmrec.eval.metrics import Floats, Rows

Ranking = Sequence[int]

P = 0.9  # parameter of rank-biased overlap: the first ten places carry 86 % of the weight
TOP = 10


def kendall_tau(first: Ranking, second: Ranking) -> float:
    """Kendall's tau-b over the items of either list, -1..1; items missing from a list are tied after its end.

    For two orders of the same items this is Kendall's tau; for two top-k lists it follows Fagin et al. (2003),
    "Comparing top k lists", with the missing items of a list tied. 0 when a list is empty.

    >>> kendall_tau([1, 2, 3], [1, 2, 3]), kendall_tau([1, 2, 3], [3, 2, 1])
    (1.0, -1.0)
    >>> round(kendall_tau([1, 2, 3], [1, 3, 2]), 4)
    0.3333
    """
    if not len(first) or not len(second):
        return 0.0
    if list(first) == list(second):  # includes lists of one item, for which tau is undefined
        return 1.0
    items = sorted({*first, *second})
    places = [[places.get(item, len(places)) for item in items] for places in map(_places, (first, second))]
    return float(kendalltau(*places).statistic)


def rbo(first: Ranking, second: Ranking, p: float = P) -> float:
    """Rank-biased overlap, extrapolated beyond the ends of the lists: 0..1 (Webber et al., 2010, equation 32).

    Lists may differ in length. 0 when either is empty.

    >>> round(rbo([1, 2], [2, 1]), 6), rbo([1, 2], [3, 4]), round(rbo([1, 2, 3], [1, 2, 3]), 6)
    (0.9, 0.0, 1.0)
    """
    short, long = sorted((list(first), list(second)), key=len)
    s, depth = len(short), len(long)
    if not s:
        return 0.0
    common = [len({*short[:d]} & {*long[:d]}) for d in range(depth + 1)]
    seen = sum(common[d] / d * p**d for d in range(1, depth + 1))
    assumed = sum(common[s] * (d - s) / (s * d) * p**d for d in range(s + 1, depth + 1))
    tail = (common[depth] - common[s]) / depth + common[s] / s
    return float((1 - p) / p * (seen + assumed) + tail * p**depth)


def overlap(first: Ranking, second: Ranking, k: int = TOP) -> float:
    """Share of the top k common to both lists, 0..1, relative to the longer one; 0 when either is empty.

    >>> overlap([1, 2, 3], [3, 4, 5], k=2), overlap([1, 2], [2, 1], k=2)
    (0.0, 1.0)
    """
    a, b = set(first[:k]), set(second[:k])
    return len(a & b) / max(len(a), len(b)) if a and b else 0.0


def top1_flip(first: Ranking, second: Ranking) -> float:
    """1.0 if the top items differ or a list is empty, else 0.0."""
    return float(not len(first) or not len(second) or first[0] != second[0])


MEASURES: Mapping[str, Callable[[Ranking, Ranking], float]] = {
    "kendall_tau": kendall_tau,
    "rbo": rbo,
    f"overlap@{TOP}": overlap,
    "top1_flip": top1_flip,
}


def agreement(original: Ranking, others: Sequence[Ranking], every_pair: bool) -> dict[str, float]:
    """Compute every measure, averaged over pairs of one request's rankings.

    Args:
        original: the ranking of the unmodified request.
        others: rankings of its variants, one or more.
        every_pair: compare all rankings with each other (for equivalent variants, such as phrasings) instead of with
            the original alone (for degraded variants, such as typos).

    Raises:
        ValueError: there is no variant to compare with.
    """
    pairs = list(combinations([original, *others], 2)) if every_pair else [(original, other) for other in others]
    if not pairs:
        raise ValueError("agreement needs at least one variant")
    return {name: float(np.mean([measure(a, b) for a, b in pairs])) for name, measure in MEASURES.items()}


def spread(values: Floats) -> float:
    """Standard deviation across variants of a metric's mean over requests: values float64[requests, variants].

    >>> spread(np.array([[1.0, 0.0], [1.0, 0.0]]))
    0.5
    """
    return float(values.mean(axis=0).std())


def spread_ci(values: Floats, seed: int, n: int = 1000) -> tuple[float, float]:
    """95 % percentile bootstrap interval of `spread`, resampling requests.

    The spread of a resample includes sampling noise, so the interval is biased upwards: the mean of the bootstrap
    distribution is not the estimate.
    """
    rng = np.random.default_rng(seed)
    drawn = [spread(values[rng.integers(0, len(values), len(values))]) for _ in range(n)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    point = spread(values)
    return min(float(low), point), max(float(high), point)


def quarters(slots: Rows, n: int) -> npt.NDArray[np.int64]:
    """The quarter of a list of n that contains each 0-based slot: int64[b], 0..3.

    >>> quarters(np.array([0, 4, 5, 19]), 20).tolist()
    [0, 0, 1, 3]
    """
    return (np.asarray(slots, np.int64) * 4) // n


def _places(ranking: Ranking) -> dict[int, int]:
    return {item: place for place, item in enumerate(ranking)}
