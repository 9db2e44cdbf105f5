"""Diagnostics of semantic IDs: use of the codes and cost of unique paths, for comparing methods of quantisation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llmrec.semantic_ids.residual_kmeans import SemanticIds, perplexity

NEIGHBOURS = 10


@dataclass(frozen=True)
class Diagnosis:
    """Diagnostics of one set of semantic IDs.

    Attributes:
        usage: per level, share of codes that at least one item has.
        perplexity: per level, perplexity of the distribution of codes over items; `size` if all codes are equally used.
        gini: per level, Gini coefficient of the use of codes: 0 if all are equally used, near 1 if few codes hold most
            items.
        collisions: share of items that would share their path with another item without the capacity limit.
        moved: share of items whose path was changed to make it unique.
        left: per level, share of the vectors' variance that the codes up to that level do not explain.
        kept_together: share of an item's ten nearest neighbours that have the same first code.
        hourglass: lowest perplexity of a middle level, divided by the lower one of the first and last level. A value
            far below 1 is the narrow waist to which residual quantisation tends (Kuai et al., 2024). None with two
            levels, which have no middle.
    """

    usage: tuple[float, ...]
    perplexity: tuple[float, ...]
    gini: tuple[float, ...]
    collisions: float
    moved: float
    left: tuple[float, ...]
    kept_together: float
    hourglass: float | None


def diagnose(ids: SemanticIds, vectors: np.ndarray, nearest: np.ndarray, seed: int = 0, items: int = 2000) -> Diagnosis:
    """Diagnose the codes of joint vectors float[n, d].

    Args:
        ids: the codes.
        vectors: joint vectors of the same items.
        nearest: int[n, depth], the codes that the items would have without the capacity limit.
        seed: seed of the sample of items whose neighbours are compared.
        items: largest size of that sample.
    """
    shares = ids.shares()
    spread = tuple(perplexity(share) for share in shares)
    _, which, counts = np.unique(nearest, axis=0, return_inverse=True, return_counts=True)
    middle = spread[1:-1]
    return Diagnosis(
        usage=tuple(float((share > 0).mean()) for share in shares),
        perplexity=spread,
        gini=tuple(_gini(share) for share in shares),
        collisions=float((counts[which.reshape(-1)] > 1).mean()),
        moved=float((ids.codes != nearest).any(axis=1).mean()),
        left=tuple(_residual_variance(ids, vectors)),
        kept_together=_neighbour_agreement(ids.codes[:, 0], vectors, seed, items),
        hourglass=min(middle) / min(spread[0], spread[-1]) if middle else None,
    )


def _gini(share: np.ndarray) -> float:
    """Gini coefficient of shares float[size] that sum to one."""
    ordered = np.sort(share)
    n = len(ordered)
    return float((2 * np.arange(1, n + 1) - n - 1) @ ordered / n)


def _residual_variance(ids: SemanticIds, vectors: np.ndarray) -> list[float]:
    residual = np.asarray(vectors, np.float64).copy()
    whole = float(((residual - residual.mean(axis=0)) ** 2).sum())
    out = []
    for level in range(ids.depth):
        residual -= ids.codebook[level][ids.codes[:, level]]
        out.append(float((residual**2).sum()) / max(whole, 1e-12))
    return out


def _neighbour_agreement(first: np.ndarray, vectors: np.ndarray, seed: int, items: int) -> float:
    n, k = len(vectors), min(NEIGHBOURS, len(vectors) - 1)
    if k < 1:
        return 1.0
    x = np.asarray(vectors, np.float32)
    some = np.random.default_rng(seed).permutation(n)[:items]
    distance = (x**2).sum(axis=1)[None] - 2.0 * x[some] @ x.T
    distance[np.arange(len(some)), some] = np.inf
    near = np.argpartition(distance, k - 1, axis=1)[:, :k]
    return float((first[near] == first[some][:, None]).mean())
