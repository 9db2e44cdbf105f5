"""Benchmarks speed and memory of the training engine against transformers' Trainer on the same model and data.

Each side runs in its own process, so that its peak memory can be measured separately. The sides take turns step by
step, so that a busy machine slows all of them equally. Before and after the engine's steps, this process measures the
rate of plain matrix products at the model's shapes. The arithmetic floor of a step is the time that its counted
operations (`cost.pack_flops`) take at that rate. All sides compute in float32. If the processor multiplies faster in
bfloat16, the engine is also measured in bfloat16, as a separate side.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from llmrec.data.dataset import dataset_directory
from llmrec.errors import UserError
from llmrec.finetune.base_model_info import check_architecture, find_base_model
from llmrec.finetune.bench.sides import ENGINE, FAST, MIX, TRAINER, Job, Step, serve
from llmrec.finetune.bench.trainer_baseline import WINDOW
from llmrec.finetune.plan.cost import DecoderShape, decoder_shape, matmul_rate
from llmrec.finetune.recipe import load_recipe
from llmrec.lm.runtime.onednn import fastest_matmul_dtype

_WARM = 1  # untimed steps: the first one allocates and warms the caches
_ROUNDS, _QUICK_ROUNDS = 7, 2
_RATE_SECONDS, _QUICK_RATE_SECONDS = 0.4, 0.2
_RESAMPLES = 2000

Interval = tuple[float, float, float]  # middle, low, high


@dataclass(frozen=True)
class TrainingBenchmark:
    """Result of a benchmark run as plain values.

    Attributes:
        rows: side -> metric -> (median, low, high).
        targets: the four figures that the project sets targets for.
        protocol: how the figures were measured.
        steps: number of timed optimizer steps of all sides.
        seconds: duration of the whole run.
    """

    rows: Mapping[str, Mapping[str, Interval]]
    targets: Mapping[str, float]
    protocol: Mapping[str, Any]
    steps: int
    seconds: float


def benchmark_training(
    recipe: str | Path = "ml-100k", data: str = "ml-100k", quick: bool = False, seed: int = 0
) -> TrainingBenchmark:
    """Run the benchmark on this machine; `quick` makes fewer rounds and leaves out the full mix.

    Raises:
        UserError: the data, recipe or base model cannot be used.
    """
    start = time.monotonic()
    console = Console(stderr=True)
    settings = load_recipe(recipe)
    dataset_directory(data)  # fetched once here, not by every side
    config = find_base_model(settings.base).config
    check_architecture(config)
    body = decoder_shape(config)
    rounds = _QUICK_ROUNDS if quick else _ROUNDS
    job = Job(settings, data, _WARM + rounds, seed, torch.get_num_threads())
    names = (
        (ENGINE, TRAINER)
        if quick
        else (ENGINE, TRAINER, MIX, *((FAST,) if fastest_matmul_dtype() == "bfloat16" else ()))
    )
    taken = _take_turns(job, names, body, _QUICK_RATE_SECONDS if quick else _RATE_SECONDS, console)
    rows, targets = summarise(taken, seed)
    protocol = {
        "recipe": str(recipe),
        "rounds": rounds,
        "warm_up_steps": _WARM,
        "threads": job.threads,
        "precision": "float32",
        "pack_tokens": settings.traffic.pack_tokens,
        "lora_rank": settings.model.lora_rank,
        "window": {"engine": settings.traffic.window, "usual": WINDOW},
        "values": "median of the rounds with a bootstrap 95 % interval; ratios are taken round by round",
        "tokens": "without padding; a target is one item",
        "step": "forward, backward, clipping, optimizer; making of batches is left out on every side",
        "memory": "high-water mark of each side's own process, libraries and base model included",
        "floor": "counted operations / matrix-product rate at the model's shapes, measured just before and after the "
        "step, each part in its own number format; floor_ratio is the step's seconds over it",
        "usual": "transformers Trainer, peft LoRA, item tokens as added rows of the vocabulary, one right-padded row "
        "for each target, softmax over all words and items",
        "stand_ins": "codes, user vectors and replay text are untrained: no cost depends on their values",
    }
    timed = rounds * len(names)
    return TrainingBenchmark(rows, targets, protocol, timed, time.monotonic() - start)


@dataclass(frozen=True)
class SideMeasurements:
    """Measurements of one side.

    Attributes:
        steps: the timed steps.
        floors: seconds that each step's operations would take at the rate of plain matrix products; 0 if not counted.
        rates: float32 operations per second of plain matrix products around each step.
        loaded: memory in bytes when everything was loaded.
        peak: peak memory in bytes.
    """

    steps: Sequence[Step]
    floors: Sequence[float]
    rates: Sequence[float]
    loaded: int
    peak: int


def _take_turns(
    job: Job, names: Sequence[str], body: DecoderShape, seconds: float, console: Console
) -> dict[str, SideMeasurements]:
    """Let every side make one step per round; the order reverses from round to round."""
    steps: dict[str, list[Step]] = {name: [] for name in names}
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    with _processes(job, names) as lines:
        loaded = {name: int(_receive(lines[name], name)) for name in names}
        for number in range(job.steps):
            for name in names if number % 2 else names[::-1]:
                before = _rates(job, name, body, seconds)
                lines[name].send("step")
                step = _receive(lines[name], name)
                after = _rates(job, name, body, seconds)
                if number >= _WARM:
                    steps[name].append(step)
                    rates[name].append(((before[0] + after[0]) / 2, (before[1] + after[1]) / 2))
            console.print(f"round {number + 1} of {job.steps}", highlight=False)
        peaks = {name: int(_receive(lines[name], name)) for name in names}
    out = {}
    for name in names:
        pairs = list(zip(steps[name], rates[name], strict=True))
        floors = [s.frozen / fast + (s.flops - s.frozen) / plain for s, (plain, fast) in pairs]
        out[name] = SideMeasurements(
            steps[name], floors, [plain for plain, _ in rates[name]], loaded[name], peaks[name]
        )
    return out


def _rates(job: Job, name: str, body: DecoderShape, seconds: float) -> tuple[float, float]:
    """Return the rates of float32 products and of products in the side's own number format.

    For the Trainer baseline, whose operations are not counted, both are 1.
    """
    tokens = job.recipe.traffic.pack_tokens
    if name == TRAINER:
        return 1.0, 1.0
    plain = matmul_rate(body, tokens, seconds)
    return plain, matmul_rate(body, tokens, seconds, "bfloat16") if name == FAST else plain


@contextmanager
def _processes(job: Job, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Start a fresh interpreter for each side, without this process's memory, and yield the connections to them."""
    context = multiprocessing.get_context("spawn")
    lines: dict[str, Any] = {}
    with ExitStack() as stack:
        for name in names:
            mine, theirs = context.Pipe()
            process = context.Process(target=serve, args=(theirs, name, job), daemon=True)
            process.start()
            theirs.close()
            stack.callback(_end, process)
            lines[name] = stack.enter_context(mine)  # closed before the join: a waiting side then ends
        yield lines


def _end(process: Any) -> None:
    process.join(timeout=5)
    if process.is_alive():
        process.terminate()
        process.join()


def _receive(line: Any, name: str) -> Any:
    try:
        value = line.recv()
    except EOFError:
        raise RuntimeError(f"the side '{name}' of the bench ended early; its own message stands above") from None
    if isinstance(value, UserError):
        raise value
    return value


def summarise(
    taken: Mapping[str, SideMeasurements], seed: int
) -> tuple[dict[str, dict[str, Interval]], dict[str, float]]:
    """Compute rows and targets from the measurements of the sides, which must include `engine` and `usual`."""
    rng = np.random.default_rng(seed)
    rows: dict[str, dict[str, Interval]] = {}
    for name, one in taken.items():
        seconds = np.array([step.seconds for step in one.steps])
        tokens, items = (np.array([getattr(s, what) for s in one.steps]) for what in ("tokens", "targets"))
        rows[name] = {
            "seconds_per_step": median_interval(seconds, rng),
            "tokens_per_step": median_interval(tokens, rng),
            "targets_per_step": median_interval(items, rng),
            "tokens_per_s": median_interval(tokens / seconds, rng),
            "targets_per_s": median_interval(items / seconds, rng),
            "loaded_memory_gb": (one.loaded / 1e9,) * 3,
            "peak_memory_gb": (one.peak / 1e9,) * 3,
        }
        if all(one.floors):
            rows[name]["floor_ratio"] = median_interval(seconds / np.array(one.floors), rng)
            rows[name]["product_gflops"] = median_interval(np.array(one.rates) / 1e9, rng)
    rows["ratios"] = _ratios(taken[ENGINE], taken[TRAINER], rng)
    ratios = rows["ratios"]
    targets = {f"{name}_ratio": ratios[name][0] for name in ("targets_per_s", "tokens_per_s", "peak_memory")}
    return rows, {**targets, "floor_ratio": rows[ENGINE]["floor_ratio"][0]}


def _ratios(ours: SideMeasurements, theirs: SideMeasurements, rng: np.random.Generator) -> dict[str, Interval]:
    """Compute the ratios of the engine to the Trainer baseline, round by round."""

    def rate(one: SideMeasurements, what: str) -> np.ndarray:
        return np.array([getattr(step, what) / step.seconds for step in one.steps])

    return {
        "targets_per_s": median_interval(rate(ours, "targets") / rate(theirs, "targets"), rng),
        "tokens_per_s": median_interval(rate(ours, "tokens") / rate(theirs, "tokens"), rng),
        "peak_memory": (ours.peak / theirs.peak,) * 3,
    }


def median_interval(values: np.ndarray, rng: np.random.Generator) -> Interval:
    """Return (median, low, high) of float[m]; the 95 % interval is that of the median over bootstrap samples."""
    drawn = np.median(values[rng.integers(0, len(values), (_RESAMPLES, len(values)))], axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(np.median(values)), float(low), float(high)
