"""A trie over the semantic IDs of the catalogue, as flat arrays.

Items are sorted by their code path. A node of any level is then a contiguous range of this order, and its children are
a contiguous range of the next level (compressed sparse rows; the layout follows STATIC, which keeps masks flat for the
same reason). A filter is one cumulative sum over this order: a node is reachable if its range holds an allowed item. So
the trie is not rebuilt for a filter. A decoding step looks up only the children of its beams, so its cost does not
depend on the size of the catalogue.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from llmrec.errors import DataError

MAX_COUNT = 1 << 40  # largest interaction count of an item


def log_mass(counts: np.ndarray) -> np.ndarray:
    """float32[n]: log(1 + count) for the interaction counts int[n] of the training data."""
    return np.asarray(np.log1p(counts), np.float32)


def counts_of(log_mass: np.ndarray) -> np.ndarray:
    """int64[n]: the inverse of `log_mass`, for any finite masses; counts are clipped to 0 .. `MAX_COUNT`."""
    return np.rint(np.expm1(np.clip(log_mass.astype(np.float64), 0.0, np.log(MAX_COUNT)))).astype(np.int64)


@dataclass(frozen=True, eq=False)
class TrieFilter:
    """A filter over a trie, made once by `Trie.filter` and used at every decoding step.

    Attributes:
        before: int32[n + 1], number of allowed items among the first i leaves.
        first: per level, node -> first leaf (the trie's own arrays).
    """

    before: np.ndarray
    first: tuple[np.ndarray, ...]

    def reachable(self, level: int, nodes: np.ndarray) -> np.ndarray:
        """Return bool of the shape of `nodes` (nodes of `level`, none of them -1): which have allowed items below."""
        first = self.first[level]
        out: np.ndarray = self.before[first[nodes + 1]] > self.before[first[nodes]]
        return out

    @property
    def count(self) -> int:
        """How many items are allowed."""
        return int(self.before[-1])


class Trie:
    """A trie of all paths in `codes` int[n, depth] with `size` codes per level; rows must be distinct.

    `log_mass` float[n] is the log prior mass of each item, see the function of that name. A node's prior is the log of
    the mass below it. It is added to the model's logits, so training need not teach the model which items are popular.
    Without `log_mass`, all items have the same mass.

    Attributes:
        order: int32[n], leaf -> row.
        first: per level, node -> its first leaf, one past the end appended; int32[nodes + 1].
        code: per level, node -> its code; the narrowest unsigned integers that hold `size`.
        child: per level, node of the level above -> its first child, one past the end appended; the root is node 0.
        width: per level, the most children that a node of the level above has.
        prior: per level, float32[nodes], log of the mass below each node.

    Raises:
        DataError: a code outside 0 to size - 1, two items with the same path, or masses that cannot be summed.
    """

    def __init__(self, codes: np.ndarray, size: int, log_mass: np.ndarray | None = None) -> None:
        codes = np.asarray(codes)
        self.n, self.depth = codes.shape
        self.size = size
        if self.n and not (codes.min() >= 0 and codes.max() < size):
            raise DataError(f"codes from {codes.min()} to {codes.max()}; this trie takes 0 to {size - 1}")
        order, keys = _sorted_keys(codes, size)
        self.order = order.astype(np.int32)
        self.first = list(_first_leaves(keys, self.depth, size))
        if self.n and len(self.first[-1]) - 1 < self.n:
            raise DataError(f"{self.n} items share {len(self.first[-1]) - 1} paths; every item needs its own")
        self.code, self.child = [], []
        above = np.array([0, self.n])
        small = np.min_scalar_type(max(size - 1, 0))
        for level, first in enumerate(self.first):
            self.code.append(codes[order[first[:-1]], level].astype(small))
            # a node's first child begins at the same leaf as the node
            self.child.append(np.searchsorted(first, above).astype(np.int32))
            above = first
        self.width = [int(np.diff(child).max(initial=0)) for child in self.child]
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            mass = np.ones(self.n) if log_mass is None else np.exp(np.asarray(log_mass, np.float64))[order]
            total = np.concatenate([[0.0], np.cumsum(mass)])
            self.prior = [np.log(total[first[1:]] - total[first[:-1]]).astype(np.float32) for first in self.first]
        if not np.isfinite(self.prior[-1]).all():
            raise DataError("log masses that are not finite, or so far apart that the small ones vanish")

    @cached_property
    def log_masses(self) -> np.ndarray:
        """float32[n]: the log mass of every item, by row."""
        out = np.empty(self.n, np.float32)
        out[self.order] = self.prior[-1]
        return out

    def nodes(self, level: int) -> int:
        """Number of nodes of a level."""
        return len(self.code[level])

    def filter(self, allowed: np.ndarray) -> TrieFilter:
        """Return a filter that keeps the items of `allowed` bool[n], by row; takes one pass over the items."""
        if np.shape(allowed) != (self.n,):
            raise DataError(f"a filter of shape {np.shape(allowed)} for a catalogue of {self.n} items")
        before = np.zeros(self.n + 1, np.int32)
        np.cumsum(np.asarray(allowed, bool)[self.order], dtype=np.int32, out=before[1:])
        return TrieFilter(before, tuple(self.first))

    def is_choice(self, level: int) -> np.ndarray:
        """Return bool[nodes] for a level other than the last: which nodes have more than one child."""
        return self._choices[level]

    @cached_property
    def _choices(self) -> list[np.ndarray]:
        return [np.diff(child) > 1 for child in self.child[1:]]

    def ranges(self, level: int, nodes: np.ndarray) -> np.ndarray:
        """int64[len(nodes), w]: the children of each node of the level above in order of their codes, then -1.

        w is the largest number of children on that level, so the shape does not depend on the nodes given.
        """
        start = self.child[level][nodes].astype(np.int64)[:, None]
        stop = self.child[level][nodes + 1][:, None]
        child: np.ndarray = start + np.arange(self.width[level])
        child[child >= stop] = -1
        return child

    def children(self, level: int, nodes: np.ndarray) -> np.ndarray:
        """int64[len(nodes), size]: for each node of the level above, code -> child node on `level`, or -1 for none."""
        start, stop = self.child[level][nodes].astype(np.int64), self.child[level][nodes + 1].astype(np.int64)
        counts = stop - start
        out = np.full((len(nodes), self.size), -1, np.int64)
        line = np.repeat(np.arange(len(nodes)), counts)
        child = np.arange(len(line)) + np.repeat(start - np.cumsum(counts) + counts, counts)
        out[line, self.code[level][child]] = child
        return out

    def priors(self, level: int, children: np.ndarray) -> np.ndarray:
        """float32 of the shape of `children` (nodes of `level`, -1 for none): their log mass, -inf for none."""
        out: np.ndarray = np.where(children >= 0, self.prior[level][children], np.float32(-np.inf))
        return out

    def row(self, leaves: np.ndarray) -> np.ndarray:
        """Rows int64 of leaf nodes (nodes of the last level)."""
        out: np.ndarray = self.order[leaves].astype(np.int64)
        return out

    def leaves(self, rows: np.ndarray) -> np.ndarray:
        """Leaf nodes int64 of rows: the inverse of `row`."""
        out: np.ndarray = self._leaf[rows].astype(np.int64)
        return out

    @cached_property
    def _leaf(self) -> np.ndarray:
        inverse = np.empty(self.n, np.int32)
        inverse[self.order] = np.arange(self.n, dtype=np.int32)
        return inverse

    def ancestors(self, leaves: np.ndarray) -> np.ndarray:
        """int64[depth, len(leaves)]: the node of every level that each leaf lies below, itself at the last."""
        return np.stack([np.searchsorted(first, leaves, side="right") - 1 for first in self.first])


def _sorted_keys(codes: np.ndarray, size: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the order int64[n] that sorts the paths, and the sorted paths, packed with many levels per int64.

    Sorting by one packed key is several times faster than sorting by columns, and takes a fifth of the memory.
    """
    bits, levels = _packing(size)
    keys = []
    for start in range(0, codes.shape[1], levels):
        key = np.zeros(len(codes), np.int64)
        for column in codes[:, start : start + levels].T:
            key <<= bits
            key |= column.astype(np.int64)
        keys.append(key)
    order = np.argsort(keys[0]) if len(keys) == 1 else np.lexsort(keys[::-1])
    return order, [key[order] for key in keys]


def _first_leaves(keys: list[np.ndarray], depth: int, size: int) -> Iterator[np.ndarray]:
    """Yield per level the first leaf of each node, with one past the end appended: int32[nodes + 1]."""
    bits, levels = _packing(size)
    n = len(keys[0])
    begins = np.zeros(n, bool)
    begins[:1] = True
    for level in range(depth):
        group = level // levels
        below = min(depth, (group + 1) * levels) - 1 - level
        prefix = keys[group] >> (bits * below)
        begins[1:] |= prefix[1:] != prefix[:-1]
        yield np.append(np.flatnonzero(begins), n).astype(np.int32)


def _packing(size: int) -> tuple[int, int]:
    """Return the number of bits of a code, and how many codes fit into one non-negative int64."""
    bits = max(1, (size - 1).bit_length())
    return bits, 63 // bits
