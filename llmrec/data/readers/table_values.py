"""Parses table cells strictly: numbers, dates, flags, lists of words and times.

An empty cell is no value. Anything that cannot be read as what its column is said to hold is an error that names the
place, the column and the cell; nothing is guessed.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, NamedTuple

from llmrec.data.attribute_types import encode_date, is_date
from llmrec.data.readers.common import parse_float, parse_timestamp
from llmrec.data.readers.markup import plain_text
from llmrec.errors import DataError

_AMOUNT = re.compile(r"[$\u20ac\u00a3\u00a5]?\s?([+-]?\d{1,3}(?:,\d{3})+(?:\.\d+)?|[+-]?\d[\d.eE+-]*)", re.ASCII)
_TRUE, _FALSE = frozenset(["true", "t", "yes", "y", "1"]), frozenset(["false", "f", "no", "n", "0"])
_WRITTEN = ("%B %d, %Y", "%b %d, %Y", "%d %B %Y", "%d %b %Y", "%B %Y", "%Y/%m/%d")
_COUNT = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_FLOATED = re.compile(r"(\d{1,8})\.0+", re.ASCII)
_LONGEST = 64


def parse_words(value: Any, separator: str, where: str, column: str) -> tuple[str, ...]:
    """Return the words of a cell: a list, flattened, or text cut at `separator`; doubles and empties left out.

    Raises:
        DataError: what is neither words nor a list of words.
    """
    found = (plain_text(one) if isinstance(one, str) else str(one) for one in _flat(value, where, column))
    if isinstance(value, str) and separator:
        found = (part.strip() for part in plain_text(value).split(separator))
    return tuple(dict.fromkeys(one for one in found if one))


def parse_text(value: Any, where: str, column: str) -> str:
    """Return the text of a cell, lists joined with spaces, tags and entities decoded.

    Raises:
        DataError: what is neither words nor a list of words.
    """
    return " ".join(one for one in (plain_text(str(v)) for v in _flat(value, where, column)) if one)


def parse_number(value: Any, where: str, column: str) -> float | int | None:
    """Return a number; `$1,299.00` is one, `12-15` is not.

    Raises:
        DataError: anything else.
    """
    if _empty(value):
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        raise DataError(f"{where}: {column} {_shown(value)} is not a number")
    if isinstance(value, Decimal):
        value = float(value)
    elif isinstance(value, str):
        match = _AMOUNT.fullmatch(value.strip()[:_LONGEST])
        value = match[1].replace(",", "") if match else value
    exact = parse_float(str(value), f"{where}: {column}")
    return int(exact) if exact.is_integer() and abs(exact) < 2**53 else exact


def parse_day(value: Any, where: str, column: str) -> int | None:
    """Return a day as YYYYMMDD: ISO 8601, `May 3, 2014`, 20140503, 2014-05 or 2014 (the first day of it).

    Raises:
        DataError: anything else; `03/05/2014`, which means two days, too.
    """
    if _empty(value):
        return None
    if isinstance(value, datetime.datetime | datetime.date):
        return encode_date(value)
    exact = _unfloated(value)
    raw = str(exact).strip() if isinstance(exact, str | int) and not isinstance(exact, bool) else ""
    if len(raw) <= _LONGEST and (found := _day(raw)) is not None:
        return found
    raise DataError(f"{where}: {column} {_shown(value)} is not a date; write it as 2014-05-03")


def parse_flag(value: Any, where: str, column: str) -> bool | None:
    """Return a flag: true or false, yes or no, 1 or 0.

    Raises:
        DataError: anything else.
    """
    if _empty(value):
        return None
    raw = str(_unfloated(value)).strip().casefold()[:_LONGEST]
    if raw in _TRUE or raw in _FALSE:
        return raw in _TRUE
    raise DataError(f"{where}: {column} {_shown(value)} is not a flag; write true or false")


class Moment(NamedTuple):
    """A moment as a whole number that grows; whether a fraction of it was cut off, and whether it was a date."""

    time: int
    is_cut: bool
    is_date: bool


def parse_moment(value: Any, where: str, column: str) -> Moment:
    """Return the moment of a cell.

    A plain number stays as it is, `2014` and `20140503` too. Any other date that `parse_day` accepts, with or without a
    time of day, becomes seconds since 1970, UTC.

    Raises:
        DataError: anything else, an empty cell too.
    """
    if (moment := _written(value)) is not None:
        return Moment(_seconds(moment), moment.microsecond > 0, True)
    raw = str(value).strip() if isinstance(value, str | int | float | Decimal) and not isinstance(value, bool) else ""
    if not _COUNT.fullmatch(raw):
        raise DataError(f"{where}: {column} {_shown(value)} is not a time; write 2014-05-03T10:00:00 or a whole number")
    found = parse_timestamp(raw, f"{where}: {column}")
    return Moment(found, not raw.lstrip("+-").isdigit() and not float(raw).is_integer(), False)


def _written(value: Any) -> datetime.datetime | None:
    """The moment that a cell names as people write it, None when it counts."""
    if isinstance(value, datetime.datetime):
        return value
    if isinstance(value, datetime.date):
        return datetime.datetime(value.year, value.month, value.day)
    if not isinstance(value, str) or len(value) > _LONGEST or _COUNT.fullmatch(value.strip()):
        return None
    try:
        return datetime.datetime.fromisoformat(value.strip().replace(" UTC", "+00:00"))
    except ValueError:
        day = _day(value.strip())
    return None if day is None else datetime.datetime(day // 10_000, day // 100 % 100, day % 100)


def _seconds(moment: datetime.datetime) -> int:
    moment = moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
    return int((moment - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)) // datetime.timedelta(seconds=1))


def _day(raw: str) -> int | None:
    if raw.isascii() and raw.isdigit():
        day = int(raw) if len(raw) == 8 else int(raw) * 10_000 + 101 if len(raw) == 4 else 0
        return day if is_date(day) else None
    if re.fullmatch(r"\d{4}-\d{2}", raw, re.ASCII):
        raw += "-01"
    try:
        return encode_date(datetime.datetime.fromisoformat(raw))
    except ValueError:
        pass
    for form in _WRITTEN:
        try:
            return encode_date(datetime.datetime.strptime(" ".join(raw.split()), form))
        except ValueError:
            continue
    return None


def _flat(value: Any, where: str, column: str) -> Iterator[Any]:
    """The values in a cell, nested lists taken apart."""
    pending = [value]
    while pending:
        one = pending.pop()
        if isinstance(one, list | tuple):
            pending += reversed(one)
        elif isinstance(one, datetime.date | Decimal):
            yield str(one)
        elif not _empty(one):
            if not isinstance(one, str | int | float):
                wrong = f"{_shown(one)} is neither text nor a number"
                raise DataError(f"{where}: {column} {wrong}; give words or a list of words")
            yield one


def _unfloated(value: Any) -> Any:
    """A whole number in place of a float or decimal that is one, as data frames write them: 2014.0, "2014.0" too."""
    if isinstance(value, str):
        match = _FLOATED.fullmatch(value.strip())
        return match[1] if match else value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return int(value) if isinstance(value, Decimal) and value == value.to_integral_value() else value


def _empty(value: Any) -> bool:
    return value is None or value == "" or value != value or (isinstance(value, str) and not value.strip())


def _shown(value: Any) -> str:
    return repr(value)[:60]
