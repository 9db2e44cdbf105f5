"""Parses numeric and date constraints: `under $20`, `at least 4 players`, `released after March 2012`.

The words for an attribute are derived from its name in the catalogue alone: `number_of_players` is asked for as
`players` in any domain. Years are parsed in `llmrec.nlu.years`.
"""

from __future__ import annotations

import calendar
import datetime
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from llmrec.data.attribute_types import encode_date
from llmrec.data.catalog import Catalog
from llmrec.data.filters import Range
from llmrec.nlu.english import FILLER
from llmrec.nlu.lexicon import is_year_attribute

_PRICES = ("price", "cost", "prices")
_MONEY = r"(?:dollars?|bucks|euros?|pounds?|usd|eur|gbp|yen)"
_SIGN = r"[$\u20ac\u00a3\u00a5]"
_NUMBER = r"\d{1,3}(?:,\d{3}){1,4}(?:\.\d{1,6})?(?!\d)|\d{1,12}(?:\.\d{1,6})?(?!\d)"
_BELOW = "under|below|less than|fewer than|cheaper than|smaller than|shorter than|lower than"
_MOST = "at most|up to|no more than|not more than|not over|maximum(?: of)?|max|within|<="
_ABOVE = "over|above|more than|greater than|higher than|longer than|larger than|bigger than"
_LEAST = "at least|no less than|not less than|not under|minimum(?: of)?|min|from|>="
_COMPARE = rf"(?P<below>{_BELOW})|(?P<most>{_MOST})|(?P<above>{_ABOVE})|(?P<least>{_LEAST})|(?P<equal>exactly|equal to)"
_MONTHS = {name.casefold(): number for number, name in enumerate(calendar.month_name) if name}
_MONTHS |= {name.casefold(): number for number, name in enumerate(calendar.month_abbr) if name}
_MONTH = "|".join(sorted(_MONTHS, key=len, reverse=True))
_DAY = (
    r"(?P<iso_year>[12]\d{3})-(?P<iso_month>\d{1,2})(?:-(?P<iso_day>\d{1,2}))?"
    rf"|(?P<month>{_MONTH})\.?,?\s+(?:(?P<day>\d{{1,2}})(?:st|nd|rd|th)?,?\s+)?(?P<year>[12]\d{{3}})"
)
_WHEN = re.compile(
    r"\b(?:(?P<after>after|later than|newer than)|(?P<since>since|from|not before)|(?P<before>before|earlier than"
    rf"|older than)|(?P<until>until|till|up to|by|not after)|(?P<in>in|on|of))\s+(?:{_DAY})\b"
)
# what may follow a bare price: `under 20 for a child`, but not `under 20 pages`
_ENDS = r"(?=\s*(?:$|[.,;!?]\s|[.,;!?]$|(?:please|for|and|with|or|but|that|which|if|thanks|each|in total)\b))"
_UNKNOWN = re.compile(
    rf"\b(?:{_BELOW}|{_MOST}|{_ABOVE}|{_LEAST.replace('|from', '')})\s+(?P<sign>{_SIGN})?\s?(?:{_NUMBER})"
    rf"(?:\s?-?(?P<unit>{_MONEY}\b|[a-z]+))?(?![\w.]*\d)"
    rf"|{_SIGN}\s?(?:{_NUMBER})(?: or (?:less|more|under|below))?|\b(?:{_NUMBER})\s?{_MONEY}\b(?: or (?:less|more))?"
)
_PRICED = re.compile(r"under|below|cheaper")  # `under 20` is an amount; `at least 10` may be a list length


@dataclass(frozen=True, eq=False)
class NumericAttributes:
    """The attributes of one catalogue that hold numbers or dates, except years.

    Attributes:
        nouns: attribute -> words that name it in a sentence, lower case.
        whole: attributes whose values are all whole numbers.
        dates: attributes that hold dates, those with most values first.
    """

    nouns: dict[str, tuple[str, ...]]
    whole: frozenset[str]
    dates: tuple[str, ...]

    @cached_property
    def patterns(self) -> tuple[tuple[str, re.Pattern[str]], ...]:
        """(attribute, pattern that finds a range of it) pairs, sorted by attribute name."""
        return tuple((name, _range_pattern(words)) for name, words in sorted(self.nouns.items()))


def numeric_attributes(catalog: Catalog) -> NumericAttributes:
    """Return the attributes that hold numbers or dates, and the nouns that name them."""
    kinds = {name: catalog.attribute_type(name) for name in catalog.attribute_names}
    numbers = [name for name, kind in kinds.items() if kind == "number" and not is_year_attribute(name)]
    values = {name: [item.attributes[name] for item in catalog.items if name in item.attributes] for name in kinds}
    whole = frozenset(name for name in numbers if all(float(str(v)).is_integer() for v in values[name]))
    dates = sorted((name for name, kind in kinds.items() if kind == "date"), key=lambda name: -len(values[name]))
    return NumericAttributes(
        {name: nouns for name in numbers if (nouns := _attribute_nouns(name))}, whole, tuple(dates)
    )


def parse_numeric_ranges(text: str, amounts: NumericAttributes) -> tuple[dict[str, Range], list[tuple[int, int]]]:
    """Parse ranges of numeric attributes and of the first date attribute.

    Args:
        text: lower case, with titles blanked out.
        amounts: the numeric attributes of the catalogue.

    Returns:
        attribute -> (low, high), both inclusive, None for an open end; and the character spans that were parsed.
    """
    found: dict[str, Range] = {}
    spans: list[tuple[int, int]] = []
    for name, pattern in amounts.patterns:
        for match in pattern.finditer(text):
            if name not in found and not any(start < match.end() and match.start() < end for start, end in spans):
                found[name] = _parse_bounds(match, name in amounts.whole)
                spans.append(match.span())
    if amounts.dates and (when := _parse_date_range(text)) is not None:
        found[amounts.dates[0]], place = when
        spans.append(place)
    return found, spans


def unmatched_amounts(text: str, nouns: str) -> list[tuple[int, int]]:
    """Return the spans of amounts that no attribute holds: `under 10 dollars`, `at most 90 minutes`.

    Args:
        text: lower case, with everything parsed so far blanked out.
        nouns: alternatives of a regular expression for the domain's nouns; a number of these is not an amount.
    """
    found = []
    for match in _UNKNOWN.finditer(text):
        unit = match["unit"] or ""
        end = match.start("unit") if unit in FILLER or re.fullmatch(nouns, unit) else match.end()
        if (
            (end == match.end() and (unit or match["sign"]))
            or not match.group()[0].isalpha()
            or _PRICED.match(match.group())
        ):
            found.append((match.start(), match.start() + len(text[match.start() : end].rstrip(" -"))))
    return found


def year_range_to_dates(years: Range) -> Range:
    """Convert a range of years into a range of dates: 1990 to 1999 becomes 1990-01-01 to 1999-12-31."""
    low, high = years
    first = None if low is None else encode_date(datetime.date(int(low), 1, 1))
    return first, None if high is None else encode_date(datetime.date(int(high), 12, 31))


def _attribute_nouns(name: str) -> tuple[str, ...]:
    """Return the nouns for an attribute name: `number_of_players` -> number of players, players, player."""
    whole = " ".join(name.replace("_", " ").split()).casefold()
    last = re.sub(r"^(?:number|count|amount|no) of ", "", whole)
    forms: Iterable[str] = (whole, last, last.removesuffix("s"), f"{last.removesuffix('s')}s")
    return tuple(dict.fromkeys(form for form in forms if form))


def _range_pattern(nouns: tuple[str, ...]) -> re.Pattern[str]:
    """Return the pattern for ranges of one attribute.

    It matches `price under 20`, `under 20 dollars`, `under $20`, `between 4 and 6 players`, `20 to 30 dollars`.
    """
    priced = nouns[0].split()[-1] in _PRICES
    unit = "|".join(map(re.escape, sorted(nouns, key=len, reverse=True)))
    units = rf"{unit}|{_MONEY}" if priced else unit
    sign = rf"{_SIGN}?\s?" if priced else ""
    one, two = rf"(?P<one>{_NUMBER})", rf"(?P<two>{_NUMBER})"
    span = rf"(?:between\s+|from\s+)?{sign}{one}\s*(?:and|to|-|\u2013)\s*{sign}{two}"
    number = rf"(?:{_COMPARE})\s+{sign}(?P<edge>{_NUMBER})"
    named = rf"\b(?P<lead>{unit})\s+(?:(?:is|of|be|are|must be|should be)\s+)?(?:{span}|{number})(?!\w)"
    span_n, number_n = _rename_groups(span, "n"), _rename_groups(number, "n")
    counted = rf"(?:(?<!\w){span_n}|\b{number_n})\s*-?(?:{units})\b"
    parts = [named, counted]
    if priced:  # with a currency sign or `cheaper than`, the noun is not needed
        signed = _rename_groups(rf"(?:{_COMPARE})\s+{_SIGN}\s?(?P<edge>{_NUMBER})(?![\w.]*\d)", "s")
        cheap = "(?P<below>cheaper than|under|below|less than)"
        bare = _rename_groups(rf"{cheap}\s+(?P<edge>{_NUMBER}){_ENDS}", "b")
        between = _rename_groups(
            rf"(?:between\s+)?{_SIGN}\s?{one}\s*(?:and|to|-|\u2013)\s*{_SIGN}?\s?{two}(?![\d,.]*\d)", "r"
        )
        parts += [rf"\b{signed}", rf"\b{bare}", rf"(?<!\w){between}"]
    return re.compile("|".join(parts))


def _rename_groups(pattern: str, mark: str) -> str:
    """Append a suffix to all group names, since a regular expression may use each name only once."""
    return re.sub(r"\(\?P<(\w+)>", lambda match: f"(?P<{match[1]}_{mark}>", pattern)


def _parse_bounds(match: re.Match[str], whole: bool) -> Range:
    found = {name.split("_")[0]: text for name, text in match.groupdict().items() if text is not None}
    if "one" in found:
        low, high = sorted((_parse_number(found["one"]), _parse_number(found["two"])))
        return low, high
    edge = _parse_number(found["edge"])
    if "below" in found:
        return None, (math.ceil(edge) - 1 if whole else math.nextafter(edge, -math.inf))
    if "above" in found:
        return (math.floor(edge) + 1 if whole else math.nextafter(edge, math.inf)), None
    if "equal" in found:
        return edge, edge
    return (None, edge) if "most" in found else (edge, None)


def _parse_number(text: str) -> float:
    return float(text.replace(",", ""))


def _parse_date_range(text: str) -> tuple[Range, tuple[int, int]] | None:
    """Parse `after 2012-03-01`, `since March 2012`, `in May 2013`; a year alone is left to `llmrec.nlu.years`."""
    for match in _WHEN.finditer(text):
        days = _day_range(match)
        if days is None:
            continue
        (first, last), one = days, datetime.timedelta(days=1)
        if match["after"]:
            return (encode_date(last + one), None), match.span()
        if match["before"]:
            return (None, encode_date(first - one)), match.span()
        if match["since"]:
            return (encode_date(first), None), match.span()
        low = None if match["until"] else encode_date(first)
        return (low, encode_date(last)), match.span()
    return None


def _day_range(match: re.Match[str]) -> tuple[datetime.date, datetime.date] | None:
    """Return the first and last day of the named day or month; None if the calendar has no such day."""
    year = int(match["iso_year"] or match["year"])
    month = int(match["iso_month"] or _MONTHS[match["month"]])
    day = int(match["iso_day"] or match["day"] or 0)
    if not 1 <= month <= 12 or day > (longest := calendar.monthrange(year, month)[1]):
        return None
    return datetime.date(year, month, day or 1), datetime.date(year, month, day or longest)


__all__ = ["NumericAttributes", "numeric_attributes", "parse_numeric_ranges"]
