"""Maximum inner product search over item vectors: exact for small catalogues, a faiss inverted file for large ones."""

from __future__ import annotations

from importlib import import_module
from typing import Any, TypeAlias

import numpy as np

from llmrec.errors import DataError, RequestError
from llmrec.inner_product import inner

Vectors: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]
Rows: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
Mask: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]

_SPARE = 4  # the inverted file is queried for this many times k items, which are then rescored
_NARROW = 0.05  # below this share of allowed items the search is exact, since the inverted lists would be nearly empty


class ItemIndex:
    """Searches item vectors.

    Args:
        vectors: float32[n, d], one row per item.
        exact_below: catalogues smaller than this are searched exactly.

    Raises:
        DataError: not a finite n x d array.
    """

    def __init__(self, vectors: Vectors, exact_below: int = 100_000) -> None:
        if vectors.ndim != 2 or not np.isfinite(vectors).all():
            raise DataError(f"item vectors must be finite and n x d; got shape {vectors.shape}")
        self._vectors: Vectors = np.ascontiguousarray(vectors, np.float32)
        self._lists: Any = None if len(vectors) < exact_below else _inverted_file(self._vectors)

    def __len__(self) -> int:
        return len(self._vectors)

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return int(self._vectors.shape[1])

    def scores(self, queries: Vectors) -> Vectors:
        """Return the inner products float32[b, n] of queries float32[b, d] with every item."""
        return inner(self._checked(queries), self._vectors)

    def search(self, queries: Vectors, k: int, allowed: Mask | None = None) -> tuple[Rows, Vectors]:
        """Return the k best rows and scores per query, best first, ties by row.

        Args:
            queries: float32[b, d].
            k: at least 1; positions beyond the allowed items hold -1 and -inf.
            allowed: bool[n] for all queries or bool[b, n].

        Raises:
            RequestError: k below 1, or a shape that does not fit.
        """
        queries = self._checked(queries)
        if k < 1:
            raise RequestError(f"k is {k}; ask for at least 1 item")
        masks = self._masks(allowed, len(queries))
        rows = np.full((len(queries), k), -1, np.int64)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        for place in range(len(queries)):
            mask = None if masks is None else masks[place]
            query = queries[place : place + 1]
            line = inner(query, self._vectors)[0] if self._lists is None else self._near(query, k, mask)
            found = _best(line, k, mask)
            rows[place, : len(found)] = found
            scores[place, : len(found)] = line[found]
        return rows, scores

    def _checked(self, queries: Vectors) -> Vectors:
        if queries.ndim != 2 or queries.shape[1] != self.dim:
            raise RequestError(f"queries have shape {queries.shape}; this index needs (b, {self.dim})")
        return np.ascontiguousarray(queries, np.float32)

    def _masks(self, allowed: Mask | None, b: int) -> Mask | None:
        if allowed is None:
            return None
        if allowed.shape not in ((len(self),), (b, len(self))):
            raise RequestError(f"allowed has shape {allowed.shape}; give ({len(self)},) or ({b}, {len(self)})")
        return np.broadcast_to(allowed.astype(bool, copy=False), (b, len(self)))

    def _near(self, query: Vectors, k: int, mask: Mask | None) -> Vectors:
        """Return scores float32[n] for a query float32[1, d]: exact for the inverted file's candidates, else -inf."""
        n = len(self)
        share = n if mask is None else int(mask.sum())
        wanted = min(share, _SPARE * k)
        line = np.full(n, -np.inf, np.float32)
        candidates = np.flatnonzero(mask) if mask is not None else np.arange(n)
        if share > _NARROW * n and wanted < share:
            found = self._candidates(query, wanted, mask)
            if len(found) >= min(k, share):
                candidates = found
        line[candidates] = inner(query, self._vectors[candidates])[0]
        return line

    def _candidates(self, query: Vectors, wanted: int, mask: Mask | None) -> Rows:
        faiss: Any = import_module("faiss")  # takes half a second, which small catalogues do not need
        options = faiss.SearchParametersIVF(nprobe=self._lists.nprobe)
        if mask is not None:
            options.sel = faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))
        _, found = self._lists.search(query, wanted, params=options)
        rows: Rows = found[0][found[0] >= 0].astype(np.int64)
        return rows


def _best(line: Vectors, k: int, mask: Mask | None) -> Rows:
    """Return up to k rows by descending score, then ascending row, without those masked out or at -inf."""
    scores = line if mask is None else np.where(mask, line, -np.inf)
    if k < len(scores):
        edge = np.partition(scores, len(scores) - k)[len(scores) - k]
        places = np.flatnonzero((scores >= edge) & (scores > -np.inf))
    else:
        places = np.flatnonzero(scores > -np.inf)
    order = np.argsort(-scores[places], kind="stable")
    rows: Rows = places[order[:k]].astype(np.int64)
    return rows


def _inverted_file(vectors: Vectors) -> Any:
    """Build a faiss inverted file with about 4 sqrt(n) lists, of which 1 in 16 is searched."""
    faiss: Any = import_module("faiss")
    n, d = vectors.shape
    lists = max(1, min(int(4 * np.sqrt(n)), n // 39 or 1))
    index = faiss.index_factory(d, f"IVF{lists},Flat", faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors)
    index.nprobe = max(8, lists // 16)
    return index
