"""Parses filter expressions (`genre=Comedy`, `year>=1990`, `tags!=Zombies`) and filters given as JSON."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Iterable, Mapping, Sequence

from llmrec.data.attribute_types import encode_date
from llmrec.data.catalog import Catalog
from llmrec.data.filters import Filters, Range, ValuesByAttribute, split_name
from llmrec.errors import RequestError

MAX_CONDITIONS = 100  # most conditions of one request, and most values in all
MAX_CONDITION_LENGTH = 200  # most characters of a condition
_CONDITION = re.compile(r"\s*(?P<name>.*?\S)\s*(?P<sign>>=|<=|!=|=)\s*(?P<value>.*\S)\s*", re.DOTALL)
_FORM = "write attribute=value, attribute!=value, attribute>=number or attribute<=number"
_CHOICES = ("any_of", "all_of", "none_of")


def parse_conditions(where: Iterable[str], exclude: Iterable[str], catalog: Catalog) -> Filters:
    """Parse conditions into filters; all conditions must hold.

    Args:
        where: `genre=Comedy` (`genre=Comedy|Drama` for either), `tags!=Zombies`, `year>=1990`, `year<=1999`.
        exclude: `tags=Zombies`, which means the same as `tags!=Zombies` in `where`.
        catalog: the catalogue to filter; its attributes and values match without regard to case.

    Raises:
        RequestError: a condition of another form, an unknown attribute or value, or too many or too long conditions.
            The message is one line.
    """
    given = [*((one, False) for one in where), *((one, True) for one in exclude)]
    if len(given) > MAX_CONDITIONS:
        raise RequestError(f"{len(given)} conditions; give at most {MAX_CONDITIONS}")
    found = Filters()
    for text, out in given:
        found = _combine(found, _parse_condition(text, out, catalog), text)
    catalog.where(found)
    return found


def parse_json_filters(given: object, catalog: Catalog) -> Filters:
    """Parse filters from JSON: `{"any_of": {"genre": ["Comedy"]}, "none_of": {...}, "ranges": {"year": [1990, null]}}`.

    Args:
        given: an object with some of the parts of `Filters`; None or an empty object means no filters.
        catalog: the catalogue to filter.

    Raises:
        RequestError: JSON of another form, an unknown attribute or value, or too many values. The message is one line.
    """
    if given is None:
        return Filters()
    if not isinstance(given, Mapping):
        raise RequestError(f"filters are of type {type(given).__name__}; give an object such as {_EXAMPLE}")
    if odd := [key for key in given if key not in (*_CHOICES, "ranges")]:
        raise RequestError(
            f"filters have no part {_short(odd[0])}; the parts are any_of, all_of, none_of and ranges: {_EXAMPLE}"
        )
    parts = {name: _parse_values(name, given[name], catalog) for name in _CHOICES if name in given}
    ranges = _parse_ranges(given.get("ranges", {}), catalog)
    if sum(len(values) for part in parts.values() for values in part.values()) + len(ranges) > MAX_CONDITIONS:
        raise RequestError(f"filters hold more than {MAX_CONDITIONS} values; give at most {MAX_CONDITIONS}")
    found = Filters(**parts, ranges=ranges)
    catalog.where(found)
    return found


_EXAMPLE = '{"any_of": {"genre": ["Comedy"]}, "ranges": {"year": [1990, null]}}'


def _combine(one: Filters, other: Filters, text: str) -> Filters:
    try:
        return one.intersect(other)
    except ValueError:
        raise RequestError(f"{_short(text)} is a second choice of one attribute; put all its values into one") from None


def _parse_condition(text: str, out: bool, catalog: Catalog) -> Filters:
    if len(text) > MAX_CONDITION_LENGTH:
        raise RequestError(f"a condition has {len(text):,} characters; it has at most {MAX_CONDITION_LENGTH}")
    match = _CONDITION.fullmatch(text)
    if match is None:
        raise RequestError(f"{text!r} is no condition; {_FORM}")
    name, sign, value = _attribute(match["name"], catalog), match["sign"], match["value"]
    if out and sign != "=":
        raise RequestError(f"{text!r} is nothing to exclude; write attribute=value")
    if sign in {">=", "<="}:
        edge = _number(name, value, catalog)
        return Filters(ranges={name: (edge, None) if sign == ">=" else (None, edge)})
    if not out and sign == "=" and catalog.attribute_type(name) in {"number", "date"}:
        edge = _number(name, value, catalog)
        return Filters(ranges={name: (edge, edge)})
    known = {one.casefold() for one in catalog.values(name)}
    values = (value,) if value.casefold() in known else tuple(one.strip() for one in value.split("|") if one.strip())
    if out or sign == "!=":
        return Filters(none_of={name: values})
    return Filters(any_of={name: values}) if len(values) > 1 else Filters(all_of={name: values})


def _attribute(name: str, catalog: Catalog) -> str:
    """Return the attribute in the catalogue's spelling; `catalog.values` raises RequestError for an unknown one."""
    alike = [one for one in catalog.attribute_names if one.casefold() == name.casefold()]
    found = name if name in catalog.attribute_names or len(alike) != 1 else alike[0]
    catalog.values(found)
    return found


def _number(name: str, value: str, catalog: Catalog) -> float:
    if catalog.attribute_type(name) == "date":
        try:
            return encode_date(datetime.date.fromisoformat(value))
        except ValueError:
            raise RequestError(f"{name} {value!r} is no date; write it as 2013-05-01") from None
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if math.isnan(number):
        raise RequestError(f"{name} {value!r} is no number; {_FORM}")
    return int(number) if number.is_integer() else number


def _parse_values(part: str, given: object, catalog: Catalog) -> ValuesByAttribute:
    if not isinstance(given, Mapping):
        raise RequestError(f"{part} is {_short(given)}; it must be an object such as {_EXAMPLE}")
    found = {}
    for name, values in given.items():
        if not _are_texts(values) or not isinstance(name, str):
            raise RequestError(f"{part} of {_short(name)} is {_short(values)}; it must be a list of texts")
        found["|".join(_attribute(one, catalog) for one in _split_attribute(name, catalog))] = tuple(values)
    return found


def _split_attribute(name: str, catalog: Catalog) -> tuple[str, ...]:
    return (name,) if name in catalog.attribute_names else split_name(name)


def _are_texts(values: object) -> bool:
    if not isinstance(values, Sequence) or isinstance(values, str):
        return False
    return len(values) <= MAX_CONDITIONS and all(
        isinstance(one, str) and len(one) <= MAX_CONDITION_LENGTH for one in values
    )


def _parse_ranges(given: object, catalog: Catalog) -> Mapping[str, Range]:
    if not isinstance(given, Mapping):
        raise RequestError(f"ranges are {_short(given)}; they must be an object such as {_EXAMPLE}")
    found: dict[str, Range] = {}
    for name, bound in given.items():
        pair = isinstance(bound, Sequence) and not isinstance(bound, str) and len(bound) == 2
        if not isinstance(name, str) or not pair or not all(_is_bound(edge) for edge in bound):
            raise RequestError(f"the range of {_short(name)} is {_short(bound)}; it must be [low, high], null for open")
        low, high = bound
        found[_attribute(name, catalog)] = (low, high)
    return found


def _is_bound(edge: object) -> bool:
    return edge is None or (isinstance(edge, int | float) and not isinstance(edge, bool) and math.isfinite(edge))


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
