"""Lower bounds and costs of decoding: arithmetic, memory, and look-ups in the trie."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from llmrec.decoding.beam_search import beam_search
from llmrec.eval.bench.generate_baseline import K, ModelPair, linear_parameters
from llmrec.lm.rendering import Rendered
from llmrec.lm.runtime.hf_backend import build_transformer
from llmrec.lm.runtime.prefill import prefill
from llmrec.semantic_ids.trie import Trie

MASK_ITEMS = (10**4, 10**5, 10**6, 10**7)
MASK_BEAMS, MASK_DEPTH, MASK_SIZE = 50, 4, 64


def matmul_rate(seconds: float = 1.0) -> float:
    """float32 operations per second of the fastest matrix product here, an upper bound for the shapes of the layers."""
    best = 0.0
    for n in (1024, 2048):
        a, b = torch.randn(n, n), torch.randn(n, n)
        end = time.perf_counter() + seconds / 2
        while time.perf_counter() < end:
            start = time.perf_counter()
            torch.mm(a, b)
            best = max(best, 2 * n**3 / (time.perf_counter() - start))
    return best


def beam_search_flops(pair: ModelPair, prompts: list[Rendered], beams: int) -> float:
    """The minimum float32 operations of beam search over the trie, for shared prompts of one length.

    Counts two operations per matrix entry and token, and in attention four per component of each visible key. In the
    last layer, the prompt needs only keys, values and its last token. Item logits need only the codes of the current
    level.
    """
    config, trie, length = pair.lm.config, pair.trie, len(prompts[0].ids)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    layers = config.num_hidden_layers
    matrices = linear_parameters(pair.lm) / layers
    keys = 2 * config.hidden_size * config.num_key_value_heads * head_dim
    attention = 4 * config.num_attention_heads * head_dim  # per visible key and layer
    total = (layers - 1) * (2 * matrices * length + attention * length * (length + 1) / 2)
    total += 2 * keys * length + 2 * matrices + attention * length
    width = 1
    for level in range(trie.depth):
        total += 2 * width * config.hidden_size * trie.size
        width = min(beams, trie.nodes(level))
        if level < trie.depth - 1:
            total += layers * width * (2 * matrices + attention * (length + level + 1))
    return float(total * len(prompts))


def peak_bytes(call: Callable[[], Any]) -> int:
    """Peak tensor memory while `call` runs, in bytes above what was allocated before."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        call()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    events.sort(key=lambda e: e.start_ns())
    return int(np.cumsum([0, *(e.nbytes() for e in events)]).max())


def memory_ratio(pair: ModelPair, prompts: list[Rendered], beams: int) -> float:
    """Peak tensor memory of a decode with `beams` beams over that of reading the prompt alone, both without weights."""
    transformer = build_transformer(pair.bundle.lm)

    def prefill_only() -> None:
        with torch.inference_mode():
            prefill(pair.bundle, transformer, prompts, [0] * len(prompts))

    return peak_bytes(lambda: beam_search(pair.bundle, pair.trie, prompts, K, beams)) / peak_bytes(prefill_only)


def time_call(call: Callable[[], Any]) -> tuple[Any, float]:
    """Return the result of a call and the seconds it took."""
    start = time.perf_counter()
    value = call()
    return value, time.perf_counter() - start


@dataclass(frozen=True)
class MaskTime:
    """For a trie of `items`: seconds to build it, to narrow it to a filter, and of its slowest masking step."""

    items: int
    build: float
    narrow: float
    step: float


def mask_time(items: int, seed: int = 0, repeats: int = 200) -> MaskTime:
    """Time the trie look-ups of one level for 50 beams, with a filter that keeps a random half of `items`."""
    codes = random_paths(items, seed)
    start = time.perf_counter()
    trie = Trie(codes, MASK_SIZE)
    build = time.perf_counter() - start
    rng = np.random.default_rng(seed)
    allowed = rng.random(items) < 0.5
    start = time.perf_counter()
    item_filter = trie.filter(allowed)
    narrow = time.perf_counter() - start
    medians = []
    for level in range(MASK_DEPTH):
        spent = []
        for _ in range(repeats):
            nodes = rng.integers(0, 1 if level == 0 else trie.nodes(level - 1), MASK_BEAMS)
            start = time.perf_counter()
            child = trie.ranges(level, nodes)
            safe = np.maximum(child, 0)
            _ = trie.code[level][safe], trie.prior[level][safe], (child >= 0) & item_filter.reachable(level, safe)
            spent.append(time.perf_counter() - start)
        medians.append(float(np.median(spent)))
    return MaskTime(items, build, narrow, max(medians))


def random_paths(items: int, seed: int) -> npt.NDArray[np.uint8]:
    """uint8[items, 4] distinct random paths with 64 codes per level, in random order."""
    total = MASK_SIZE**MASK_DEPTH
    paths = np.random.default_rng(seed).permutation(np.arange(total, dtype=np.int32))[:items]
    return np.stack([paths >> 6 * (MASK_DEPTH - 1 - level) & 63 for level in range(MASK_DEPTH)], axis=1).astype(
        np.uint8
    )
