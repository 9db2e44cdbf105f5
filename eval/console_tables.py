"""Prints result tables on a console; columns that do not fit go into another table below; numbers are never cut."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

_GAP = 2  # spaces between columns


def print_columns(
    names: Sequence[str], rows: Sequence[Sequence[str]], console: Console | None = None, labels: int = 1
) -> None:
    """Print rows under column names; markup in cells is not interpreted.

    Args:
        names: names of the columns.
        rows: one cell per column.
        console: stdout when None.
        labels: number of leftmost columns that identify a row. They are repeated in every table, and wrapped if they
            leave no room for the others. Other columns are never wrapped.
    """
    out = console or Console()
    wide = [_width(name, [row[place] for row in rows]) for place, name in enumerate(names)]
    left = _fitted(wide[:labels], out.width - _GAP - max(wide[labels:], default=0))
    room = out.width - sum(left) - _GAP * labels
    for number, columns in enumerate(_groups(wide, labels, room)):
        if number:
            out.print()
        table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0))
        for place in range(labels):
            table.add_column(Text(names[place]), width=left[place], overflow="fold")
        for place in columns:
            head = textwrap.fill(names[place].replace("_", " "), wide[place], break_long_words=False)
            table.add_column(Text(head), no_wrap=True, min_width=wide[place])
        for row in rows:
            table.add_row(*(Text(row[place]) for place in (*range(labels), *columns)))
        out.print(table)


def _width(name: str, cells: Sequence[str]) -> int:
    """Width of the longest cell, or of the longest word of the column's name."""
    return max(map(cell_len, (*cells, *name.replace("_", " ").split())), default=0)


def _fitted(wide: Sequence[int], room: int) -> list[int]:
    """Widths of the label columns, with the widest ones narrowed until all fit."""
    left = list(wide)
    while sum(left) + _GAP * (len(left) - 1) > room and max(left) > 1:
        left[left.index(max(left))] -= 1
    return left


def _groups(wide: Sequence[int], labels: int, room: int) -> Iterator[list[int]]:
    """Split the columns in order into tables, each with as many columns as fit beside the labels."""
    group: list[int] = []
    for place in range(labels, len(wide)):
        if group and sum(wide[one] + _GAP for one in (*group, place)) - _GAP > room:
            yield group
            group = []
        group.append(place)
    yield group
