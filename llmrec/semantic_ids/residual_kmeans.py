"""Semantic IDs by residual k-means: every item becomes a short path of codes; similar items share the first codes.

The item's text vector is concatenated with its collaborative vector, and each level quantises the residual of the
levels above (as in OneRec; `rqvae` is TIGER's method). Codes are assigned top-down under a capacity limit: a node of
level l may hold at most codes ** (depth - l - 1) items, so the last level can always distinguish all items. Paths are
unique by construction, not by a suffix added afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from threadpoolctl import threadpool_limits

from llmrec.errors import DataError
from llmrec.numerics import whitening
from llmrec.progress import Say, counted, silent
from llmrec.storage.artifacts import fingerprint_arrays


@dataclass(frozen=True, eq=False)
class SemanticIds:
    """Codes of all items and the codebook that they were assigned from.

    Attributes:
        codes: int32[n, depth], unique rows.
        codebook: float32[depth, size, d], the centroids of each level in the space of the joint vectors.
    """

    codes: np.ndarray
    codebook: np.ndarray

    @property
    def depth(self) -> int:
        """Number of levels, which is the number of codes of an item."""
        return int(self.codebook.shape[0])

    @property
    def size(self) -> int:
        """Number of codes per level."""
        return int(self.codebook.shape[1])

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the codes, which define the meaning of a model's item tokens."""
        return fingerprint_arrays(codes=self.codes)

    def extend(self, vectors: np.ndarray) -> SemanticIds:
        """Assign codes to new items, given as joint vectors float[m, d], without changing any existing code.

        On each level a new item takes the nearest code whose node has room left.

        Raises:
            DataError: the tree is full.
        """
        held = _Occupancy(self.codes, self.size)
        added = np.stack([held.assign_codes(v, self.codebook) for v in np.asarray(vectors, np.float64)])
        return SemanticIds(np.concatenate([self.codes, added.astype(np.int32)]), self.codebook)

    def shares(self) -> np.ndarray:
        """float64[depth, size]: the share of items that have each code of a level."""
        counts = [np.bincount(line, minlength=self.size) for line in self.codes.T]
        return np.stack(counts) / len(self.codes)

    def statistics(self) -> dict[str, object]:
        """Return statistics: per level the share of codes in use and their perplexity; duplicate paths (always 0)."""
        shares = self.shares()
        prefixes = np.unique(self.codes[:, :-1], axis=0, return_counts=True)[1]
        return {
            "items": len(self.codes),
            "usage": [float((share > 0).mean()) for share in shares],
            "perplexity": [perplexity(share) for share in shares],
            "duplicates": int(len(self.codes) - len(np.unique(self.codes, axis=0))),
            "largest_last_level_group": int(prefixes.max()),
        }


def perplexity(share: np.ndarray) -> float:
    """Perplexity of shares float[size] that sum to one: the number of equally used codes with the same entropy."""
    some = share[share > 0]
    return float(np.exp(-(some * np.log(some)).sum()))


def joint_vectors(text: np.ndarray, collaborative: np.ndarray | None, text_dims: int, text_weight: float) -> np.ndarray:
    """Whiten text and collaborative vectors and concatenate them: float32[n, text_dims + d_collaborative].

    Without whitening, MiniLM's few strong directions would decide every first code. `text_weight` in [0, 1] is the
    share of the squared norm that the text contributes.
    """
    parts = [np.sqrt(text_weight) * _whiten(text, text_dims)]
    if collaborative is not None:
        parts.append(np.sqrt(1.0 - text_weight) * _whiten(collaborative, collaborative.shape[1]))
    return np.concatenate(parts, axis=1).astype(np.float32)


def _whiten(x: np.ndarray, dims: int) -> np.ndarray:
    x = np.asarray(x, np.float64)
    return np.asarray((x - x.mean(axis=0)) @ whitening(x, dims))


def fit(vectors: np.ndarray, depth: int, size: int, seed: int, say: Say = silent) -> SemanticIds:
    """Residual k-means over vectors float[n, d]; the same seed gives the same codes on the same kind of machine.

    Raises:
        DataError: size ** depth is smaller than the catalogue.
    """
    return SemanticIds(
        *assign_codes(vectors, depth, size, lambda level, left: kmeans_centroids(left, size, seed + level), say)
    )


def assign_codes(
    vectors: np.ndarray,
    depth: int,
    size: int,
    codebook_of: Callable[[int, np.ndarray], np.ndarray],
    say: Say = silent,
) -> tuple[np.ndarray, np.ndarray]:
    """Assign unique codes to vectors float[n, d] under the capacity limit.

    `codebook_of` returns the centroids float[size, d] of a level from the residuals float[n, d] of the levels above.

    Returns:
        The codes int32[n, depth] and the codebook float32[depth, size, d].

    Raises:
        DataError: size ** depth is smaller than the catalogue.
    """
    n = len(vectors)
    if size**depth < n:
        raise DataError(f"{depth} levels of {size} codes hold {size**depth} items; the catalogue has {n}")
    residual = np.asarray(vectors, np.float64).copy()
    codes, codebook = np.zeros((n, depth), np.int32), np.zeros((depth, size, residual.shape[1]))
    group = np.zeros(n, np.int64)
    for level in range(depth):
        codebook[level] = codebook_of(level, residual)
        capacity = size ** (depth - level - 1)
        for parent in counted(np.unique(group), f"semantic ids: level {level + 1} of {depth}", say, "nodes"):
            members = np.flatnonzero(group == parent)
            codes[members, level] = _assign(residual[members], codebook[level], capacity)
        residual -= codebook[level][codes[:, level]]
        group = np.unique(codes[:, : level + 1], axis=0, return_inverse=True)[1].reshape(-1)
    return codes, codebook.astype(np.float32)


def nearest_codes(vectors: np.ndarray, codebook: np.ndarray) -> np.ndarray:
    """int32[n, depth]: the codes of vectors float[n, d] without the capacity limit."""
    residual, out = np.asarray(vectors, np.float64).copy(), []
    for centres in np.asarray(codebook, np.float64):
        out.append(_distances(residual, centres).argmin(axis=1))
        residual -= centres[out[-1]]
    return np.stack(out, axis=1).astype(np.int32)


def kmeans_centroids(x: np.ndarray, size: int, seed: int) -> np.ndarray:
    """K-means centroids float64[size, d], computed on one thread so that the codes are reproducible.

    Parallel sums would change the last bits. On another kind of processor the codes may still differ.
    """
    from sklearn.cluster import KMeans  # takes a second, and only training needs it; must precede `threadpool_limits`

    distinct = len(np.unique(x, axis=0))
    with threadpool_limits(1):
        k = KMeans(min(size, distinct), n_init=4, random_state=seed).fit(x).cluster_centers_
    spare = size - len(k)
    if spare == 0:
        return np.asarray(k)
    # with fewer distinct vectors than codes, spare codes are jittered copies, so that there is capacity for all items
    rng = np.random.default_rng(seed)
    copies = k[rng.integers(0, len(k), spare)] + rng.normal(0, 1e-3, (spare, x.shape[1]))
    return np.concatenate([k, copies])


def _distances(x: np.ndarray, codebook: np.ndarray) -> np.ndarray:
    """Squared Euclidean distances, float64[n, size]."""
    return (x**2).sum(1)[:, None] - 2 * x @ codebook.T + (codebook**2).sum(1)  # type: ignore[no-any-return]


def _assign(x: np.ndarray, codebook: np.ndarray, capacity: int) -> np.ndarray:
    """Assign each row of x to its nearest code, with at most `capacity` rows per code; int[n]."""
    cost = _distances(x, codebook)
    nearest = cost.argmin(axis=1)
    if np.bincount(nearest, minlength=len(codebook)).max() <= capacity:
        return np.asarray(nearest)
    if capacity == 1:  # at the last level the exact optimum is cheap, because groups have at most `size` items
        from scipy.optimize import linear_sum_assignment

        return np.asarray(linear_sum_assignment(cost)[1])
    out, room = np.full(len(x), -1), np.full(len(codebook), capacity)
    # greedy by distance: the items closest to a code keep it, and those at its border take another one
    for flat in np.argsort(cost, axis=None, kind="stable"):
        item, code = divmod(int(flat), len(codebook))
        if out[item] < 0 and room[code] > 0:
            out[item], room[code] = code, room[code] - 1
    return out


class _Occupancy:
    """Counts the items below each node, to assign codes to new items."""

    def __init__(self, codes: np.ndarray, size: int) -> None:
        self.size, self.depth = size, codes.shape[1]
        self.counts: dict[tuple[int, ...], int] = {}
        for path in codes.tolist():
            self._add(tuple(path))

    def _add(self, path: tuple[int, ...]) -> None:
        for level in range(1, self.depth + 1):
            self.counts[path[:level]] = self.counts.get(path[:level], 0) + 1

    def assign_codes(self, vector: np.ndarray, codebook: np.ndarray) -> np.ndarray:
        """Assign a path to one new item and mark it as taken."""
        path: tuple[int, ...] = ()
        for level in range(self.depth):
            capacity = self.size ** (self.depth - level - 1)
            order = _distances(vector[None], codebook[level].astype(np.float64))[0].argsort(kind="stable")
            free = [int(c) for c in order if self.counts.get((*path, int(c)), 0) < capacity]
            if not free:
                raise DataError(f"all {self.size**self.depth} semantic IDs are taken; rebuild with a larger codebook")
            path, vector = (*path, free[0]), vector - codebook[level][free[0]]
        self._add(path)
        return np.asarray(path)
