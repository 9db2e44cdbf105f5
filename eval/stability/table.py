"""The stability table as a person reads it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from llmrec.eval.protocol import Row
from llmrec.eval.tables import show

SHOWN = (("kendall_tau", "tau"), ("overlap@10", "overlap"), ("top1_flip", "flip"), ("ndcg@10", "ndcg"))


def print_table(rows: Sequence[Row], console: Console | None = None) -> None:
    """Print, for every row and group of variants, agreement and accuracy; intervals stand in the result file."""
    out, shown = console or Console(), []
    for row in rows:
        groups = dict.fromkeys(name.partition("/")[0] for name in row.metrics if "top1_flip" in name)
        for group in groups:
            cells = [_cell(row, f"{group}/{name}") for name, _ in SHOWN]
            shown.append([row.name, group, *cells, _cell(row, f"{group}/ndcg@10_spread")])
    show(["", "variants", *(label for _, label in SHOWN), "ndcg spread"], shown, console, labels=2)
    for row in rows:
        places = [f"{e.mean:.3f}" for name, e in sorted(row.metrics.items()) if name.startswith("position/ndcg")]
        if places:
            told = f"{row.name}: ndcg@10 with the true item in each quarter of the list:\n{', '.join(places)}"
            out.print(told, markup=False)


def _cell(row: Row, name: str) -> str:
    return f"{row.metrics[name].mean:.3f}" if name in row.metrics else ""
