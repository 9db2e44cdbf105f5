"""A token trie over the catalogue, as flat arrays.

Items are sorted by their code path; a node of any level is then a contiguous range of that order, and its children are
a contiguous range of the next level (CSR). Narrowing to a filter is one cumulative sum: a child is open when its range
holds an allowed item. Nothing is rebuilt, and the cost of a step depends on beams and codes, not on the catalogue
(the layout follows STATIC, which keeps masks flat for the same reason).
"""

from __future__ import annotations

import numpy as np


def log_mass(rows: np.ndarray, n: int) -> np.ndarray:
    """float32[n]: log of one more than the times each item occurs among train rows int[m]."""
    return np.log1p(np.bincount(rows, minlength=n)).astype(np.float32)


class Trie:
    """All paths of `codes` int[n, depth] with `size` codes a level.

    `log_mass` float[n], how likely each item is before anything is known (see `log_mass`), gives every node the log of
    the mass below it: the prior that a model's logits are added to, so that it need not spend its training on learning
    which items are popular. Without it all items weigh the same.
    """

    def __init__(self, codes: np.ndarray, size: int, log_mass: np.ndarray | None = None) -> None:
        self.n, self.depth = codes.shape
        self.size = size
        self.order = np.lexsort(codes.T[::-1]).astype(np.int64)  # leaf position -> row
        ordered = codes[self.order]
        change = np.zeros(self.n, bool)
        change[:1] = True
        self.first: list[np.ndarray] = []  # per level, node -> first leaf; one past the end is appended
        self.code: list[np.ndarray] = []  # per level, node -> its code
        self.child: list[np.ndarray] = []  # per level, node of the level above -> first child; root is node 0
        above = np.array([0, self.n])
        for level in range(self.depth):
            change[1:] |= ordered[1:, level] != ordered[:-1, level]
            first = np.flatnonzero(change)
            self.code.append(ordered[first, level].astype(np.int64))
            self.child.append(np.searchsorted(first, above).astype(np.int64))
            above = np.append(first, self.n)
            self.first.append(above)
        mass = np.ones(self.n) if log_mass is None else np.exp(np.asarray(log_mass, np.float64)[self.order])
        total = np.concatenate([[0.0], np.cumsum(mass)])
        self.prior = [np.log(total[first[1:]] - total[first[:-1]]).astype(np.float32) for first in self.first]

    def narrow(self, allowed: np.ndarray | None) -> list[np.ndarray]:
        """bool[nodes] per level: which nodes have an allowed item below them. `allowed` is bool[n] over rows."""
        if allowed is None:
            return [np.ones(len(code), bool) for code in self.code]
        total = np.concatenate([[0], np.cumsum(allowed[self.order], dtype=np.int64)])
        return [total[first[1:]] > total[first[:-1]] for first in self.first]

    def children(self, level: int, nodes: np.ndarray) -> np.ndarray:
        """int64[len(nodes), size]: for each node of the level above, code -> child node of `level`, -1 where none."""
        start, stop = self.child[level][nodes], self.child[level][nodes + 1]
        counts = stop - start
        out = np.full((len(nodes), self.size), -1, np.int64)
        line = np.repeat(np.arange(len(nodes)), counts)
        child = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(start, counts)
        out[line, self.code[level][child]] = child
        return out

    def priors(self, level: int, children: np.ndarray) -> np.ndarray:
        """float32 of the shape of `children` (nodes of `level`, -1 for none): their log mass, -inf for none."""
        out: np.ndarray = np.where(children >= 0, self.prior[level][children], np.float32(-np.inf))
        return out

    def row(self, leaves: np.ndarray) -> np.ndarray:
        """Rows of leaf nodes (nodes of the last level)."""
        out: np.ndarray = self.order[leaves]
        return out
