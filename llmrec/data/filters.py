"""Filters on catalogue attributes, and the table that evaluates them to a mask over rows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from rapidfuzz import fuzz, process

from llmrec.data.attribute_types import format_number
from llmrec.errors import RequestError

Value: TypeAlias = str | int | float | tuple[str, ...]
Mask: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]
Range: TypeAlias = tuple[float | None, float | None]
ValuesByAttribute: TypeAlias = Mapping[str, tuple[str, ...]]

_JOIN = "|"


@dataclass(frozen=True)
class Filters:
    """Constraints on the attributes of items; an item must satisfy all parts. Values match without regard to case.

    A value may occur in more than one attribute. The name `genre|tags` stands for both attributes: an item has the
    value when either of them holds it.

    Attributes:
        any_of: attribute -> values, at least one of which the item must have.
        all_of: attribute -> values, all of which the item must have.
        none_of: attribute -> values, none of which the item may have; an item without the attribute passes.
        ranges: attribute -> (low, high), both inclusive, None for an open end; an item without the attribute fails.
    """

    any_of: ValuesByAttribute = field(default_factory=dict)
    all_of: ValuesByAttribute = field(default_factory=dict)
    none_of: ValuesByAttribute = field(default_factory=dict)
    ranges: Mapping[str, Range] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        """Whether the filters let every item pass."""
        choices = (*self.any_of.values(), *self.all_of.values(), *self.none_of.values())
        return not any(choices) and all(bound == (None, None) for bound in self.ranges.values())

    def describe(self) -> str:
        """Describe the constraints to people: `genre Comedy or Drama, not genre War, year 1990 to 1999`."""
        parts = [f"{attribute_phrase(name)} {' or '.join(values)}" for name, values in self.any_of.items() if values]
        parts += [f"{attribute_phrase(name)} {' and '.join(values)}" for name, values in self.all_of.items() if values]
        parts += [
            f"not {attribute_phrase(name)} {' or '.join(values)}" for name, values in self.none_of.items() if values
        ]
        parts += [f"{name} {_format_range(bound)}" for name, bound in self.ranges.items() if bound != (None, None)]
        return ", ".join(parts)

    def merge(self, other: Filters) -> Filters:
        """Add filters that were stated later; where the two contradict each other, the later ones win.

        A later `any_of` replaces the earlier one of the same attribute. `all_of` and `none_of` are united. A value that
        is required later is no longer excluded, and a value that is excluded later is no longer required. Ranges are
        intersected; if the intersection is empty, the later range replaces the earlier one. Joined attribute names
        count as the same attribute when they share a part.
        """
        wanted = _union(other.any_of, other.all_of)
        kept = {
            name: values
            for name, values in self.any_of.items()
            if not any(share_attribute(name, new) for new in other.any_of)
        }
        any_of = {**_without(kept, other.none_of), **other.any_of}
        all_of = _union(_without(self.all_of, other.none_of), other.all_of)
        none_of = _union(_without(self.none_of, wanted), other.none_of)
        ranges = dict(self.ranges)
        for name, bound in other.ranges.items():
            ranges[name] = _narrow_range(ranges.get(name, (None, None)), bound)
        return Filters(any_of, all_of, none_of, ranges)

    def intersect(self, other: Filters) -> Filters:
        """Return filters that require the constraints of both.

        Raises:
            ValueError: both have alternatives (`any_of`) for the same attribute.
        """
        if set(self.any_of) & set(other.any_of):
            raise ValueError("both hold alternatives of one attribute; intersect their masks instead")
        any_of = {**self.any_of, **other.any_of}
        ranges = {
            name: _intersection(self.ranges.get(name, (None, None)), other.ranges.get(name, (None, None)))
            for name in dict.fromkeys((*self.ranges, *other.ranges))
        }
        return Filters(any_of, _union(self.all_of, other.all_of), _union(self.none_of, other.none_of), ranges)


class AttributeTable:
    """Index of a catalogue's rows by attribute value, built once, which evaluates filters to masks over rows."""

    def __init__(self, attributes: Sequence[Mapping[str, Value]]) -> None:
        self.n = len(attributes)
        self.names: tuple[str, ...] = tuple(sorted({name for one in attributes for name in one}))
        self._rows: dict[str, dict[str, list[int]]] = {name: {} for name in self.names}
        self._spelling: dict[str, dict[str, str]] = {name: {} for name in self.names}
        self._numbers: dict[str, np.ndarray[Any, np.dtype[np.float64]]] = {}
        for row, one in enumerate(attributes):
            for name, value in one.items():
                for word in value if isinstance(value, tuple) else (str(value),):
                    self._rows[name].setdefault(word.casefold(), []).append(row)
                    self._spelling[name].setdefault(word.casefold(), word)
                if isinstance(value, int | float):
                    column = self._numbers.setdefault(name, np.full(self.n, np.nan))
                    column[row] = value

    def values(self, name: str) -> tuple[str, ...]:
        """Return the sorted distinct values of an attribute."""
        self._known(name)
        return tuple(sorted(self._spelling[name].values()))

    def mask(self, filters: Filters) -> Mask:
        """Return bool[n]: the rows that satisfy the filters.

        Raises:
            RequestError: an unknown attribute or value, or a range over words; the message names valid choices.
        """
        allowed = np.ones(self.n, bool)
        for name, values in filters.any_of.items():
            if values:
                allowed &= np.any([self._having(name, value) for value in values], axis=0)
        for name, values in filters.all_of.items():
            for value in values:
                allowed &= self._having(name, value)
        for name, values in filters.none_of.items():
            for value in values:
                allowed &= ~self._having(name, value)
        for name, bound in filters.ranges.items():
            allowed &= self._between(name, bound)
        return allowed

    def _known(self, name: str) -> None:
        if name not in self._rows:
            valid = ", ".join(self.names) or "none"
            raise RequestError(f"no attribute {name!r} in this catalogue; it has: {valid}")

    def _having(self, name: str, value: str) -> Mask:
        parts = (name,) if name in self._rows else split_name(name)
        for part in parts:
            self._known(part)
        key = value.casefold()
        found = [self._rows[part][key] for part in parts if key in self._rows[part]]
        if not found:
            known = {word: spelling for part in parts for word, spelling in self._spelling[part].items()}
            near = process.extract(key, known, scorer=fuzz.ratio, limit=20)
            valid = ", ".join(sorted(match[0] for match in near))
            raise RequestError(f"no {attribute_phrase(name)} {value!r} in this catalogue; choose from: {valid}")
        mask = np.zeros(self.n, bool)
        for rows in found:
            mask[rows] = True
        return mask

    def _between(self, name: str, bound: Range) -> Mask:
        self._known(name)
        low, high = bound
        if any(edge is not None and math.isnan(edge) for edge in bound):
            raise RequestError(f"{name} range {bound} holds NaN; give numbers or None")
        if name not in self._numbers:
            numeric = ", ".join(sorted(self._numbers)) or "none"
            raise RequestError(f"attribute {name!r} holds words, not numbers; ranges work on: {numeric}")
        if bound == (None, None):
            return np.ones(self.n, bool)
        column = self._numbers[name]
        # an item without the attribute is NaN, for which both comparisons are false
        return (column >= (-math.inf if low is None else low)) & (column <= (math.inf if high is None else high))


def join_names(names: Iterable[str]) -> str:
    """Return the joined name of several attributes, any of which may hold a value: `genre|tags`."""
    return _JOIN.join(names)


def split_name(name: str) -> tuple[str, ...]:
    """Return the attributes of a joined name; the inverse of `join_names`."""
    return tuple(name.split(_JOIN))


def attribute_phrase(name: str) -> str:
    """Return an attribute name, joined or not, as it reads in a sentence: `genre or tags`."""
    return " or ".join(split_name(name))


def share_attribute(one: str, other: str) -> bool:
    """Return whether two attribute names, joined or not, share an attribute."""
    return one == other or not set(split_name(one)).isdisjoint(split_name(other))


def _format_range(bound: Range) -> str:
    low, high = bound
    if low is None:
        return "anything" if high is None else f"at most {format_number(high)}"
    return f"at least {format_number(low)}" if high is None else f"{format_number(low)} to {format_number(high)}"


def _union(first: ValuesByAttribute, second: ValuesByAttribute) -> dict[str, tuple[str, ...]]:
    names = dict.fromkeys((*first, *second))
    return {name: _distinct((*first.get(name, ()), *second.get(name, ()))) for name in names}


def _distinct(values: Iterable[str]) -> tuple[str, ...]:
    return tuple({value.casefold(): value for value in values}.values())


def _without(choice: ValuesByAttribute, removed: ValuesByAttribute) -> dict[str, tuple[str, ...]]:
    """Drop the values that `removed` names, and attributes that have no values left."""
    kept = {}
    for name, values in choice.items():
        gone = {value.casefold() for other, found in removed.items() if share_attribute(name, other) for value in found}
        if left := tuple(value for value in values if value.casefold() not in gone):
            kept[name] = left
    return kept


def _intersection(one: Range, other: Range) -> Range:
    lows = [low for low in (one[0], other[0]) if low is not None]
    highs = [high for high in (one[1], other[1]) if high is not None]
    return max(lows, default=None), min(highs, default=None)


def _narrow_range(earlier: Range, later: Range) -> Range:
    low, high = _intersection(earlier, later)
    return later if low is not None and high is not None and low > high else (low, high)
