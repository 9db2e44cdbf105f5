"""Benchmarks decoding of items and text against transformers' `generate` on the same weights.

Both sides get the same prompts in one run, taking turns, and must return the same items. The reference decodes the same
item tokens as rows of its vocabulary, restricted by `prefix_allowed_tokens_fn` and normalised over the allowed tokens.
Where it would take too long, it is run fewer times, or run for one user and scaled up; each row says so.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from llmrec.eval.bench import decoding_costs
from llmrec.eval.bench.generate_baseline import (
    DEPTH,
    ITEMS,
    SIZE,
    ModelPair,
    load_merged,
    plain_copy,
    random_prompts,
    synthetic_pair,
)
from llmrec.eval.bench.text_generation import TextSpeed, perplexity_ratio, text_speed
from llmrec.eval.result_file import Estimate, Row, Target, provenance, write_result
from llmrec.eval.retention.benchmarks import WIKITEXT
from llmrec.lm.model import RecModel

BEAMS, LENGTHS, USERS = (10, 20, 50), (64, 256, 1024), (1, 16)
REPEATS = 5
# Time limit in seconds for one side of one cell. The cells that targets depend on have time for all repeats.
CELL_SECONDS, TARGET_SECONDS = 25.0, 150.0
TARGET_CELLS = {(10, 256, 1), (50, 256, 1)}
QUICK = (20, 128, 1)
PROTOCOL = (
    "Medians of up to 5 interleaved runs in one process; ci95 holds the fastest and the slowest run (for 5 runs a 94 % "
    "interval of the median). Fewer runs where 5 would take over the cell's limit; where 16 users would take the "
    "reference over it, 16 times its runs of one user in the cell before count (reference_users says how many were "
    "run). float32. Prompts: random words and item tokens, no user slot, nothing known before. floor: operations "
    "counted over the rate of the fastest matrix product measured in the same run."
)


@dataclass(frozen=True)
class Cell:
    """Seconds of both sides in one setting; `reference_users` is the number of users for whom the reference was run."""

    beams: int
    length: int
    users: int
    ours: list[float]
    reference: list[float]
    reference_users: int
    same_items: float
    floor: float
    expected: tuple[tuple[int, ...], ...]

    @property
    def name(self) -> str:
        """The name of the row."""
        return f"beams{self.beams}_prompt{self.length}_users{self.users}"

    @property
    def speedup(self) -> float:
        """Median time of the reference divided by ours."""
        return float(np.median(self.reference) / np.median(self.ours))

    @property
    def floor_ratio(self) -> float:
        """Our median time divided by the arithmetic lower bound."""
        return float(np.median(self.ours)) / self.floor

    def row(self) -> Row:
        """The row in the result file."""
        numbers = {
            "speedup": self.speedup,
            "floor_seconds": self.floor,
            "floor_ratio": self.floor_ratio,
            "same_items": self.same_items,
            "repeats": len(self.ours),
            "reference_repeats": len(self.reference),
            "reference_users": self.reference_users,
        }
        metrics = {name: _number(value) for name, value in numbers.items()}
        return Row(self.name, metrics | {"seconds": _median(self.ours), "reference_seconds": _median(self.reference)})


def benchmark_decoding(
    model: str | Path | None, out: Path, quick: bool = False, seed: int = 0, data_dir: Path | None = None
) -> None:
    """Measure, print, and write `bench-decode.json` with its plot to `out`; `quick` measures one cell, writes nothing.

    The last line of a quick run is `decode_speedup_vs_generate: X`, for 20 beams and a prompt of 128 tokens. With the
    language benchmarks in `data_dir`, the ratio of the WikiText-2 perplexity in eight bits to that in float32 is
    measured, too.

    Raises:
        UserError: the model does not exist, `generate` does not support item tokens for its architecture, or `data_dir`
            lacks WikiText-2.
    """
    started = time.monotonic()
    text = None if data_dir is None else WIKITEXT.find(data_dir)[0]
    console = Console(stderr=True)
    console.print("loading the model")
    bundle, name = load_merged(None if model is None else Path(model))
    pair = synthetic_pair(bundle, seed)
    rate = decoding_costs.matmul_rate()
    _warm(pair, seed)
    if quick:
        cell = measure(pair, *QUICK, rate=rate, seed=seed, limit=10.0)
        _print(cell)
        print(f"decode_speedup_vs_generate: {cell.speedup:.2f}")
        return
    cells: list[Cell] = []
    for users, length, beams in ((u, n, b) for u in USERS for n in LENGTHS for b in BEAMS):
        limit = TARGET_SECONDS if (beams, length, users) in TARGET_CELLS else CELL_SECONDS
        one = next((c for c in cells if (c.beams, c.length, c.users) == (beams, length, 1)), None)
        cells.append(measure(pair, beams, length, users, rate, seed, limit, one))
        _print(cells[-1])
    others = _others(pair, bundle, text, console, seed)
    named = "" if data_dir is None else f" --data-dir {data_dir.name}"
    _write(cells, others, rate, name, out, seed, time.monotonic() - started, named)


def _warm(pair: ModelPair, seed: int) -> None:
    prompts = random_prompts(pair.bundle, 1, 16, seed)
    pair.ours(prompts, 2)
    pair.reference(prompts, 2)


def measure(
    pair: ModelPair,
    beams: int,
    length: int,
    users: int,
    rate: float,
    seed: int,
    limit: float,
    alone: Cell | None = None,
) -> Cell:
    """Time one setting, each side within about `limit` seconds; the sides take turns.

    `alone` is the same setting for one user. Its reference runs are used where running all users would take too long.
    """
    prompts = random_prompts(pair.bundle, users, length, seed)
    need = decoding_costs.beam_search_flops(pair, prompts, beams)
    one = (
        decoding_costs.beam_search_flops(pair, prompts[:1], 1) / rate * beams * 1.5
    )  # time limit of `generate` per user
    shown = prompts if one * users <= limit else prompts[:1]
    factor = users / len(shown)
    repeats = _repeats(limit, need / rate * 1.5)
    before = alone if len(shown) == 1 else None
    references = 0 if before else _repeats(limit, one * len(shown))
    ours: list[float] = []
    reference = [factor * s for s in before.reference] if before else []
    expected = before.expected if before else ()
    for turn in range(max(repeats, references)):
        if turn < references:
            named, seconds = decoding_costs.time_call(lambda: pair.reference(shown, beams))
            expected = tuple(tuple(int(row) for row in rows) for rows in named)
            reference.append(seconds * factor)
        if turn < repeats:
            found, seconds = decoding_costs.time_call(lambda: pair.ours(prompts, beams))
            ours.append(seconds)
    same = [len(set(rows) & set(others)) / len(others) for rows, others in zip(found, expected, strict=False)]
    share = float(np.mean(same))
    return Cell(beams, length, users, ours, reference, len(shown), share, need / rate, expected)


def _repeats(limit: float, seconds: float) -> int:
    return int(np.clip(limit // seconds, 1, REPEATS))


def _number(value: float) -> Estimate:
    return Estimate(float(value), (float(value), float(value)))


def _median(values: Sequence[float]) -> Estimate:
    return Estimate(float(np.median(values)), (min(values), max(values)))


@dataclass(frozen=True)
class _Others:
    text: TextSpeed
    memory: float
    masks: list[decoding_costs.MaskTime]
    perplexity: float | None


def _others(pair: ModelPair, bundle: RecModel, source: Path | None, console: Console, seed: int) -> _Others:
    console.print("words")
    text = text_speed(bundle, plain_copy(bundle.lm), tokens=64, repeats=3)
    print(f"words: {text.reference:.1f} tokens/s generate, {text.float32:.1f} float32, {text.int8 or 0:.1f} int8")
    memory = decoding_costs.memory_ratio(pair, random_prompts(pair.bundle, 1, 256, seed), 50)
    console.print("tries of up to ten million items")
    masks = [decoding_costs.mask_time(n, seed) for n in decoding_costs.MASK_ITEMS]
    for one in masks:
        print(
            f"trie of {one.items}: built in {one.build:.2f} s, filter {one.narrow:.3f} s, step {one.step * 1e6:.0f} us"
        )
    ratio = perplexity_ratio(bundle, source, seed=seed) if source and text.int8 else None
    return _Others(text, memory, masks, ratio)


def _write(
    cells: list[Cell], others: _Others, rate: float, name: str, out: Path, seed: int, seconds: float, named: str
) -> None:
    by = {(cell.beams, cell.length, cell.users): cell for cell in cells}
    text = others.text
    words = {
        "generate_tokens_per_s": text.reference,
        "float32_tokens_per_s": text.float32,
        "same_words": text.same_words,
        **({"int8_tokens_per_s": text.int8} if text.int8 else {}),
        **({"int8_perplexity_ratio": others.perplexity} if others.perplexity else {}),
    }
    rows = [cell.row() for cell in cells]
    rows.append(Row("words", {metric: _number(value) for metric, value in words.items()}))
    for one in others.masks:
        values = {"build_seconds": one.build, "narrow_seconds": one.narrow, "step_seconds": one.step}
        rows.append(Row(f"trie_{one.items}", {metric: _number(value) for metric, value in values.items()}))
    targets = [
        Target("speedup_beams50_prompt256", by[50, 256, 1].speedup),
        Target("speedup_beams10_prompt256", by[10, 256, 1].speedup),
        Target("floor_ratio_beams50_users16", by[50, 256, 16].floor_ratio),
        Target("text_speedup_fp32", text.float32 / text.reference),
        Target("text_speedup_int8", text.int8 / text.reference if text.int8 else None),
        Target("peak_memory_ratio_beams50", others.memory),
        Target("mask_time_1e7_over_1e4", others.masks[-1].step / others.masks[0].step),
    ]
    protocol = {"how": PROTOCOL, "model": name, "items": ITEMS, "depth": DEPTH, "codes": SIZE, "gflops": rate / 1e9}
    command = f"llmrec bench{named}" + (f" --seed {seed}" if seed else "")
    proof = provenance(seed, command, seconds, sum(len(cell.ours) for cell in cells))
    write_result(out / "bench-decode.json", "bench-decode", "synthetic", protocol, rows, targets, proof)
    plot_speedups(cells, out / "bench-decode.svg")
    for target in targets:
        print(f"{target.name}: {target.value if target.value is None else round(target.value, 3)}")


def _print(cell: Cell) -> None:
    print(
        f"{cell.name}: {np.median(cell.ours):.3f} s, generate {np.median(cell.reference):.2f} s "
        f"({cell.speedup:.1f} x), {cell.floor_ratio:.2f} x the floor, same items {cell.same_items:.2f}",
        flush=True,
    )


def plot_speedups(cells: Sequence[Cell], path: Path) -> None:
    """Write an SVG of speed-ups, with one panel per number of users and one line per prompt length."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    users = sorted({cell.users for cell in cells})
    figure, panels = pyplot.subplots(1, len(users), figsize=(4.5 * len(users), 3.6), sharey=True, squeeze=False)
    for panel, number in zip(panels[0], users, strict=True):
        for length in sorted({cell.length for cell in cells}):
            line = sorted((c for c in cells if c.users == number and c.length == length), key=lambda c: c.beams)
            panel.plot([c.beams for c in line], [c.speedup for c in line], marker="o", label=f"{length} tokens")
        panel.set(title=f"{number} user{'s' if number > 1 else ''}", xlabel="beams", yscale="log")
        panel.set_xticks(sorted({cell.beams for cell in cells}))
        panel.grid(alpha=0.3)
    panels[0][0].set_ylabel("times faster than generate")
    panels[0][0].legend(title="prompt", frameon=False)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})  # makes the file reproducible from the same numbers
    pyplot.close(figure)
