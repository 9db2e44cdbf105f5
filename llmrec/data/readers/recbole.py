"""Reads RecBole's atomic files: `X.inter` and `X.item`, tab-separated, with a typed header `name:type`.

https://recbole.io/docs/user_guide/data/atomic_files.html; types are token, token_seq, float and float_seq.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llmrec.data.catalog import ID_LIMIT, Catalog, Item, Value, clean_text
from llmrec.data.interactions import Interactions
from llmrec.data.readers.assembly import DEFAULT_RULES, JoinRules, assemble
from llmrec.data.readers.common import (
    NO_TIME,
    Event,
    Report,
    has_ending,
    parse_float,
    parse_id,
    parse_timestamp,
    read_lines,
)
from llmrec.data.readers.markup import plain_text
from llmrec.data.titles import display_title, split_year
from llmrec.errors import DataError

_TYPES = ("token", "token_seq", "float", "float_seq")
_COLUMNS_LIMIT = 1000
_TITLES = ("title", "movie_title", "item_title", "book_title", "track_title", "name", "item_name")
_TEXTS = ("description", "text", "summary", "plot", "overview", "abstract")
_YEARS = ("year", "release_year", "publication_year", "published_year")
_NOT_ATTRIBUTES = re.compile(r"(^|_)(id|url|image|images|link|asin)$|^(im|related)")
_NO_NAME = ("", "unknown", "unkonwn")


@dataclass(frozen=True)
class AtomicRow:
    """One line of an atomic file: column name -> text, with the place for messages."""

    where: str
    values: Mapping[str, str]


@dataclass(frozen=True)
class FieldRoles:
    """The columns of an item file by their meaning; `attributes` maps attribute name -> (column, type)."""

    title: str | None
    text: str | None
    year: str | None
    attributes: Mapping[str, tuple[str, str]]


def read_recbole(path: Path, rules: JoinRules = DEFAULT_RULES) -> tuple[Catalog, Interactions, Report]:
    """Read any pair of atomic files; title, text, year and attributes are recognised by their column names.

    Args:
        path: a directory with one pair, or one of the two files; `.gz` is unpacked.
        rules: see `JoinRules`.

    Raises:
        DataError: the files are missing or invalid; the message names file and line.
    """
    inter, item = find_pair(path)
    fields = guess_roles(header(item))
    items = list(_items(item, fields, _plain))
    notes = ["titles are the ids: no title column" if fields.title is None else f"titles from {fields.title}"]
    if fields.title is not None and (untitled := sum(one.title == one.id for one in items)):
        notes.append(f"{untitled} items have no title: called by their id")
    if "timestamp" not in header(inter):
        notes.append(NO_TIME)
    return assemble(items, _events(inter), "items", tuple(notes), source=str(inter), rules=rules)


def read_ml_100k(path: Path, rules: JoinRules = DEFAULT_RULES) -> tuple[Catalog, Interactions, Report]:
    """Read MovieLens-100k in RecBole's form: films with `year` and `genre`.

    Raises:
        DataError: the files are missing or invalid; the message names file and line.
    """
    inter, item = find_pair(path)
    genre = {"genre": ("class", "token_seq")}
    fields = FieldRoles("movie_title", None, "release_year", genre)
    return assemble(list(_items(item, fields, _film)), _events(inter), "films", source=str(inter), rules=rules)


def read_items(path: Path) -> Iterator[Item]:
    """Yield the items of one `.item` file; title, text, year and attributes are recognised by their column names.

    Raises:
        DataError: the file is missing or invalid; the message names file and line.
    """
    return _items(path, guess_roles(header(path)), _plain)


def find_pair(path: Path) -> tuple[Path, Path]:
    """Return the .inter and .item file at `path`; each may be packed as `.gz`.

    Raises:
        DataError: there is no pair, or more than one, or one of the two files is missing.
    """
    if path.is_dir():
        found = sorted(one for one in path.iterdir() if has_ending(one, (".inter", ".inter.gz")))
        if len(found) != 1:
            names = ", ".join(one.name for one in found) or "none"
            raise DataError(f"{path} should hold one .inter file; found: {names}")
        path = found[0]
    plain = path.with_suffix("") if path.suffix == ".gz" else path
    inter, item = (_packed_or_not(plain.with_suffix(end), path) for end in (".inter", ".item"))
    return inter, item


def _packed_or_not(plain: Path, named: Path) -> Path:
    """Return the file or its packed form, whichever exists; if both do, the one that the user named."""
    packed = plain.with_name(f"{plain.name}.gz")
    found = [one for one in sorted((plain, packed), key=lambda one: one != named) if one.is_file()]
    if not found:
        raise DataError(f"{plain} does not exist; a data set is a pair X.inter and X.item, which may end in .gz")
    return found[0]


def header(path: Path) -> dict[str, str]:
    """Return column name -> type from the first line.

    Raises:
        DataError: no header, an unknown type, a column named twice.
    """
    first = next(read_lines(path), (1, ""))[1]
    columns: dict[str, str] = {}
    for cell in first.split("\t", _COLUMNS_LIMIT):
        name, _, kind = cell.strip().partition(":")
        if kind not in _TYPES or not name or name in columns:
            found = f"{path}, line 1: column {cell[:60]!r}"
            raise DataError(f"{found} should be name:type, named once, type one of {', '.join(_TYPES)}")
        columns[name] = kind
    return columns


def guess_roles(columns: Mapping[str, str]) -> FieldRoles:
    """Guess from names and types which columns hold title, text, year and attributes."""
    title, text, year = (_first(names, columns) for names in (_TITLES, _TEXTS, _YEARS))
    used = {"item_id", title, text, year}
    attributes = {
        name: (name, kind)
        for name, kind in columns.items()
        if name not in used and kind != "float_seq" and not _NOT_ATTRIBUTES.search(name)
    }
    return FieldRoles(title, text, year, attributes)


def _first(names: Sequence[str], columns: Mapping[str, str]) -> str | None:
    return next((name for name in names if name in columns), None)


def _rows(path: Path, needed: Sequence[str]) -> Iterator[AtomicRow]:
    """Yield the lines below the header; blank lines are skipped."""
    columns = list(header(path))
    for name in needed:
        if name not in columns:
            raise DataError(f"{path}, line 1: no column {name!r}; found: {', '.join(columns)[:200]}")
    for line, text in read_lines(path):
        if line == 1 or not text:
            continue
        cells = text.split("\t", len(columns))
        if len(cells) != len(columns):
            raise DataError(f"{path}, line {line}: {len(cells)} fields where the header has {len(columns)}")
        yield AtomicRow(f"{path}, line {line}", dict(zip(columns, cells, strict=True)))


def _id(cells: AtomicRow, column: str) -> str:
    return parse_id(cells.values[column], f"{cells.where}: {column}")


def _events(path: Path) -> Iterator[Event]:
    """Yield interactions; without timestamps the order of lines is the time, and without ratings the value is 1."""
    for order, cells in enumerate(_rows(path, ("user_id", "item_id"))):
        stamp, rating = cells.values.get("timestamp"), cells.values.get("rating")
        time = order if stamp is None else parse_timestamp(stamp, f"{cells.where}, timestamp")
        value = 1.0 if rating is None else parse_float(rating, f"{cells.where}, rating")
        yield Event(_id(cells, "user_id"), _id(cells, "item_id"), time, value)


def _items(path: Path, fields: FieldRoles, name: Callable[[str, str], tuple[str, int | None]]) -> Iterator[Item]:
    """Yield items; `name` turns (raw title, id) into (title to show, year found in the title or None)."""
    needed = ["item_id", *(f for f in (fields.title, fields.text, fields.year) if f)]
    needed += [column for column, _ in fields.attributes.values()]
    rows = list(_rows(path, needed))
    if not rows:
        raise DataError(f"{path}, line 2: no items below the header")
    separators = {
        column: _separator(rows, column) for column, kind in fields.attributes.values() if kind == "token_seq"
    }
    seen: dict[str, str] = {}
    for cells in rows:
        id = _id(cells, "item_id")
        if id in seen:
            raise DataError(f"{cells.where}: item_id {id!r} was there before ({seen[id]})")
        seen[id] = cells.where
        title, year = name(cells.values[fields.title] if fields.title else "", id)
        text = plain_text(cells.values[fields.text]) if fields.text else ""
        attributes = _attributes(cells, fields, separators)
        if (stated := _year(cells, fields) or year) is not None:
            attributes["year"] = stated
        yield Item(id, title, text, attributes)


def _plain(raw: str, id: str) -> tuple[str, int | None]:
    title = plain_text(raw)
    return (title if clean_text(title, ID_LIMIT) else id), None


def _film(raw: str, id: str) -> tuple[str, int | None]:
    """Return the title with its article first, and the year if it contains one.

    In MovieLens-100k one title still contains its year, and item 267 has no name.
    """
    title, year = split_year(clean_text(raw, ID_LIMIT))
    return ("Unknown film" if title in _NO_NAME else display_title(title)), year


def _year(cells: AtomicRow, fields: FieldRoles) -> int | None:
    """Return the year when the column holds four digits, else None; `unknown` and similar words mean no year."""
    raw = cells.values[fields.year].strip() if fields.year else ""
    match = re.fullmatch(r"(\d{4})(\.0*)?", raw, re.ASCII)
    return int(match[1]) if match else None


def _attributes(cells: AtomicRow, fields: FieldRoles, separators: Mapping[str, str]) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for name, (column, kind) in fields.attributes.items():
        raw = cells.values[column].strip()
        if not raw:
            continue
        if kind == "float":
            found[name] = parse_float(raw, f"{cells.where}, {column}")
        elif kind == "token":
            found[name] = raw
        else:
            words = (word.strip(" '\"[]") for word in raw.split(separators[column]))
            found[name] = tuple(dict.fromkeys(w for w in words if w and w.casefold() != "unknown"))
    return found


def _separator(rows: Sequence[AtomicRow], column: str) -> str:
    """Return the separator of a column's values: `|` if any line has it, else `,` if any line has it, else a space."""
    return next((mark for mark in "|," if any(mark in cells.values[column] for cells in rows)), " ")
