"""Report section on conversations: whether messages were understood, remembered and answered, by act, and latencies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from llmrec.eval.report.page import Block, Paragraph, Section, Table
from llmrec.eval.report.results import Result, merge_results
from llmrec.eval.report.sections import bars, protocol_paragraph, sources

_ALL = ("turns", "turns in words put aside")
_ACT = "act "


def conversation(results: Sequence[Result], folder: Path) -> list[Section]:
    """Measures over all turns, filters and references by act, and latencies."""
    rows, source, stem = merge_results(results), sources(results), results[0].path.stem
    over = [name for name in _ALL if name in rows]
    metrics = list(dict.fromkeys(metric for name in over for metric in rows[name]))
    main = [[metric, *(_cell(rows[name].get(metric)) for name in over)] for metric in metrics]
    clock = {name: own for name, own in rows.items() if "p95_seconds" in own}
    acts = {name.removeprefix(_ACT): own for name, own in rows.items() if name.startswith(_ACT)}
    shown = {name: own["filters_as_meant"] for name, own in acts.items() if "filters_as_meant" in own}
    blocks: list[Block] = [Paragraph(protocol_paragraph(results[0].protocol)), Table(["", *over], main, source)]
    for name in (one.replace("turns", "dialogues") for one in over):
        shares = [[metric, _cell(value)] for metric, value in rows.get(name, {}).items()]
        blocks.append(Table([name, "share"], shares, source))
    series = {"filters as meant": list(shown.values())}
    title = "Turns after which the active filters are those that were meant, by act"
    blocks.append(bars(folder / f"{stem}.svg", list(shown), series, "share of turns", title, source))
    seconds = [
        [name, f"{own['p50_seconds'].mean:.2f}", f"{own['p95_seconds'].mean:.2f}"] for name, own in clock.items()
    ]
    return [
        Section(f"Conversation, {results[0].dataset}", blocks),
        Section(f"Conversation, {results[0].dataset}: seconds", [Table(["", "p50", "p95"], seconds, source)]),
    ]


def _cell(value: object) -> str:
    mean, ends = getattr(value, "mean", None), getattr(value, "ci95", None)
    if mean is None or ends is None:
        return ""
    return f"{mean:.3f}" if ends[0] == ends[1] else f"{mean:.3f} ({ends[0]:.3f} to {ends[1]:.3f})"
