"""Benchmarks ranking over synthetic catalogues of ten thousand to ten million items, on the model's real layers.

Paths are random, with four levels of 64 codes. The other score components, which a real model fits to its data, are
simulated: the logarithm of a Zipf share (for popularity) plus Gaussian noise of two nats (for differences between
users). Item vectors for the index on disk are drawn around a thousand centres with noise: vectors without structure
cannot be quantised, and those of a trained encoder have much structure.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from llmrec.batch.ranker import one_thread
from llmrec.decoding.exact_search import exact_search
from llmrec.decoding.trie_scoring import DecodeState
from llmrec.eval.bench.decoding_costs import MASK_DEPTH, MASK_SIZE, random_paths
from llmrec.eval.bench.disk_index import DiskIndex, build, recall
from llmrec.eval.bench.generate_baseline import plain_copy, random_prompts
from llmrec.lm.model import ModelConfig, RecModel
from llmrec.ranker import top_k
from llmrec.recommender import Recommender
from llmrec.semantic_ids.residual_kmeans import SemanticIds
from llmrec.semantic_ids.trie import Trie, log_mass

Interval = tuple[float, float, float]
SIZES = (10**4, 10**5, 10**6, 10**7)
PROMPT, REQUESTS, K = 100, 8, 10
LARGE, LARGE_REQUESTS = 10**7, 3  # one request over that many items takes more than half a minute
DIM, CENTRES, QUERIES = 64, 1000, 100
CANDIDATES = 500
PROBES = (1 / 64, 1 / 16)


def scaling_rows(
    recommender: Recommender, sizes: Sequence[int], seed: int, console: Console
) -> Iterator[tuple[str, dict[str, Interval]]]:
    """Yield a named row per catalogue size: ranking all items, ranking candidates, finding candidates on disk."""
    for items in sizes:
        console.print(f"a catalogue of {items} items")
        values = benchmark_ranking(recommender, items, seed)
        console.print(f"an index of {items} vectors")
        yield f"catalogue_{items}", values | benchmark_index(items, seed)


def benchmark_ranking(recommender: Recommender, items: int, seed: int) -> dict[str, Interval]:
    """Measure one single-threaded request over all items and over `CANDIDATES`, the trie, and the tokens read."""
    codes = random_paths(items, seed).astype(np.int32)
    rng = np.random.default_rng(seed)
    book = rng.normal(size=(MASK_DEPTH, MASK_SIZE, 16)).astype(np.float32)
    lm = plain_copy(recommender.model.lm)
    config = ModelConfig(lora_rank=1, lora_alpha=1)
    bundle = RecModel(lm, recommender.model.tokenizer, SemanticIds(codes, book), recommender.model.encoder, config)
    bundle.init_embeddings(rng.normal(size=(bundle.encoder.config.dim, 16)), seed)
    bundle.merge()
    begin = time.perf_counter()
    trie = Trie(codes, MASK_SIZE, log_mass(np.bincount(rng.zipf(1.5, 4 * items) % items, minlength=items)))
    built = time.perf_counter() - begin
    fame = np.log(1.0 / (1.0 + rng.permutation(items)))
    spent: dict[str, list[float]] = {"dense_seconds": [], "all_seconds": [], "candidates_seconds": []}
    tokens: dict[str, list[int]] = {"all": [], "candidates": []}
    requests = REQUESTS if items < LARGE else LARGE_REQUESTS
    with one_thread():
        for prompt in random_prompts(bundle, requests + 1, PROMPT, seed):
            rest = fame + 2.0 * rng.normal(size=items)
            few = np.zeros(items, bool)
            begin = time.perf_counter()
            few[top_k(rest[None].astype(np.float32), min(CANDIDATES, items))[0][0]] = True
            spent["dense_seconds"].append(time.perf_counter() - begin)
            for name, allowed in (("all", np.ones(items, bool)), ("candidates", few)):
                begin = time.perf_counter()
                state = DecodeState(bundle, trie, prompt)
                exact_search(state, rest, 1.0, K, allowed)
                spent[f"{name}_seconds"].append(time.perf_counter() - begin)
                tokens[name].append(state.tokens)
    out = {name: _spread(values[1:]) for name, values in spent.items()}  # the first one is a warm-up
    out |= {f"{name}_tokens": _spread(values[1:]) for name, values in tokens.items()}
    return out | {"trie_build_seconds": (built, built, built)}


def benchmark_index(items: int, seed: int) -> dict[str, Interval]:
    """Measure the disk index: recall at 100 against exact search, seconds per query (one thread) and to build (all)."""
    out: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="llmrec-index-") as name:
        vectors = np.lib.format.open_memmap(Path(name) / "vectors.npy", "w+", np.float32, (items, DIM))
        centres = np.random.default_rng(seed).normal(size=(CENTRES, DIM)).astype(np.float32)
        for start in range(0, items, 10**5):
            stop = min(start + 10**5, items)
            rng = np.random.default_rng([seed, start])
            vectors[start:stop] = centres[rng.integers(0, CENTRES, stop - start)]
            vectors[start:stop] += rng.normal(0, 0.7, (stop - start, DIM)).astype(np.float32)
        queries = vectors[np.random.default_rng([seed, 1]).integers(0, items, QUERIES)] + np.float32(0.1)
        begin = time.perf_counter()
        build(Path(name) / "index", vectors, seed=seed)
        out["index_build_seconds"] = time.perf_counter() - begin
        disk = DiskIndex(Path(name) / "index", verify=False)
        with one_thread():
            exact, out["exact_query_seconds"] = _exact(vectors, queries, 100)
            for share in PROBES:
                probes = max(1, int(disk.layout.lists * share))
                disk.search(queries[:2], 100, probes)
                begin = time.perf_counter()
                rows, _ = disk.search(queries, 100, probes)
                out[f"query_seconds_1_of_{round(1 / share)}"] = (time.perf_counter() - begin) / QUERIES
                out[f"recall100_1_of_{round(1 / share)}"] = recall(rows, exact)
        out["bytes_an_item_in_lists"] = disk.layout.bytes + 8
    return {name: (value, value, value) for name, value in out.items()}


def _exact(vectors: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, float]:
    """Return the k best rows of every query by exhaustive search, and the seconds per query."""
    best = np.full((len(queries), k), -np.inf, np.float32)
    rows = np.full((len(queries), k), -1, np.int64)
    begin = time.perf_counter()
    for start in range(0, len(vectors), 10**5):
        scores = np.concatenate([best, queries @ vectors[start : start + 10**5].T], axis=1)
        known = np.concatenate([rows, np.tile(np.arange(start, start + scores.shape[1] - k), (len(queries), 1))], 1)
        order = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        best, rows = np.take_along_axis(scores, order, 1), np.take_along_axis(known, order, 1)
    return rows, (time.perf_counter() - begin) / len(queries)


def _spread(values: Sequence[float]) -> Interval:
    return float(np.median(values)), float(min(values)), float(max(values))
