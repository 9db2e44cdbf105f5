"""Reads a user's own tables of items and interactions, by a column mapping."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, count
from typing import Any, TypeVar

from llmrec.data.attribute_types import flag_value
from llmrec.data.catalog import TEXT_LIMIT, TITLE_LIMIT, VALUE_LIMIT, Catalog, Item, Value, clean_text
from llmrec.data.interactions import Interactions
from llmrec.data.readers import hub_tables
from llmrec.data.readers.assembly import DEFAULT_RULES, JoinRules, assemble, format_counts
from llmrec.data.readers.common import FLOAT32_MAX, NO_TIME, Event, Report, parse_id
from llmrec.data.readers.hub_tables import HubTable
from llmrec.data.readers.table_files import Row, read_rows
from llmrec.data.readers.table_mapping import EVENT_LIMIT, InteractionColumns, ItemColumns, TableMapping
from llmrec.data.readers.table_values import (
    Moment,
    parse_day,
    parse_flag,
    parse_moment,
    parse_number,
    parse_text,
    parse_words,
)
from llmrec.data.time_units import is_epoch_seconds
from llmrec.errors import DataError

Dataset = tuple[Catalog, Interactions, Report]
_Read = TypeVar("_Read")
_WORD = 40  # most characters of a cell that an error message suggests reading as empty
_CUT = (("titles", TITLE_LIMIT), ("texts", TEXT_LIMIT), ("words of a category", VALUE_LIMIT))


@dataclass
class ReadCounts:
    """Counts of a table reader.

    Attributes:
        dropped: number of rows left out, by reason.
        kinds: number of events, by type.
        noted: number of values changed by a rule (`untitled` items; cut `titles`, `texts` and `words of a category`;
            `fractions` of times), the number of interaction `rows`, and how many of these hold lists (`listed`).
        emptied: number of cells read as empty, by word and column.
        unread: columns of each of the two tables that are not read.
    """

    dropped: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    noted: Counter[str] = field(default_factory=Counter)
    emptied: Counter[str] = field(default_factory=Counter)
    unread: dict[str, set[str]] = field(default_factory=lambda: {"items": set(), "interactions": set()})


def read_table(mapping: TableMapping, strict: bool = False, rules: JoinRules = DEFAULT_RULES) -> Dataset:
    """Read both tables that a mapping names.

    Args:
        mapping: files and columns.
        strict: refuse what would otherwise be left out and counted: unknown items, repeats, events of weight 0.
        rules: see `JoinRules`.

    Raises:
        DataError: a table without a file, a missing column, a cell of the wrong type, an id that occurs twice with
            different contents, nothing usable, or (`strict`) anything left out; the message names file and line.
    """
    for part, columns in (("items", mapping.items), ("interactions", mapping.interactions)):
        if not columns.file:
            raise DataError(f"no {part} table: give --{part} FILE, or file = ... under [{part}] in the mapping")
    tally = ReadCounts()
    mapping = _pinned(mapping)
    items = read_items(mapping.items, tally)
    flat = mapping.items.file == mapping.interactions.file
    if flat:  # one table for both: an item is repeated in every row of its interactions
        del tally.dropped["repeated item"]
    events, file = _events(mapping, tally), str(mapping.interactions.file)
    rules = replace(rules, accept_loss=True) if strict else rules  # `strict` has its own message for any loss
    catalog, interactions, report = assemble(items, events, mapping.domain, (), tally.dropped, file, rules=rules)
    if flat:
        tally.unread = {"the table": set.intersection(*tally.unread.values())}
    return _checked(catalog, interactions, report, mapping, tally, strict)


def _pinned(mapping: TableMapping) -> TableMapping:
    """Pin the Hub tables of a mapping to commits, so that what was read can be reported and read again."""
    of_hub = {name: part.file for name, part in mapping.parts.items() if isinstance(part.file, HubTable)}
    return mapping.with_tables({name: hub_tables.pin_commit(table) for name, table in of_hub.items()})


def _rows(columns: ItemColumns | InteractionColumns, unread: set[str], every: Sequence[str] = ()) -> Iterator[Row]:
    if isinstance(columns.file, HubTable):
        return hub_tables.read_rows(columns.file, columns.columns, columns.ids, columns.options, unread)
    return read_rows(columns.file, columns.columns, columns.ids, columns.options, unread, every)


def read_items(columns: ItemColumns, tally: ReadCounts | None = None) -> list[Item]:
    """Read only an item table, in the order of the file.

    Args:
        columns: file and columns.
        tally: counts what is left out or changed by a rule.

    Raises:
        DataError: see `read_table`.
    """
    tally = tally or ReadCounts()
    found: dict[str, tuple[Item, str]] = {}
    for where, row in _rows(columns, tally.unread["items"]):
        item, titled = _item(row, columns, where, tally.emptied)
        if item.id not in found:
            found[item.id] = item, where
            tally.noted["untitled"] += not titled
            tally.noted.update(_overlong_fields(item))
            continue
        earlier, place = found[item.id]
        if earlier != item:
            raise DataError(f"{where}: {columns.id} {item.id!r} was there before with other contents ({place})")
        tally.dropped["repeated item"] += 1
    return [item for item, _ in found.values()]


def _overlong_fields(item: Item) -> Iterator[str]:
    """Yield the name from `_CUT` of every text of an item that the catalogue will cut."""
    words = [word for value in item.attributes.values() if isinstance(value, tuple) for word in value]
    for (name, limit), texts in zip(_CUT, ([item.title], [item.text], words), strict=True):
        for text in texts:
            # + 2, because a space at position limit + 1 would be stripped
            if len(text) > limit and len(clean_text(text, limit + 2)) > limit:
                yield name


def _item(row: Mapping[str, Any], columns: ItemColumns, where: str, emptied: Counter[str]) -> tuple[Item, bool]:
    """Return (item, whether it has a title of its own)."""
    id = parse_id(row.get(columns.id), f"{where}: {columns.id}")
    title = parse_text(row.get(columns.title), where, columns.title)
    if title and not clean_text(title, TITLE_LIMIT):
        raise DataError(
            f"{where}: {columns.title} {title[:60]!r} holds nothing that can be shown; leave it empty instead"
        )
    texts = (parse_text(row.get(name), where, name) for name in columns.text)
    text = " ".join(one for one in texts if one)
    return Item(id, title or id, text, _attributes(row, columns, where, emptied)), bool(title)


def _attributes(row: Mapping[str, Any], columns: ItemColumns, where: str, emptied: Counter[str]) -> dict[str, Value]:
    """Return the typed attributes of one row; an attribute with an empty cell is left out."""
    found: dict[str, Value] = {}

    def typed(read: Callable[[Any, str, str], _Read], column: str) -> _Read:
        return _parse_cell(read, row.get(column), where, column, columns.empty, emptied)

    for name, column in columns.category.items():
        if words := parse_words(row.get(column), columns.separator, where, column):
            found[name] = words
    for name, column in columns.number.items():
        if (amount := typed(parse_number, column)) is not None:
            found[name] = amount
    for name, column in columns.date.items():
        if (day := typed(parse_day, column)) is not None:
            found[name], found[f"{name}_year"] = day, day // 10_000
    for name, column in columns.flag.items():
        if (on := typed(parse_flag, column)) is not None:
            found[name] = flag_value(name, on)
    return found


def _parse_cell(
    read: Callable[[Any, str, str], _Read], cell: Any, where: str, column: str, empty: tuple[str, ...],
    emptied: Counter[str],
) -> _Read:  # fmt: skip
    """Parse a cell with `read`; a cell that holds a word for "no value" is parsed as an empty cell."""
    word = cell.strip() if isinstance(cell, str) else ""
    if empty and word.casefold() in empty:
        emptied[f"{word!r} in {column}"] += 1
        return read(None, where, column)
    try:
        return read(cell, where, column)
    except DataError as error:
        if not word or len(word) > _WORD:
            raise
        raise DataError(f"{error}; --empty {shlex.quote(word)} reads such cells as empty") from None


class _TimeColumn:
    """Parses a time column, and refuses to mix dates with numbers that are not seconds since 1970."""

    def __init__(self, column: str) -> None:
        self._column = column
        self._first: dict[bool, tuple[str, Any]] = {}

    def parse(self, cell: Any, where: str) -> Moment:
        """Return the moment of a cell; raises DataError when it is of another kind than the moments before."""
        found = parse_moment(cell, where, self._column)
        if found.is_date or not is_epoch_seconds(found.time):
            self._first.setdefault(found.is_date, (where, cell))
            if len(self._first) > 1:
                place, other = self._first[not found.is_date]
                said = f"{where}: {self._column} {cell!s:.60} stands beside {other!s:.60} ({place})"
                raise DataError(f"{said}: dates and numbers in one column; write all of them in one way")
        return found


def _events(mapping: TableMapping, tally: ReadCounts, start: int = 0) -> Iterator[Event]:
    """Yield interactions in the order of the file; a cell with a list of items is a user's history, oldest first."""
    columns = mapping.interactions
    orders, times = count(start), _TimeColumn(columns.time)
    unread, every = tally.unread["interactions"], [columns.time] if columns.time else []
    for where, row in _rows(columns, unread, every):
        weight = _weight(row, mapping, where, tally.kinds)
        if weight == 0:
            tally.dropped["event of weight 0"] += 1
            continue
        user = parse_id(row.get(columns.user), f"{where}: {columns.user}")
        tally.noted["listed"] += isinstance(row.get(columns.item), list)
        tally.noted["rows"] += 1
        for item, time, value in _row_events(row, columns, where):
            moment = times.parse(time, where) if columns.time else Moment(next(orders), False, False)
            tally.noted["fractions"] += moment.is_cut
            rating = _rating(value, weight, where, columns, tally.emptied)
            yield Event(user, parse_id(item, f"{where}: {columns.item}"), moment.time, rating)


def _rating(value: Any, weight: float, where: str, columns: InteractionColumns, emptied: Counter[str]) -> float:
    """Return the value of an interaction (1 if its cell is empty) times the weight of its event."""
    column = columns.value
    found = _parse_cell(parse_number, value, where, column, columns.empty, emptied)
    rating = 1.0 if found is None else float(found)
    if abs(weight * rating) > FLOAT32_MAX:
        raise DataError(f"{where}: {column} {rating:g} times the weight {weight:g} is out of range; give smaller ones")
    return weight * rating


def _weight(row: Mapping[str, Any], mapping: TableMapping, where: str, kinds: Counter[str]) -> float:
    column = mapping.interactions.event
    if not column:
        return 1.0
    kind = clean_text(parse_text(row.get(column), where, column).casefold(), EVENT_LIMIT)
    kinds[kind] += 1
    if len(kinds) > 1000:
        raise DataError(f"{where}: {column} has over 1,000 different values; is it the column of event types?")
    if mapping.events and kind not in mapping.events:
        raise DataError(f"{where}: {column} {kind!r} has no weight; there are: {', '.join(mapping.events)}")
    return mapping.events.get(kind, 1.0)


def _row_events(row: Mapping[str, Any], columns: InteractionColumns, where: str) -> Iterator[tuple[Any, Any, Any]]:
    """Yield (item, time, value) of a row, several if its cells hold lists; None where a column is not mapped."""
    item = row.get(columns.item)
    if not isinstance(item, list):
        time, value = (row.get(name) if name else None for name in (columns.time, columns.value))
        yield item, time, value
        return
    beside = []
    for name in (columns.time, columns.value):
        cell = row.get(name) if name else None
        if cell is None and name in ("", columns.value):
            cell = [None] * len(item)
        if not isinstance(cell, list) or len(cell) != len(item):
            raise DataError(f"{where}: {columns.item} lists {len(item)} items; {name} should be a list as long")
        beside.append(cell)
    yield from zip(item, *beside, strict=True)


def item_notes(tally: ReadCounts) -> list[str]:
    """Return remarks for people on how items were read, including cells and columns that were left out."""
    found, noted = [], tally.noted
    if noted["untitled"]:
        found.append(f"{noted['untitled']} items without a title are called by their id")
    if cut := [f"{noted[name]} {name} to {limit:,}" for name, limit in _CUT if noted[name]]:
        found.append(f"cut, in characters: {', '.join(cut)}")
    if tally.emptied:
        words = ", ".join(f"{n} of {word}" for word, n in tally.emptied.most_common(20))
        found.append(f"{tally.emptied.total()} cells were read as empty: {words}")
    for part, names in tally.unread.items():
        if names:
            found.append(f"columns of {part} that are not read: {', '.join(sorted(names))[:300]}")
    return found


def _notes(mapping: TableMapping, tally: ReadCounts) -> list[str]:
    found, noted = _origins(mapping), tally.noted
    if not mapping.interactions.time:
        lists = noted["listed"] == noted["rows"]
        found.append("no time column: the order in the lists stands in" if lists else NO_TIME)
    found += item_notes(tally)
    if noted["fractions"]:
        found.append(f"{noted['fractions']} times have a fraction, which is cut off")
    if tally.kinds:
        found.append("events: " + ", ".join(f"{kind or 'none'} {n}" for kind, n in tally.kinds.most_common(20)))
    if mapping.interactions.value or any(weight not in (0, 1) for weight in mapping.events.values()):
        found.append("values and weights are kept with the data; only weight 0 changes what is trained")
    return found


def _origins(mapping: TableMapping) -> list[str]:
    """Return notes on which data sets of the Hub the tables came from; they are kept with the data."""
    tables = {name: part.file for name, part in mapping.parts.items()}
    return [
        f"{name}: {hub_tables.describe_origin(table)}" for name, table in tables.items() if isinstance(table, HubTable)
    ]


def _checked(
    catalog: Catalog, log: Interactions, report: Report, mapping: TableMapping, tally: ReadCounts, strict: bool
) -> Dataset:
    """Return the data with the notes of this reader; raises DataError if `strict` and anything was left out."""
    if strict and report.dropped:
        words = format_counts(report.dropped)
        raise DataError(f"--strict: {words} would be left out; correct the tables, or leave --strict out")
    return catalog, log, Report(report.counts, report.dropped, (*report.notes, *_notes(mapping, tally)))


def append_table(
    catalog: Catalog, known: Interactions, mapping: TableMapping, strict: bool = False, rules: JoinRules = DEFAULT_RULES
) -> Dataset:
    """Add the interactions of a table to known interactions; the catalogue does not change.

    Args:
        catalog: the items.
        known: known interactions with these items.
        mapping: file and columns of the interactions; its item table is ignored.
        strict: refuse what would otherwise be left out and counted.
        rules: see `JoinRules`.

    Raises:
        DataError: see `read_table`; also if the table adds nothing, or its times are in another unit.
    """
    if not mapping.interactions.file:
        raise DataError("no interactions table: give --interactions FILE, or file = ... under [interactions]")
    tally, mapping = ReadCounts(), _pinned(mapping)
    file = str(mapping.interactions.file)
    ids = [item.id for item in catalog.items]
    log = zip(known.user.tolist(), known.row.tolist(), known.time.tolist(), known.value.tolist(), strict=True)
    earlier = (Event(known.users[user], ids[row], time, value) for user, row, time, value in log)
    events = chain(earlier, _events(mapping, tally, start=int(known.time.max(initial=-1)) + 1))
    rules, items = replace(rules, accept_loss=True) if strict else rules, list(catalog.items)
    _, interactions, report = assemble(items, events, catalog.domain, (), tally.dropped, file, len(known), rules)
    return _checked(catalog, interactions, report, mapping, tally, strict)
