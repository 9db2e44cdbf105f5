"""The accuracy table as a person reads it; everything else stands in the result file."""

from rich.console import Console

from llmrec.eval.accuracy.suite import MAIN, OF_FEW, AccuracyTable
from llmrec.eval.protocol import Estimate
from llmrec.eval.tables import show

EXTRA = ("coverage@10", "ndcg@10/seen_kept", f"recall@1/{OF_FEW}", "ndcg@10/cold")


def print_table(table: AccuracyTable, console: Console | None = None) -> None:
    """Print the main means with intervals, a few others, p against the reference, and how it was measured."""
    p, rows = table.p(MAIN[1]), []
    for name, estimates in table.estimates.items():
        cells = [_cell(estimates[metric], True) for metric in MAIN]
        cells += [_cell(estimates[metric], False) if metric in estimates else "" for metric in EXTRA]
        rows.append([_named(table, name), *cells, f"{p[name]:.4f}" if name in p else ""])
    show(["", *MAIN, *EXTRA, f"p vs {table.reference}"], rows, console)
    out = console or Console()
    for key, value in table.measured.protocol.items():
        out.print(f"{key} {value}", markup=False)


def _named(table: AccuracyTable, row: str) -> str:
    """Of how many users a row is, where it is not of all."""
    asked = table.measured.asked(row)
    return row if asked.all() else f"{row} ({asked.sum()} users)"


def _cell(estimate: Estimate, interval: bool) -> str:
    low, high = estimate.ci95
    return f"{estimate.mean:.4f}" + (f" ({low:.4f}-{high:.4f})" if interval else "")
