"""Reads somebody's own tables: items and interactions in any of the forms of `table_files`, by a mapping of columns."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, count
from typing import Any

import numpy as np

from llmrec.catalog import TEXT_LIMIT, TITLE_LIMIT, VALUE_LIMIT, Catalog, Item, Value, clean_text
from llmrec.errors import DataError
from llmrec.interactions import Interactions
from llmrec.kinds import flag_word
from llmrec.reading import FLOAT32_MAX, Event, Report, assemble, counted
from llmrec.table_files import rows
from llmrec.table_mapping import EVENT_LIMIT, InteractionColumns, ItemColumns, TableMapping
from llmrec.table_values import day_of, flag_of, id_of, moment_of, number_of, text_of, words_of

Data = tuple[Catalog, Interactions, Report]
_CLOCK = 10**8  # seconds from 1970 to 1973
_ALIKE = 0.25  # of a step of 1000: a factor of 5.6, more than what lies between 1980 and 2020 in seconds
_CUT = (("titles", TITLE_LIMIT), ("texts", TEXT_LIMIT), ("words of a category", VALUE_LIMIT))


@dataclass
class Tally:
    """What a reader counts.

    Attributes:
        dropped: what was left out, by why.
        kinds: events by their type.
        noted: what was kept by a rule: `untitled` items, cut `titles`, `texts` and `words of a category`, and
            `fractions` of times.
    """

    dropped: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    noted: Counter[str] = field(default_factory=Counter)


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
    tally = Tally()
    items = read_items(mapping.items, tally)
    events, file = _events(mapping, tally), mapping.interactions.file
    catalog, interactions, report = assemble(items, events, mapping.domain, (), tally.dropped, file)
    return _checked(catalog, interactions, report, mapping, tally, strict)


def read_items(columns: ItemColumns, tally: Tally | None = None) -> list[Item]:
    """Read an item table alone, in the order of the file.

    Args:
        columns: file and columns.
        tally: counts what is left out, and what is kept by a rule.

    Raises:
        DataError: see `read_table`.
    """
    tally = tally or Tally()
    found: dict[str, tuple[Item, str]] = {}
    for where, row in rows(columns.file, columns.columns):
        item, titled = _item(row, columns, where)
        if item.id not in found:
            found[item.id] = item, where
            tally.noted["untitled"] += not titled
            tally.noted.update(_cut(item))
            continue
        earlier, place = found[item.id]
        if earlier != item:
            raise DataError(f"{where}: {columns.id} {item.id!r} was there before with other contents ({place})")
        tally.dropped["repeated item"] += 1
    return [item for item, _ in found.values()]


def _cut(item: Item) -> Iterator[str]:
    """What of an item the catalogue will cut, a name of `_CUT` each time."""
    words = [word for value in item.attributes.values() if isinstance(value, tuple) for word in value]
    for (name, limit), texts in zip(_CUT, ([item.title], [item.text], words), strict=True):
        for text in texts:
            if len(text) > limit and len(clean_text(text, limit + 2)) > limit:  # the last but one may be a space
                yield name


def _item(row: Mapping[str, Any], columns: ItemColumns, where: str) -> tuple[Item, bool]:
    """One item, and whether it has a title of its own."""
    id = id_of(row.get(columns.id), where, columns.id)
    title = text_of(row.get(columns.title), where, columns.title)
    if title and not clean_text(title, TITLE_LIMIT):
        raise DataError(
            f"{where}: {columns.title} {title[:60]!r} holds nothing that can be shown; leave it empty instead"
        )
    texts = (text_of(row.get(name), where, name) for name in columns.text)
    text = " ".join(one for one in texts if one)
    return Item(id, title or id, text, attributes_of(row, columns, where)), bool(title)


def attributes_of(row: Mapping[str, Any], columns: ItemColumns, where: str) -> dict[str, Value]:
    """The typed attributes of one row; an empty cell leaves its attribute out.

    Raises:
        DataError: a cell of the wrong kind; names `where`, column and cell.
    """
    found: dict[str, Value] = {}
    for name, column in columns.category.items():
        if words := words_of(row.get(column), columns.separator, where, column):
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


def _events(mapping: TableMapping, tally: Tally, start: int = 0) -> Iterator[Event]:
    """Interactions in file order; a list of items is one user's history, oldest first."""
    columns = mapping.interactions
    orders = count(start)
    for where, row in rows(columns.file, columns.columns):
        weight = _weight(row, mapping, where, tally.kinds)
        if weight == 0:
            tally.dropped["event of weight 0"] += 1
            continue
        user = id_of(row.get(columns.user), where, columns.user)
        for item, time, value in _taken(row, columns, where):
            moment, is_cut = moment_of(time, where, columns.time) if columns.time else (next(orders), False)
            tally.noted["fractions"] += is_cut
            rating = _rating(value, weight, where, columns.value)
            yield Event(user, id_of(item, where, columns.item), moment, rating)


def _rating(value: Any, weight: float, where: str, column: str) -> float:
    """The value of an interaction, 1 where the cell is empty, times the weight of its event."""
    found = number_of(value, where, column)
    rating = 1.0 if found is None else float(found)
    if abs(weight * rating) > FLOAT32_MAX:
        raise DataError(f"{where}: {column} {rating:g} times the weight {weight:g} is out of range; give smaller ones")
    return weight * rating


def _weight(row: Mapping[str, Any], mapping: TableMapping, where: str, kinds: Counter[str]) -> float:
    column = mapping.interactions.event
    if not column:
        return 1.0
    kind = clean_text(text_of(row.get(column), where, column).casefold(), EVENT_LIMIT)
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
        cell = row.get(name) if name else None
        if cell is None and name in ("", columns.value):
            cell = [None] * len(item)
        if not isinstance(cell, list) or len(cell) != len(item):
            raise DataError(f"{where}: {columns.item} lists {len(item)} items; {name} should be a list as long")
        beside.append(cell)
    yield from zip(item, *beside, strict=True)


def _notes(mapping: TableMapping, tally: Tally) -> list[str]:
    found, noted = [], tally.noted
    if not mapping.interactions.time:
        found.append("no time column: the order of the rows stands in")
    if noted["untitled"]:
        found.append(f"{noted['untitled']} items without a title are called by their id")
    if cut := [f"{noted[name]} {name} to {limit:,}" for name, limit in _CUT if noted[name]]:
        found.append(f"cut, in characters: {', '.join(cut)}")
    if noted["fractions"]:
        found.append(f"{noted['fractions']} times have a fraction, which is cut off")
    if tally.kinds:
        found.append("events: " + ", ".join(f"{kind or 'none'} {n}" for kind, n in tally.kinds.most_common(20)))
    if mapping.interactions.value or any(weight not in (0, 1) for weight in mapping.events.values()):
        found.append("values and weights are kept with the data; only weight 0 changes what is trained")
    return found


def _checked(
    catalog: Catalog, log: Interactions, report: Report, mapping: TableMapping, tally: Tally, strict: bool
) -> Data:
    """The data with the notes of this reader, unless something was left out that may not be."""
    if strict and report.dropped:
        words = counted(report.dropped)
        raise DataError(f"--strict: {words} would be left out; correct the tables, or leave --strict out")
    return catalog, log, Report(report.counts, report.dropped, (*report.notes, *_notes(mapping, tally)))


def _watched(events: Iterable[Event], times: array[int]) -> Iterator[Event]:
    """The events, their times kept beside."""
    for event in events:
        times.append(event.time)
        yield event


def _same_unit(new: np.ndarray, known: np.ndarray, where: str) -> None:
    """Raise DataError where times int64 of both kinds are those of a clock, one of them in thousandths of the other's.

    A date is read as seconds, and would come before all that is known in milliseconds.
    """
    if not len(new) or not len(known):
        return
    own, usual = (float(np.median(times)) for times in (new, known))
    if min(own, usual) < _CLOCK:  # an order, not a clock
        return
    steps = math.log10(usual / own) / 3
    if round(steps) and abs(steps - round(steps)) < _ALIKE:
        what, factor = ("multiply" if steps > 0 else "divide"), 1000 ** abs(round(steps))
        raise DataError(
            f"{where}: times around {own:.0f}, those of the data are around {usual:.0f}, as seconds and milliseconds "
            f"would be; bring them to one unit first: {what} the new ones by {factor:,}"
        )


def append_table(catalog: Catalog, known: Interactions, mapping: TableMapping, strict: bool = False) -> Data:
    """Add the interactions of a table to those that are known; the catalogue stays.

    Args:
        catalog: the items.
        known: interactions with them.
        mapping: file and columns of the interactions; its items are not looked at.
        strict: refuse what would otherwise be left out and counted.

    Raises:
        DataError: see `read_table`; also when the table adds nothing, or has its times in another unit.
    """
    if not mapping.interactions.file:
        raise DataError("no interactions table: give --interactions FILE, or file = ... under [interactions]")
    tally, file = Tally(), mapping.interactions.file
    ids = [item.id for item in catalog.items]
    log = zip(known.user.tolist(), known.row.tolist(), known.time.tolist(), known.value.tolist(), strict=True)
    earlier = (Event(known.users[user], ids[row], time, value) for user, row, time, value in log)
    times = array("q")
    events = chain(earlier, _watched(_events(mapping, tally, start=int(known.time.max(initial=-1)) + 1), times))
    items = list(catalog.items)
    _, interactions, report = assemble(items, events, catalog.domain, (), tally.dropped, file, len(known))
    if mapping.interactions.time:
        _same_unit(np.frombuffer(times, np.int64), known.time, file)
    return _checked(catalog, interactions, report, mapping, tally, strict)
