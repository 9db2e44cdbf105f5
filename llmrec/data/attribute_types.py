"""Attribute types (category, number, date, flag), inferred from the values.

A date is stored as a whole number YYYYMMDD, so ranges and comparisons work as on any number. A flag has one of two
values, such as `waterproof` and `not waterproof`, so a sentence can name it like any category. Types are not stored.
Catalogues written before types existed therefore keep their meaning and their fingerprint.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from typing import Literal

AttributeType = Literal["category", "number", "date", "flag"]

_NOT = "not "
_FIRST, _LAST = 1000_01_01, 2999_12_31

# Attributes that protect people, such as audience and violence. A limit on one of them also keeps out items whose value
# is unknown, and relaxing filters never drops it.
INTENSITIES = ("violence", "fright", "sex")
SAFETY = ("audience", *INTENSITIES)


def encode_date(day: datetime.date) -> int:
    """Return a date as YYYYMMDD."""
    return day.year * 10_000 + day.month * 100 + day.day


def is_date(value: object) -> bool:
    """Return whether a value is a whole number YYYYMMDD that is a valid day of the years 1000 to 2999."""
    if isinstance(value, bool) or not isinstance(value, int) or not _FIRST <= value <= _LAST:
        return False
    try:
        datetime.date(value // 10_000, value // 100 % 100, value % 100)
    except ValueError:
        return False
    return True


def flag_value(name: str, on: bool) -> str:
    """Return the value of a flag: its name with spaces for underscores, with `not` in front when it is off."""
    words = " ".join(name.replace("_", " ").split()).casefold()
    return words if on else _NOT + words


def infer_type(name: str, values: Iterable[object]) -> AttributeType:
    """Infer the type of an attribute from its values (words, tuples of words, numbers); without values, a category."""
    found = list(values)
    if found and all(is_date(value) for value in found):
        return "date"
    if found and all(isinstance(value, int | float) for value in found):
        return "number"
    if found and set(found) <= {flag_value(name, True), flag_value(name, False)}:
        return "flag"
    return "category"


def format_number(value: float) -> str:
    """Format a number for people: a date as 2013-05-01, any other number with at most ten significant digits.

    A large number has an exponent only where ten digits do not suffice.
    """
    whole = int(value) if float(value).is_integer() and abs(value) < 2**53 else None
    if whole is not None and is_date(whole):
        return f"{whole // 10_000:04}-{whole // 100 % 100:02}-{whole % 100:02}"
    return f"{value:.10g}"
