"""Writing a result that was measured elsewhere: plain values in, the one form of a result file out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from llmrec.eval.protocol import Estimate, Row, Target, provenance, write_result
from llmrec.eval.tables import show


def publish(
    path: Path,
    dataset: str,
    protocol: Mapping[str, Any],
    rows: Mapping[str, Mapping[str, tuple[float, float, float]]],
    targets: Mapping[str, float | None],
    seed: int,
    command: str,
    seconds: float,
    n: int,
    suite: str | None = None,
) -> None:
    """Check and write a result, then print it.

    Args:
        path: the file, `<suite>.json`.
        dataset: name of the data.
        protocol: how it was measured.
        rows: row -> metric -> (value, low, high).
        targets: name -> number, None when it was not measured.
        seed: the seed the command was given.
        command: as a person would type it, `llmrec ...`.
        seconds: wall-clock time of the measurement.
        n: how many things were measured.
        suite: its name, None for the file's stem.

    Raises:
        DataError: the result lacks a target that the file's name asks for.
    """
    lines = [
        Row(name, {m: Estimate(v, (low, high)) for m, (v, low, high) in one.items()}) for name, one in rows.items()
    ]
    named = [Target(name, value) for name, value in targets.items()]
    write_result(path, suite or path.stem, dataset, protocol, lines, named, provenance(seed, command, seconds, n))
    _print(rows, targets)


def _print(
    rows: Mapping[str, Mapping[str, tuple[float, float, float]]],
    targets: Mapping[str, float | None],
    console: Console | None = None,
) -> None:
    shown = [
        [name if not place else "", metric, f"{value:.4g}", f"{low:.4g} - {high:.4g}"]
        for name, metrics in rows.items()
        for place, (metric, (value, low, high)) in enumerate(metrics.items())
    ]
    out = console or Console(highlight=False)
    show(["", "", "value", "95 %"], shown, out, labels=2)
    for name, target in targets.items():
        out.print(f"{name}: {'not measured' if target is None else f'{target:.3g}'}")
