"""Output of the command line: lines, key-value pairs, tables or JSON, on consoles of any encoding.

Old consoles and some build servers support only Latin-1 or ASCII. Characters that they lack are replaced; in JSON they
are escaped.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def replace_unknown_characters() -> None:
    """Make both streams write `?` for characters that their encoding lacks; the default is to raise an error.

    This covers `print`, rich's tables and progress bars, and the lines of `logging`.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def echo(text: str, err: bool = False) -> None:
    """Print a line, to stderr with `err`.

    This replaces `typer.echo`, which writes UTF-8 to a stream whose encoding is ASCII.
    """
    print(text, file=sys.stderr if err else sys.stdout, flush=True)


def print_json(values: Mapping[str, Any]) -> None:
    """Print indented JSON; if stdout lacks one of its characters, all non-ASCII characters are escaped."""
    text = json.dumps(values, ensure_ascii=False, indent=2, default=str)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(values, ensure_ascii=True, indent=2, default=str)
    echo(text)


def print_values(values: Mapping[str, Any], as_json: bool) -> None:
    """Print one line per value, or with `as_json` the mapping as indented JSON."""
    if as_json:
        print_json(values)
        return
    for name, value in values.items():
        echo(f"{name.replace('_', ' ')}: {_words(value)}")


def _words(value: Any) -> str:
    """Format a value for people; nested lists stay in brackets."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_short(one)}" for key, one in value.items())
    return "; ".join(map(_short, value)) if isinstance(value, list | tuple) else _short(value)


def _short(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        value = list(value)
    return "none" if value is None else str(value)


def print_table(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    """Print some columns of the rows; markup in cells is not interpreted."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*names, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(str(row[name])) for name in names))
    Console().print(table)
