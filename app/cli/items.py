"""`llmrec items add` and `llmrec items drift`: adds new items by their text, and measures how well they fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmrec.app.cli.options import Data, ItemColumns, Model, with_item_columns
from llmrec.app.cli.printing import Json, echo, print_json, print_values
from llmrec.errors import RequestError

if TYPE_CHECKING:
    from llmrec.data.catalog import Item
    from llmrec.data.readers.table import ReadCounts
    from llmrec.semantic_ids.drift import Drift


@with_item_columns
def add(
    columns: ItemColumns,
    model: Model = None,
    items: Annotated[str, typer.Option(help="CSV, JSONL or Parquet file with the new items.")] = "",
    out: Annotated[Path | None, typer.Option(help="Model directory to write.")] = None,
    out_data: Annotated[
        Path | None,
        typer.Option(help="Prepared data to write; by default next to --out, with -data appended to its name."),
    ] = None,
    exact_ids: Annotated[bool, typer.Option(help="Compare ids exactly as written: 1.0 and 1 differ.")] = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Add new items by their text, without training. All other items keep their semantic IDs."""
    if out is None or not items:
        raise RequestError("say with --items which file holds the new items, and with --out where to write the model")
    out_data = out_data or out.with_name(f"{out.name}-data")
    if out_data.resolve() == out.resolve():
        raise RequestError(f"--out and --out-data are both {str(out)!r}; a model and its data are two directories")
    from llmrec.data.readers.table import ReadCounts, item_notes
    from llmrec.lifecycle.add_items import add_items_to_model
    from llmrec.progress import Screen
    from llmrec.recommender import SHIPPED

    counts = ReadCounts()
    found = _read_items(items, columns, counts)
    with Screen() as say:
        done = add_items_to_model(model or SHIPPED, found, out, out_data, data, exact_ids=exact_ids, say=say)
    print_values({"out": str(out), **done, "dropped": dict(counts.dropped), "notes": item_notes(counts)}, as_json)


@with_item_columns
def drift(
    columns: ItemColumns,
    model: Annotated[Path, typer.Option(help="Model directory.")],
    items: Annotated[str, typer.Option(help="CSV, JSONL or Parquet file with the new items.")],
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Measure how far new items lie from the codebook; exit code 1 when it should be rebuilt."""
    from llmrec.lifecycle.drift import measure_drift

    found = measure_drift(model, _read_items(items, columns), data)
    if as_json:
        print_json(asdict(found))
    else:
        echo("\n".join(_told(found)))
    if found.rebuild:
        raise typer.Exit(1)


def _told(found: Drift) -> Iterator[str]:
    """Yield a drift report, line by line."""
    from llmrec.semantic_ids.drift import MIN_NEW_ITEMS

    yield f"new items: {found.items}, beside {found.known} that the codebook was made for"
    yield f"error that the codebook leaves: {found.error_new:.2f} on new items, {found.error_known:.2f} on known ones"
    yield f"farther than 95 % of the known items: {found.far_share:.0%} of the new ones; 5 % are to be expected"
    yield f"nearest first code full: {found.crowded_share:.0%} of the new items"
    yield f"free paths: {found.free_share:.1%}"
    if not found.enough:
        little = f"shares and means of fewer than {MIN_NEW_ITEMS} new items say little"
        yield f"too few to tell: {little}, and decide nothing here"
    for reason in found.reasons:
        yield f"reason to rebuild: {reason}"
    yield "rebuild: yes, run llmrec train" if found.rebuild else "rebuild: no, llmrec items add will do"


def _read_items(file: str, columns: ItemColumns, counts: ReadCounts | None = None) -> list[Item]:
    """Read the items of a table; options override the mapping file."""
    from llmrec.data.readers.table import read_items
    from llmrec.data.readers.table_mapping import load_mapping

    named = {name: value for name, value in vars(columns).items() if name not in ("mapping", "item_id", "empty")}
    given: dict[str, Any] = {"file": file, "id": columns.item_id, **named, "empty": columns.empty or None}
    return read_items(load_mapping(columns.mapping, {"items": given}).items, counts)
