"""Parses table cells strictly: numbers, dates, flags, lists of words and times.

An empty cell means no value. A cell that cannot be parsed as the declared type of its column is an error that names the
place, the column and the cell. Nothing is guessed.
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
    """Return the words of a cell: a list, flattened, or text split at `separator`, without duplicates and empty words.

    Raises:
        DataError: the cell holds neither words nor a list of words.
    """
    found = (plain_text(one) if isinstance(one, str) else str(one) for one in _flat(value, where, column))
    if isinstance(value, str) and separator:
        found = (part.strip() for part in plain_text(value).split(separator))
    return tuple(dict.fromkeys(one for one in found if one))


def parse_text(value: Any, where: str, column: str) -> str:
    """Return the text of a cell: lists are joined with spaces, tags are removed and entities decoded.

    Raises:
        DataError: the cell holds neither words nor a list of words.
    """
    return " ".join(one for one in (plain_text(str(v)) for v in _flat(value, where, column)) if one)


def parse_number(value: Any, where: str, column: str) -> float | int | None:
    """Parse a number, or return None for an empty cell; `$1,299.00` is a number, `12-15` is not.

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
    """Parse a day to YYYYMMDD, or return None for an empty cell.

    Accepted are ISO 8601, `May 3, 2014`, 20140503, 2014-05 and 2014; the last two mean the first day of that period.

    Raises:
        DataError: anything else, including `03/05/2014`, which is ambiguous.
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
    """Parse a flag (true or false, yes or no, 1 or 0), or return None for an empty cell.

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
    """A time as a whole number; whether a fraction was cut off, and whether it was written as a date."""

    time: int
    is_cut: bool
    is_date: bool


def parse_moment(value: Any, where: str, column: str) -> Moment:
    """Parse the time in a cell.

    A plain number stays as it is, including `2014` and `20140503`. Any other date that `parse_day` accepts, with or
    without a time of day, becomes seconds since 1970 in UTC.

    Raises:
        DataError: anything else, including an empty cell.
    """
    if (moment := _written(value)) is not None:
        return Moment(_seconds(moment), moment.microsecond > 0, True)
    raw = str(value).strip() if isinstance(value, str | int | float | Decimal) and not isinstance(value, bool) else ""
    if not _COUNT.fullmatch(raw):
        raise DataError(f"{where}: {column} {_shown(value)} is not a time; write 2014-05-03T10:00:00 or a whole number")
    found = parse_timestamp(raw, f"{where}: {column}")
    return Moment(found, not raw.lstrip("+-").isdigit() and not float(raw).is_integer(), False)


def _written(value: Any) -> datetime.datetime | None:
    """Return the moment of a cell that holds a date or a written date; None for numbers and anything else."""
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
    """Yield the non-empty values of a cell, with nested lists flattened."""
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
    """Remove the fraction .0 of a float, a decimal or text, such as 2014.0 or "2014.0", which data frames write.

    Other values are returned unchanged.
    """
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
