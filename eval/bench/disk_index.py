"""An item index larger than memory: faiss IVF-PQ in shards on disk, with exact scores for the candidates.

Every vector is stored in one of some thousand lists (k-means) as a few bytes (product quantisation; Jegou et al.,
2011). A search reads the lists nearest to the query from memory-mapped files, and computes exact scores of the best
candidates from the vectors, which are mapped as well. The files on disk are plain arrays described by a manifest; no
faiss file is ever parsed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from llmrec.errors import ArtifactError, DataError, RequestError
from llmrec.inner_product import inner
from llmrec.storage.artifacts import JSON, read_manifest, write_artifact

KIND = "item-index"
_CHUNK = 2**17  # vectors handled at a time
_SAMPLE = 64  # training vectors per list centroid
_ID = 8  # bytes of a row number in a list


@dataclass(frozen=True)
class IndexLayout:
    """The shape of an index.

    Attributes:
        lists: number of lists.
        bytes: bytes per quantised vector; divides the number of dimensions.
        shards: number of list files, each for a contiguous range of rows.
    """

    lists: int
    bytes: int
    shards: int

    @staticmethod
    def of(n: int, dim: int) -> IndexLayout:
        """The default layout: 4 sqrt(n) lists, one byte per four dimensions, two million rows per shard."""
        lists = max(1, min(int(4 * np.sqrt(n)), n // 39 or 1))
        size = next(size for size in range(max(1, dim // 4), 0, -1) if dim % size == 0)
        return IndexLayout(lists, size, max(1, -(-n // 2_000_000)))


def build(path: Path, vectors: np.ndarray, layout: IndexLayout | None = None, seed: int = 0) -> None:
    """Write an index of float32[n, d] (an array or a memory map, read in chunks) as an artifact directory.

    Raises:
        DataError: not a finite n x d array, or a layout that does not fit it.
    """
    if vectors.ndim != 2 or not len(vectors):
        raise DataError(f"item vectors must be n x d with n at least 1; got shape {vectors.shape}")
    n, dim = vectors.shape
    layout = layout or IndexLayout.of(n, dim)
    if not (1 <= layout.lists <= n and 1 <= layout.shards <= n and layout.bytes > 0 and dim % layout.bytes == 0):
        raise DataError(f"{layout} does not fit {n} vectors of {dim} dimensions")
    trained = _trained(vectors, layout, seed)
    meta: dict[str, JSON] = {"n": n, "dim": dim, "lists": layout.lists, "bytes": layout.bytes, "shards": layout.shards}
    with write_artifact(path, KIND, {}, meta) as directory:
        save_file(_centroids(trained, layout, dim), directory / "centroids.safetensors")
        kept = np.lib.format.open_memmap(directory / "vectors.npy", "w+", np.float32, (n, dim))
        for chunk in _chunks(0, n):
            if not np.isfinite(vectors[chunk]).all():
                raise DataError(f"item vectors {chunk.start} to {chunk.stop - 1} are not all finite")
            kept[chunk] = vectors[chunk]
        kept.flush()
        for shard in range(layout.shards):
            _write_shard(directory, shard, trained, vectors, layout)


def _chunks(start: int, stop: int) -> Iterator[slice]:
    for first in range(start, stop, _CHUNK):
        yield slice(first, min(first + _CHUNK, stop))


def _bounds(n: int, shards: int, shard: int) -> tuple[int, int]:
    return n * shard // shards, n * (shard + 1) // shards


def _trained(vectors: np.ndarray, layout: IndexLayout, seed: int) -> Any:
    n, dim = vectors.shape
    wanted = min(n, max(_SAMPLE * layout.lists, 40 * 256))
    sample = np.sort(np.random.default_rng(seed).choice(n, wanted, replace=False))
    index = _empty(dim, layout.lists, layout.bytes, wanted)
    index.cp.seed = seed + 1
    index.cp.min_points_per_centroid = index.pq.cp.min_points_per_centroid = 1  # allow small catalogues
    shown = np.ascontiguousarray(vectors[np.repeat(sample, 2) if n == 1 else sample], np.float32)
    if not np.isfinite(shown).all():
        raise DataError("item vectors are not all finite")
    index.train(shown)
    return index


def _empty(dim: int, lists: int, size: int, n: int) -> Any:
    faiss: Any = import_module("faiss")
    bits = 8 if n >= 256 else max(1, int(np.log2(n)))
    index = faiss.IndexIVFPQ(faiss.IndexFlatIP(dim), dim, lists, size, bits, faiss.METRIC_INNER_PRODUCT)
    return index


def _centroids(index: Any, layout: IndexLayout, dim: int) -> dict[str, np.ndarray]:
    faiss: Any = import_module("faiss")
    quantizer = index.quantizer.reconstruct_n(0, layout.lists)
    books = faiss.vector_to_array(index.pq.centroids).reshape(layout.bytes, -1, dim // layout.bytes)
    return {"lists": np.ascontiguousarray(quantizer), "books": np.ascontiguousarray(books)}


def _write_shard(directory: Path, shard: int, trained: Any, vectors: np.ndarray, layout: IndexLayout) -> None:
    """Write the shard's lists one after the other, codes before rows, and the offset and length of each list."""
    faiss: Any = import_module("faiss")
    first, last = _bounds(len(vectors), layout.shards, shard)
    trained.reset()
    for chunk in _chunks(first, last):
        rows = np.arange(chunk.start, chunk.stop, dtype=np.int64)
        trained.add_with_ids(np.ascontiguousarray(vectors[chunk], np.float32), rows)
    held, size = trained.invlists, trained.code_size
    counts = np.array([held.list_size(number) for number in range(layout.lists)], np.int64)
    with (directory / f"shard-{shard:04d}.lists").open("wb") as handle:
        for number, count in enumerate(counts.tolist()):
            if count:
                handle.write(faiss.rev_swig_ptr(held.get_codes(number), count * size).tobytes())
                handle.write(faiss.rev_swig_ptr(held.get_ids(number), count).astype("<i8").tobytes())
    save_file({"counts": counts}, directory / f"shard-{shard:04d}.safetensors")


class DiskIndex:
    """Searches an index that `build` wrote.

    Args:
        path: its directory.
        verify: check every byte against the manifest first; sizes are checked in any case.

    Raises:
        ArtifactError: no index, or files that do not fit together.
    """

    def __init__(self, path: Path, verify: bool = True) -> None:
        meta = read_manifest(path, KIND, verify).meta
        self.n, self.dim = int(meta["n"]), int(meta["dim"])
        self.layout = IndexLayout(int(meta["lists"]), int(meta["bytes"]), int(meta["shards"]))
        self._vectors: np.ndarray = np.load(path / "vectors.npy", mmap_mode="r", allow_pickle=False)
        centroids = load_file(path / "centroids.safetensors")
        if self._vectors.shape != (self.n, self.dim) or centroids["lists"].shape != (self.layout.lists, self.dim):
            raise ArtifactError(f"{path}: vectors {self._vectors.shape} are not those of {self.n} items")
        self._mapped: list[Any] = []
        self._shards = [self._opened(path, shard, centroids) for shard in range(self.layout.shards)]

    def __len__(self) -> int:
        return self.n

    def search(
        self, queries: np.ndarray, k: int, probes: int | None = None, spare: int = 4, allowed: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rows int64[b, k] padded with -1 and their exact inner products float32[b, k] padded with -inf, ties by row.

        Args:
            queries: float32[b, d].
            k: at least 1.
            probes: lists read per query, a sixteenth of all when None; reading all lists makes the candidates nearly
                exact.
            spare: number of candidates scored exactly for each of the k places.
            allowed: bool[n], rows that may be returned.

        Raises:
            RequestError: k, probes or spare below 1, or a shape that does not fit.
        """
        probes = max(8, self.layout.lists // 16) if probes is None else probes
        if min(k, probes, spare) < 1:
            raise RequestError(f"k {k}, probes {probes} and spare {spare} must be at least 1")
        if queries.ndim != 2 or queries.shape[1] != self.dim or (allowed is not None and allowed.shape != (self.n,)):
            raise RequestError(f"queries {queries.shape} or filter do not fit an index of {self.n} x {self.dim}")
        queries = np.ascontiguousarray(queries, np.float32)
        found = [self._candidates(shard, queries, min(k * spare, self.n), probes, allowed) for shard in self._shards]
        rows = np.full((len(queries), k), -1, np.int64)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        for line, query in enumerate(queries):
            near = np.concatenate([one[line] for one in found])
            near = np.sort(near[(near >= 0) & (near < self.n)])
            exact = inner(query[None], self._vectors[near])[0]
            order = np.argsort(-exact, kind="stable")[:k]
            rows[line, : len(order)], scores[line, : len(order)] = near[order], exact[order]
        return rows, scores

    def _candidates(
        self, shard: Any, queries: np.ndarray, wanted: int, probes: int, allowed: np.ndarray | None
    ) -> np.ndarray:
        faiss: Any = import_module("faiss")
        options = faiss.SearchParametersIVF(nprobe=min(probes, self.layout.lists))
        if allowed is not None:
            bits = np.packbits(allowed, bitorder="little")
            options.sel = faiss.IDSelectorBitmap(bits)
        out: np.ndarray = shard.search(queries, wanted, params=options)[1]
        return out

    def _opened(self, path: Path, shard: int, centroids: dict[str, np.ndarray]) -> Any:
        """A faiss index over the shard's mapped file, built from checked arrays."""
        faiss: Any = import_module("faiss")
        file = path / f"shard-{shard:04d}.lists"
        counts = load_file(path / f"shard-{shard:04d}.safetensors")["counts"]
        books = centroids["books"]
        index = _empty(self.dim, self.layout.lists, self.layout.bytes, books.shape[1])
        size = index.code_size + _ID
        first, last = _bounds(self.n, self.layout.shards, shard)
        fits = counts.shape == (self.layout.lists,) and counts.min(initial=0) >= 0
        if not fits or int(counts.sum()) != last - first or file.stat().st_size != size * (last - first):
            raise ArtifactError(f"{file} does not hold the lists of {last - first} items")
        index.quantizer.add(np.ascontiguousarray(centroids["lists"], np.float32))
        faiss.copy_array_to_vector(np.ascontiguousarray(books, np.float32).reshape(-1), index.pq.centroids)
        index.is_trained, index.ntotal = True, last - first
        lists = faiss.OnDiskInvertedLists(self.layout.lists, index.code_size, str(file))
        lists.read_only, lists.totsize = True, file.stat().st_size
        lists.lists = _places(counts, size)
        if last > first:
            lists.do_mmap()
        index.replace_invlists(lists, False)
        self._mapped.append(lists)  # the index does not own the lists; this reference keeps them alive
        return index


def _places(counts: np.ndarray, size: int) -> Any:
    """Offset and length of each list in faiss's own structure; `size` is the number of bytes per vector."""
    faiss: Any = import_module("faiss")
    out, offset = faiss.OnDiskOneListVector(), 0
    for count in counts.tolist():
        one = faiss.OnDiskOneList()
        one.size = one.capacity = count
        one.offset = offset
        out.push_back(one)
        offset += count * size
    return out


def recall(found: np.ndarray, exact: np.ndarray) -> float:
    """Mean share of the exact rows int[b, k] that are among the found ones int[b, m]."""
    return float(np.mean([len(set(one) & set(best)) / len(best) for one, best in zip(found, exact, strict=True)]))
