"""How the command line prints: a line a value, a table, or JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def print_values(values: Mapping[str, Any], as_json: bool) -> None:
    """Print a line a value; with `as_json` the mapping as indented JSON."""
    if as_json:
        typer.echo(json.dumps(values, ensure_ascii=False, indent=2, default=str))
        return
    for name, value in values.items():
        words = ", ".join(f"{key} {one}" for key, one in value.items()) if isinstance(value, dict) else value
        words = "; ".join(map(str, words)) if isinstance(words, list) else words
        typer.echo(f"{name.replace('_', ' ')}: {words}")


def print_table(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    """Print some columns of the rows; nothing in a cell is followed as markup."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*names, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(str(row[name])) for name in names))
    Console().print(table)
