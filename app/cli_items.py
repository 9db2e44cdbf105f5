"""`llmrec items add`: new items from their text alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from llmrec.app.cli_print import Json, print_values
from llmrec.errors import RequestError


def add(
    model: Annotated[Path | None, typer.Option(help="Model directory; the shipped model when left out.")] = None,
    items: Annotated[str, typer.Option(help="CSV, JSONL or Parquet with the new items.")] = "",
    out: Annotated[Path | None, typer.Option(help="Model directory to write.")] = None,
    out_data: Annotated[
        Path | None, typer.Option(help="Prepared data to write; beside --out, with -data behind its name, if unset.")
    ] = None,
    mapping: Annotated[Path | None, typer.Option(help="TOML file that says what the columns mean.")] = None,
    item_id: Annotated[str | None, typer.Option(help="Column of ids [item_id].")] = None,
    title: Annotated[str | None, typer.Option(help="Column of titles [title].")] = None,
    text: Annotated[str | None, typer.Option(help="Columns of description, a,b.")] = None,
    category: Annotated[str | None, typer.Option(help="Columns of words, a,b or name=column.")] = None,
    number: Annotated[str | None, typer.Option(help="Columns of numbers, such as year.")] = None,
    data: Annotated[str | None, typer.Option(help="Prepared data; the model's own when left out.")] = None,
    as_json: Json = False,
) -> None:
    """Give new items semantic IDs from their text, without training; no other item's semantic ID changes."""
    if out is None or not items:
        raise RequestError("say with --items which file holds the new items, and with --out where to write the model")
    out_data = out_data or out.with_name(f"{out.name}-data")
    if out_data.resolve() == out.resolve():
        raise RequestError(f"--out and --out-data are both {str(out)!r}; a model and its data are two directories")
    from llmrec.newitems import add_to_model
    from llmrec.recommend import SHIPPED
    from llmrec.table import read_items
    from llmrec.table_mapping import load_mapping

    columns: dict[str, Any] = {
        "file": items, "id": item_id, "title": title, "text": text, "category": category, "number": number
    }  # fmt: skip
    found = read_items(load_mapping(mapping, {"items": columns}).items)
    print_values({"out": str(out), **add_to_model(model or SHIPPED, found, out, out_data, data)}, as_json)
