"""The item catalogue: immutable, in row order, with cleaned text.

Inside the project an item is identified by its row number. External ids appear only where data enters or leaves.
"""

from __future__ import annotations

import json
import math
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter

from rapidfuzz import fuzz, process

from llmrec.data.attribute_types import AttributeType, format_number, infer_type
from llmrec.data.filters import AttributeTable, Filters, Mask, Value
from llmrec.data.ids import IdVariants
from llmrec.data.titles import TitleMatcher
from llmrec.errors import DataError, RequestError
from llmrec.storage.artifacts import fingerprint_bytes

__all__ = ["Catalog", "Filters", "Item", "Value", "clean_text"]

TITLE_LIMIT = 300
TEXT_LIMIT = 4000
VALUE_LIMIT = 100
NAME_LIMIT = 50
ID_LIMIT = 200

# Code points that are invisible although they are neither control nor format characters: fillers, joiners, variation
# selectors.
_INVISIBLE = frozenset(
    [
        847,
        4447,
        4448,
        6068,
        6069,
        10240,
        12644,
        65440,
        *range(6155, 6160),
        *range(65024, 65040),
        *list(range(917504, 921600)),
    ]
)
_REMOVED = frozenset(["Cc", "Cf", "Cs", "Co", "Cn"])


@dataclass(frozen=True)
class Item:
    """One item of a catalogue; filters and explanations use its `attributes`."""

    id: str
    title: str
    text: str
    attributes: Mapping[str, Value]


def clean_text(raw: str, limit: int) -> str:
    """Return text as one line of at most `limit` characters in NFC, without invisible or reordering characters.

    Control, zero-width, bidirectional and unassigned characters are removed. Every run of white space becomes one
    space. Ordinary punctuation and all scripts stay. Cleaning a text twice gives the same result as cleaning it once.
    """
    if raw.isascii() and raw.isprintable():
        return " ".join(raw.split())[:limit].rstrip()
    spaced = "".join(" " if char.isspace() else char for char in raw)
    kept = "".join(char for char in spaced if _shows(char))
    return " ".join(unicodedata.normalize("NFC", kept).split())[:limit].rstrip()


class Catalog:
    """Items by row.

    Args:
        items: the items in row order; their text is cleaned here.
        domain: a plural noun for the items, e.g. `films`.
        notes_by: who or what wrote the item notes that are part of the texts and attributes; "" without notes.

    Raises:
        DataError: a duplicate, empty or unprintable id, an empty title, or an attribute that is not finite.
    """

    def __init__(self, items: Sequence[Item], domain: str = "items", notes_by: str = "") -> None:
        self.items: tuple[Item, ...] = tuple(_clean_item(item) for item in items)
        self.domain = clean_text(domain, NAME_LIMIT) or "items"
        self.notes_by = clean_text(notes_by, VALUE_LIMIT)
        self._rows = {item.id: row for row, item in enumerate(self.items)}
        if len(self._rows) != len(self.items):
            row = next(row for row, item in enumerate(self.items) if self._rows[item.id] != row)
            raise DataError(f"item id {self.items[row].id!r} occurs twice; ids must be unique")

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, row: int) -> Item:
        return self.items[row]

    def __repr__(self) -> str:
        return f"Catalog({len(self)} {self.domain}, {self.fingerprint[:12]})"

    @cached_property
    def fingerprint(self) -> str:
        """Sha256 hex over the domain and canonical JSON of all items."""
        items = [[item.id, item.title, item.text, dict(item.attributes)] for item in self.items]
        canonical = json.dumps([self.domain, items], sort_keys=True, separators=(",", ":"), allow_nan=False)
        return fingerprint_bytes(canonical.encode())

    @cached_property
    def has_text(self) -> bool:
        """True when at least one item has a text."""
        return any(item.text for item in self.items)

    @cached_property
    def _table(self) -> AttributeTable:
        return AttributeTable([item.attributes for item in self.items])

    @cached_property
    def _titles(self) -> TitleMatcher:
        years = [_year(item) for item in self.items]
        return TitleMatcher([i.title for i in self.items], years, [self.label(r) for r in range(len(self))])

    @cached_property
    def _id_variants(self) -> IdVariants:
        return IdVariants(self._rows)

    def row_or_none(self, id: str) -> int | None:
        """Return the row of an external id, else of the only known id with the same canonical form, else None."""
        row = self._rows.get(id)
        return row if row is not None else self._rows.get(self._id_variants.unique_variant(id) or "")

    def row(self, id: str) -> int:
        """Return the row of an external id, see `row_or_none`.

        Raises:
            RequestError: an unknown id; the message names the three closest ids.
        """
        row = self.row_or_none(id)
        if row is None:
            near = [str(match[0]) for match in process.extract(id, list(self._rows), scorer=fuzz.ratio, limit=3)]
            raise RequestError(f"no item {id!r} in this catalogue; the closest ids are {', '.join(map(repr, near))}")
        return row

    def find(self, title: str) -> int:
        """Return the row whose title matches a typed title.

        Case does not matter, `The` may stand in front or at the end, the year `(1995)` may be left out, and a few typos
        are forgiven.

        Raises:
            RequestError: no title matches, or several different ones do; the message names candidates with their years.
        """
        return self._titles.find(clean_text(title, TITLE_LIMIT))

    def exact(self, title: str) -> int | None:
        """Return the row of a typed title as `find` does, but without forgiving typos; None when nothing matches."""
        return self._titles.exact(clean_text(title, TITLE_LIMIT))

    def misspelt(self, title: str) -> int | None:
        """Return the row of a title typed with a few wrong letters; None when no title is close enough.

        Raises:
            RequestError: several different titles are equally close.
        """
        return self._titles.misspelt(clean_text(title, TITLE_LIMIT))

    def nearest(self, title: str) -> list[int]:
        """Return all rows whose titles are the fewest typos away from a typed title; a year in it must match."""
        return self._titles.nearest(clean_text(title, TITLE_LIMIT))

    def closest(self, title: str, n: int) -> list[int]:
        """Return the `n` rows with the most similar titles, best first."""
        return self._titles.closest(clean_text(title, TITLE_LIMIT), n)

    def label(self, row: int) -> str:
        """Return `Title (Year)` when the item has a year, else the title."""
        item = self.items[row]
        year = _year(item)
        return item.title if year is None else f"{item.title} ({year})"

    @cached_property
    def _same_labels(self) -> dict[int, tuple[int, ...]]:
        """Row -> all rows with the same label, for labels that occur more than once (18 films of MovieLens-100k)."""
        same = defaultdict[str, list[int]](list)
        for row in range(len(self)):
            same[self.label(row).casefold()].append(row)
        return {row: tuple(rows) for rows in same.values() if len(rows) > 1 for row in rows}

    def same_label_rows(self, rows: Iterable[int]) -> tuple[int, ...]:
        """Return the rows together with all other rows of the same labels, which a reader cannot tell apart."""
        return tuple(dict.fromkeys(same for row in rows for same in (row, *self._same_labels.get(row, ()))))

    @property
    def repeated_labels(self) -> int:
        """Number of rows whose label occurs more than once."""
        return len(self._same_labels)

    @property
    def attribute_names(self) -> tuple[str, ...]:
        """The attributes that any item has, sorted."""
        return self._table.names

    def values(self, name: str) -> tuple[str, ...]:
        """Return the sorted distinct values of an attribute; raises RequestError that names the valid attributes."""
        return self._table.values(name)

    def attribute_type(self, name: str) -> AttributeType:
        """Return the type of an attribute; raises RequestError that names the valid attributes."""
        self._table.values(name)
        return infer_type(name, (item.attributes[name] for item in self.items if name in item.attributes))

    def where(self, filters: Filters) -> Mask:
        """Return bool[n]: the rows that satisfy the filters; raises RequestError that names the valid choices."""
        return self._table.mask(filters)

    def describe(self, row: int) -> str:
        """Return all fields of an item as one line: `Toy Story (1995). Animation, Comedy. <text>`."""
        item = self.items[row]
        parts = [self.label(row)]
        for name, value in sorted(item.attributes.items()):
            if isinstance(value, tuple):
                parts.append(", ".join(value))
            elif isinstance(value, str):
                parts.append(value)
            elif name != "year":
                parts.append(f"{name} {format_number(value)}")
        return ". ".join(part for part in [*parts, item.text] if part)


def _shows(char: str) -> bool:
    return unicodedata.category(char) not in _REMOVED and ord(char) not in _INVISIBLE


def _year(item: Item) -> int | None:
    year = item.attributes.get("year")
    return year if isinstance(year, int) else None


def _clean_item(item: Item) -> Item:
    if not item.id or clean_text(item.id, ID_LIMIT) != item.id:
        raise DataError(f"item id {item.id[:ID_LIMIT]!r} is empty, too long or holds characters that do not print")
    title = clean_text(item.title, TITLE_LIMIT)
    if not title:
        raise DataError(f"item {item.id!r} has no title; give one, e.g. its id")
    pairs = ((clean_text(name, NAME_LIMIT), _clean_value(item.id, name, v)) for name, v in item.attributes.items())
    attributes = {name: value for name, value in sorted(pairs, key=itemgetter(0)) if name and value not in ("", ())}
    return Item(item.id, title, clean_text(item.text, TEXT_LIMIT), attributes)


def _clean_value(id: str, name: str, value: Value) -> Value:
    if isinstance(value, str):
        return clean_text(value, VALUE_LIMIT)
    if isinstance(value, tuple):
        return tuple(word for word in dict.fromkeys(clean_text(word, VALUE_LIMIT) for word in value) if word)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise DataError(f"item {id!r}: attribute {name!r} is {value!r}; use a word, words or a finite number")
    return value
