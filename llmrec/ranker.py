"""The `Ranker` protocol and the array functions that all rankers share.

A ranker maps histories (catalogue rows, oldest first) to the k best rows. It does not remove seen items by itself:
callers do that with `unseen` and the `allowed` argument.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from llmrec.errors import RequestError

Rows = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class RankedList:
    """Items for one request, best first, ties by row.

    Attributes:
        rows: int64[m].
        scores: float32[m], falling.
        parts: name of a part of the score -> its value for each listed item, float32[m].
    """

    rows: Rows
    scores: Scores
    parts: Mapping[str, Scores]


@runtime_checkable
class Ranker(Protocol):
    """Anything that ranks the catalogue for users; the hybrid model and all baselines implement it.

    Results are deterministic. A user gets the same result alone and in a batch. On another kind of processor the last
    bits of scores may differ, and items with nearly equal scores may swap places.
    """

    @property
    def name(self) -> str:
        """Short name for tables, such as `item-knn`."""
        ...

    def rank(self, histories: Sequence[Rows], k: int, allowed: Mask | None = None) -> tuple[Rows, Scores]:
        """Rank the catalogue for each history.

        Args:
            histories: b arrays of catalogue rows, oldest first; an empty history is fine.
            k: number of rows to return, at least 1; it may exceed the size of the catalogue.
            allowed: bool[n] for all users, or bool[b, n]; None allows everything. Seen items are not removed here.

        Returns:
            rows int64[b, k], best first, ties broken by row number, padded with -1;
            scores float32[b, k], padded with -inf.
        """
        ...


def top_k(scores: npt.NDArray[np.floating], k: int, allowed: Mask | None = None) -> tuple[Rows, Scores]:
    """The k best allowed rows for each user, best first, ties in order of row number.

    Row order is no measure of quality, but it is not random either: catalogues are often sorted by age or popularity.
    An evaluation must not count a tie as a hit because of that order, see `eval.metrics.ranks_of`.

    Args:
        scores: float[b, n], compared as float32; -inf means "never". Left unchanged.
        k: at least 1; beyond n the result is padded.
        allowed: bool[n] or bool[b, n].

    Returns:
        rows int64[b, k] padded with -1, scores float32[b, k] padded with -inf.

    Raises:
        RequestError: k < 1.
        ValueError: a score is NaN, or the shapes do not fit.
    """
    values = _masked(scores, k, allowed)
    users, n = values.shape
    take = min(k, n)
    rows = np.full((users, k), -1, dtype=np.int64)
    best = np.full((users, k), -np.inf, dtype=np.float32)
    if take == 0 or users == 0:
        return rows, best
    # Linear time instead of a full sort: find the take-th best value, keep all rows above it and the first rows equal
    # to it.
    bar = np.partition(values, n - take, axis=1)[:, n - take, None]
    above, level = values > bar, values == bar
    room = take - above.sum(axis=1, keepdims=True)
    kept = np.nonzero(above | (level & (np.cumsum(level, axis=1) <= room)))[1].reshape(users, take)
    found = np.take_along_axis(values, kept, axis=1)
    order = np.argsort(-found, axis=1, kind="stable")
    best[:, :take] = np.take_along_axis(found, order, axis=1)
    rows[:, :take] = np.take_along_axis(kept, order, axis=1)
    rows[np.isneginf(best)] = -1
    return rows, best


def _masked(scores: npt.NDArray[np.floating], k: int, allowed: Mask | None) -> Scores:
    """A checked float32 copy of the scores with -inf wherever a row is not allowed."""
    if k < 1:
        raise RequestError(f"k is {k}; ask for at least 1 item")
    if scores.ndim != 2:
        raise ValueError(f"scores have shape {scores.shape}; top_k needs [users, items]")
    values = np.array(scores, dtype=np.float32)
    if np.isnan(values).any():
        raise ValueError(f"{int(np.isnan(values).sum())} scores are NaN; a ranker must return numbers")
    if allowed is not None:
        if allowed.dtype != np.bool_ or allowed.shape not in (values.shape, values.shape[1:]):
            raise ValueError(
                f"allowed is {allowed.dtype}{list(allowed.shape)}; scores {list(values.shape)} need bool of "
                f"{list(values.shape[1:])} or {list(values.shape)}"
            )
        values[~np.broadcast_to(allowed, values.shape)] = -np.inf
    return values


def unseen(histories: Sequence[Rows], n_items: int) -> Mask:
    """Mask of unseen items: bool[b, n_items], False at the rows of each history.

    Raises:
        RequestError: a history holds a row outside the catalogue.
    """
    mask = np.ones((len(histories), n_items), dtype=np.bool_)
    for line, history in zip(mask, histories, strict=True):
        rows = np.asarray(history, dtype=np.int64)
        outside = rows[(rows < 0) | (rows >= n_items)]
        if outside.size:
            raise RequestError(f"a history holds row {int(outside[0])}; the catalogue has rows 0 to {n_items - 1}")
        line[rows] = False
    return mask
