"""Detects codebook drift: whether new items still fit semantic IDs that were made for an older catalogue.

Only the text of a new item is known, so known and new items are compared in the text dimensions of the joint vectors,
by the same greedy residual quantisation. Known items set the scale: an item is far from the codebook if its error is
one that only 5 % of known items exceed. Shares and means of a handful of items say little. With fewer new items than
`MIN_NEW_ITEMS`, only a lack of free paths is therefore a reason to rebuild.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llmrec.errors import RequestError
from llmrec.numerics import whitening
from llmrec.semantic_ids.residual_kmeans import SemanticIds

MAX_FAR_SHARE, MAX_ERROR_RATIO, MAX_CROWDED_SHARE, MAX_NEW_SHARE = 0.2, 1.25, 0.05, 0.2
# If new items are like the known ones, more than 20 % of 20 items are far with a probability of .0026, and more than
# 20 % of 5 items with .023.
MIN_NEW_ITEMS = 20
_DEVIATIONS = 3  # the mean error of new items must also be this many standard errors (for their number) above the known
_EXPECTED = 0.05


@dataclass(frozen=True)
class Drift:
    """Report on codebook drift.

    Attributes:
        items: number of new items.
        known: number of items that the codebook was made for.
        error_known: mean squared quantisation error of known items, divided by their mean squared length.
        error_new: mean squared quantisation error of new items, divided by the same length.
        far_share: share of new items whose error is above the 95 % quantile of known items; .05 without drift.
        crowded_share: share of new items whose nearest first code has no free place left.
        free_share: share of all paths that are free.
        enough: whether there are enough new items for their shares and means to be meaningful.
        rebuild: whether the codebook should be rebuilt.
        reasons: the reasons to rebuild, as text for people.
    """

    items: int
    known: int
    error_known: float
    error_new: float
    far_share: float
    crowded_share: float
    free_share: float
    enough: bool
    rebuild: bool
    reasons: tuple[str, ...]


def sid_drift(known: np.ndarray, new: np.ndarray, ids: SemanticIds, text_weight: float, text_dims: int) -> Drift:
    """Compare new items with those that the codebook was made for.

    Args:
        known: float32[n, d], text vectors of the items that have codes, in row order.
        new: float32[m, d], text vectors of new items.
        ids: codes and codebook.
        text_weight: text weight of the recipe, see `residual_kmeans.joint_vectors`.
        text_dims: number of text dimensions of the recipe.

    Raises:
        RequestError: there are no new items, shapes do not match, or the codebook was made without text.
    """
    if not len(new) or len(known) != len(ids.codes) or known.shape[1:] != new.shape[1:]:
        raise RequestError(f"text of {known.shape} known and {new.shape} new items for {len(ids.codes)} semantic IDs")
    if not text_weight or text_dims > ids.codebook.shape[2]:
        raise RequestError("this codebook was made without text; the distance of new items from it cannot be measured")
    mean = known.mean(axis=0)
    turn = np.sqrt(text_weight) * whitening(known, text_dims)
    old, fresh = (known - mean) @ turn, (new - mean) @ turn
    codebook = ids.codebook[:, :, :text_dims].astype(np.float64)
    (left_old, _), (left_new, first) = _quantise(old, codebook), _quantise(fresh, codebook)
    scale = float((old**2).sum(axis=1).mean())
    limit = float(np.quantile(left_old, 1 - _EXPECTED))
    room = ids.size ** (ids.depth - 1) - np.bincount(ids.codes[:, 0], minlength=ids.size)
    numbers = {
        "error_known": float(left_old.mean()) / scale,
        "error_new": float(left_new.mean()) / scale,
        "far_share": float((left_new > limit).mean()),
        "crowded_share": float((room[first] <= 0).mean()),
        "free_share": 1.0 - len(ids.codes) / float(ids.size) ** ids.depth,
    }
    paths = ids.size**ids.depth - len(ids.codes)
    reasons = [f"{paths} free paths are left for {len(new)} new items"] if len(new) > paths else []
    enough = len(new) >= MIN_NEW_ITEMS
    if enough:
        spread = float(left_old.std() / max(left_old.mean(), 1e-12)) / len(new) ** 0.5
        reasons += _reasons(len(new), len(known), numbers, max(MAX_ERROR_RATIO, 1 + _DEVIATIONS * spread))
    return Drift(len(new), len(known), **numbers, enough=enough, rebuild=bool(reasons), reasons=tuple(reasons))


def _quantise(x: np.ndarray, codebook: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Quantise vectors level by level without capacity; return (squared residual float64[n], first code int64[n])."""
    left, first = np.asarray(x, np.float64).copy(), np.zeros(len(x), np.int64)
    for level, centroids in enumerate(codebook):
        distance = (centroids**2).sum(1) - 2 * left @ centroids.T
        code = distance.argmin(axis=1)
        first = code if level == 0 else first
        left -= centroids[code]
    return (left**2).sum(axis=1), first


def _reasons(new: int, known: int, numbers: dict[str, float], most: float) -> list[str]:
    """Return the reasons to rebuild the codebook; `most` is the largest ratio of errors that chance can explain."""
    found = []
    if numbers["far_share"] > MAX_FAR_SHARE:
        found.append(
            f"{numbers['far_share']:.0%} of the new items lie farther from the codebook than 95 % of the known"
        )
    if (ratio := numbers["error_new"] / max(numbers["error_known"], 1e-12)) > most:
        found.append(f"the codebook leaves {ratio:.2f} times the error on new items")
    if numbers["crowded_share"] > MAX_CROWDED_SHARE:
        found.append(f"{numbers['crowded_share']:.0%} of the new items find their nearest first code full")
    if new > MAX_NEW_SHARE * known:
        found.append(f"{new} new items are {new / known:.0%} of the {known} that the codebook was made for")
    return found
