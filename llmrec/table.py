"""Reads somebody's own tables: items and interactions in any of the forms of `table_files`, by a mapping of columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import chain, count
from typing import Any

from llmrec.catalog import Catalog, Item, Value
from llmrec.errors import DataError
from llmrec.interactions import Interactions
from llmrec.kinds import flag_word
from llmrec.reading import Event, Report, assemble, number
from llmrec.table_files import rows
from llmrec.table_mapping import InteractionColumns, ItemColumns, TableMapping
from llmrec.table_values import day_of, flag_of, id_of, moment_of, number_of, text_of, words_of

Data = tuple[Catalog, Interactions, Report]


def read_table(mapping: TableMapping, strict: bool = False) -> Data:
    """Read both tables that a mapping names.

    Args:
        mapping: files and columns.
        strict: refuse what would otherwise be left out and counted: unknown items, repeats, events of weight 0.

    Raises:
        DataError: no file named, a missing column, a cell of the wrong kind, an id that occurs twice with different
            contents, nothing usable, or (`strict`) anything left out; names file and line.
    """
    for part, columns in (("items", mapping.items), ("interactions", mapping.interactions)):
        if not columns.file:
            raise DataError(f"no {part} table: give --{part} FILE, or file = ... under [{part}] in the mapping")
    dropped: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    items = read_items(mapping.items, dropped)
    untitled = dropped.pop("untitled", 0)
    catalog, interactions, report = assemble(items, _events(mapping, kinds, dropped), mapping.domain)
    lost = {name: n for name, n in {**report.dropped, **dropped}.items() if n}
    if strict and lost:
        raise _refused(lost)
    notes = [*report.notes, *_notes(mapping, untitled, kinds)]
    return catalog, interactions, Report(report.counts, lost, tuple(notes))


def read_items(columns: ItemColumns, counts: Counter[str] | None = None) -> list[Item]:
    """Read an item table alone, in the order of the file.

    Args:
        columns: file and columns.
        counts: gets the numbers of `untitled` items, called by their id, and of `repeated item`, left out.

    Raises:
        DataError: see `read_table`.
    """
    counts = Counter() if counts is None else counts
    found: dict[str, tuple[Item, str]] = {}
    for where, row in rows(columns.file, columns.columns):
        item, titled = _item(row, columns, where)
        if item.id not in found:
            found[item.id] = item, where
            counts["untitled"] += not titled
            continue
        earlier, place = found[item.id]
        if earlier != item:
            raise DataError(f"{where}: {columns.id} {item.id!r} was there before with other contents ({place})")
        counts["repeated item"] += 1
    return [item for item, _ in found.values()]


def _item(row: Mapping[str, Any], columns: ItemColumns, where: str) -> tuple[Item, bool]:
    """One item, and whether it has a title of its own."""
    id = id_of(row.get(columns.id), where, columns.id)
    title = text_of(row.get(columns.title))
    text = " ".join(one for one in (text_of(row.get(name)) for name in columns.text) if one)
    return Item(id, title or id, text, attributes_of(row, columns, where)), bool(title)


def attributes_of(row: Mapping[str, Any], columns: ItemColumns, where: str) -> dict[str, Value]:
    """The typed attributes of one row; an empty cell leaves its attribute out.

    Raises:
        DataError: a cell of the wrong kind; names `where`, column and cell.
    """
    found: dict[str, Value] = {}
    for name, column in columns.category.items():
        if words := words_of(row.get(column), columns.separator):
            found[name] = words
    for name, column in columns.number.items():
        if (amount := number_of(row.get(column), where, column)) is not None:
            found[name] = amount
    for name, column in columns.date.items():
        if (day := day_of(row.get(column), where, column)) is not None:
            found[name], found[f"{name}_year"] = day, day // 10_000
    for name, column in columns.flag.items():
        if (on := flag_of(row.get(column), where, column)) is not None:
            found[name] = flag_word(name, on)
    return found


def _events(mapping: TableMapping, kinds: Counter[str], dropped: Counter[str], start: int = 0) -> Iterator[Event]:
    """Interactions in file order; a list of items is one user's history, oldest first."""
    columns = mapping.interactions
    orders = count(start)
    for where, row in rows(columns.file, columns.columns):
        weight = _weight(row, mapping, where, kinds)
        if weight == 0:
            dropped["event of weight 0"] += 1
            continue
        user = id_of(row.get(columns.user), where, columns.user)
        for item, time, value in _taken(row, columns, where):
            moment = moment_of(time, where, columns.time) if columns.time else next(orders)
            rating = 1.0 if value is None else number(str(value), f"{where}: {columns.value}")
            yield Event(user, id_of(item, where, columns.item), moment, weight * rating)


def _weight(row: Mapping[str, Any], mapping: TableMapping, where: str, kinds: Counter[str]) -> float:
    column = mapping.interactions.event
    if not column:
        return 1.0
    kind = text_of(row.get(column)).casefold()[:60]
    kinds[kind] += 1
    if len(kinds) > 1000:
        raise DataError(f"{where}: {column} has over 1,000 different values; is it the column of event types?")
    if mapping.events and kind not in mapping.events:
        raise DataError(f"{where}: {column} {kind!r} has no weight; there are: {', '.join(mapping.events)}")
    return mapping.events.get(kind, 1.0)


def _taken(row: Mapping[str, Any], columns: InteractionColumns, where: str) -> Iterator[tuple[Any, Any, Any]]:
    """(item, time, value) of a row, one or, from lists, several; None where there is no such column."""
    item = row.get(columns.item)
    if not isinstance(item, list):
        time, value = (row.get(name) if name else None for name in (columns.time, columns.value))
        yield item, time, value
        return
    beside = []
    for name in (columns.time, columns.value):
        cell = row.get(name) if name else [None] * len(item)
        if not isinstance(cell, list) or len(cell) != len(item):
            raise DataError(f"{where}: {columns.item} lists {len(item)} items; {name} should be a list as long")
        beside.append(cell)
    yield from zip(item, *beside, strict=True)


def _notes(mapping: TableMapping, untitled: int, kinds: Counter[str]) -> list[str]:
    found = []
    if not mapping.interactions.time:
        found.append("no time column: the order of the rows stands in")
    if untitled:
        found.append(f"{untitled} items without a title are called by their id")
    if kinds:
        found.append("events: " + ", ".join(f"{kind or 'none'} {n}" for kind, n in kinds.most_common(20)))
    return found


def append_table(catalog: Catalog, known: Interactions, mapping: TableMapping, strict: bool = False) -> Data:
    """Add the interactions of a table to those that are known; the catalogue stays.

    Args:
        catalog: the items.
        known: interactions with them.
        mapping: file and columns of the interactions; its items are not looked at.
        strict: refuse what would otherwise be left out and counted.

    Raises:
        DataError: see `read_table`; also when the table adds nothing.
    """
    if not mapping.interactions.file:
        raise DataError("no interactions table: give --interactions FILE, or file = ... under [interactions]")
    dropped: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    ids = [item.id for item in catalog.items]
    log = zip(known.user.tolist(), known.row.tolist(), known.time.tolist(), known.value.tolist(), strict=True)
    earlier = (Event(known.users[user], ids[row], time, value) for user, row, time, value in log)
    events = chain(earlier, _events(mapping, kinds, dropped, start=int(known.time.max(initial=-1)) + 1))
    _, interactions, report = assemble(list(catalog.items), events, catalog.domain)
    lost = {name: n for name, n in {**report.dropped, **dropped}.items() if n}
    if strict and lost:
        raise _refused(lost)
    if len(interactions) <= len(known):
        raise DataError(f"{mapping.interactions.file} adds nothing to {len(known)} interactions; left out: {lost}")
    return catalog, interactions, Report(report.counts, lost, (*report.notes, *_notes(mapping, 0, kinds)))


def _refused(lost: Mapping[str, int]) -> DataError:
    words = ", ".join(f"{n} of {name}" for name, n in lost.items())
    return DataError(f"--strict: {words} would be left out; correct the tables, or leave --strict out")
