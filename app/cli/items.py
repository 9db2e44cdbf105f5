"""`llmrec items add` and `llmrec items drift`: new items from their text alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmrec.app.cli.printing import Json, echo, print_json, print_values
from llmrec.errors import RequestError

if TYPE_CHECKING:
    from llmrec.data.catalog import Item
    from llmrec.data.readers.table import ReadCounts
    from llmrec.semantic_ids.drift import Drift

Mapping = Annotated[Path | None, typer.Option(help="TOML file that says what the columns mean.")]
ItemId = Annotated[str | None, typer.Option(help="Column of ids (item_id).")]
Title = Annotated[str | None, typer.Option(help="Column of titles (title).")]
Text = Annotated[str | None, typer.Option(help="Columns of description, a,b.")]
Category = Annotated[str | None, typer.Option(help="Columns of words, a,b or name=column.")]
Number = Annotated[str | None, typer.Option(help="Columns of numbers, such as year.")]
Data = Annotated[str | None, typer.Option(help="Prepared data; the model's own when left out.")]


def add(
    model: Annotated[Path | None, typer.Option(help="Model directory; the shipped model when left out.")] = None,
    items: Annotated[str, typer.Option(help="CSV, JSONL or Parquet with the new items.")] = "",
    out: Annotated[Path | None, typer.Option(help="Model directory to write.")] = None,
    out_data: Annotated[
        Path | None, typer.Option(help="Prepared data to write; beside --out, with -data behind its name, if unset.")
    ] = None,
    mapping: Mapping = None,
    item_id: ItemId = None,
    title: Title = None,
    text: Text = None,
    category: Category = None,
    number: Number = None,
    date: Annotated[str | None, typer.Option(help="Columns of days.")] = None,
    flag: Annotated[str | None, typer.Option(help="Columns of true and false.")] = None,
    separator: Annotated[str | None, typer.Option(help="Between words of a category in a text cell (|).")] = None,
    empty: Annotated[
        list[str] | None, typer.Option(help="Word that means no value in a column of numbers, days or flags.")
    ] = None,
    exact_ids: Annotated[bool, typer.Option(help="Take ids as written: 1.0 and 1 are different ones.")] = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Give new items semantic IDs from their text, without training; no other item's semantic ID changes."""
    if out is None or not items:
        raise RequestError("say with --items which file holds the new items, and with --out where to write the model")
    out_data = out_data or out.with_name(f"{out.name}-data")
    if out_data.resolve() == out.resolve():
        raise RequestError(f"--out and --out-data are both {str(out)!r}; a model and its data are two directories")
    from llmrec.data.readers.table import ReadCounts, item_notes
    from llmrec.lifecycle.add_items import add_items_to_model
    from llmrec.progress import Screen
    from llmrec.recommender import SHIPPED

    tally = ReadCounts()
    columns = {"id": item_id, "title": title, "text": text, "category": category, "number": number, "date": date}
    found = _read(mapping, items, tally, **columns, flag=flag, separator=separator, empty=empty or None)
    with Screen() as say:
        done = add_items_to_model(model or SHIPPED, found, out, out_data, data, exact_ids=exact_ids, say=say)
    print_values({"out": str(out), **done, "dropped": dict(tally.dropped), "notes": item_notes(tally)}, as_json)


def drift(
    model: Annotated[Path, typer.Option(help="Model directory.")],
    items: Annotated[str, typer.Option(help="CSV, JSONL or Parquet with the new items.")],
    mapping: Mapping = None,
    item_id: ItemId = None,
    title: Title = None,
    text: Text = None,
    category: Category = None,
    number: Number = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Say how far new items lie from the codebook; exit code 1 when it should be made again."""
    from llmrec.lifecycle.drift import measure_drift

    new = _read(mapping, items, id=item_id, title=title, text=text, category=category, number=number)
    found = measure_drift(model, new, data)
    if as_json:
        print_json(asdict(found))
    else:
        echo("\n".join(_told(found)))
    if found.rebuild:
        raise typer.Exit(1)


def _told(found: Drift) -> Iterator[str]:
    """A report of drift, line by line."""
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


def _read(
    mapping: Path | None, file: str, tally: ReadCounts | None = None, **columns: str | list[str] | None
) -> list[Item]:
    """The items of a table; flags win over the mapping."""
    from llmrec.data.readers.table import read_items
    from llmrec.data.readers.table_mapping import load_mapping

    given: dict[str, Any] = {"items": {"file": file, **columns}}
    return read_items(load_mapping(mapping, given).items, tally)
