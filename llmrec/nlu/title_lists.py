"""Titles that a language model listed in free words, read out of its answer and looked up in the catalogue."""

from __future__ import annotations

import re
from dataclasses import dataclass

from rapidfuzz import fuzz, process

from llmrec.data.catalog import Catalog
from llmrec.data.titles import display_title, split_year, title_key

MAX_TITLES = 10  # titles of an answer that count
MIN_SIMILARITY = 90.0  # of 100: a title with a slip in it still counts as the catalogue's
_LINE = re.compile(r"^\s*(?:\d{1,2}\s*[.):]|[-*\u2022])\s*(?P<title>.+?)\s*$")
_TAIL = re.compile(r"\s+[-\u2013\u2014:]\s+.*$|\s+by [A-Z].*$")
_MARKS = "\"'\u201c\u201d\u2018\u2019*_` "


@dataclass(frozen=True)
class LinkedTitles:
    """What was listed: the titles, and for each the row it means, -1 where the catalogue has no such one."""

    titles: tuple[str, ...]
    rows: tuple[int, ...]


def parse_title_list(text: str) -> tuple[str, ...]:
    r"""The titles of a numbered list, without marks, descriptions and repetitions; an unfinished last line counts.

    >>> titles_of('Sure:\n1. "Heat" (1995)\n2. **Alien** - a classic\n3. Heat (1995)')
    ('Heat (1995)', 'Alien')
    """
    found = []
    for line in text.splitlines():
        match = _LINE.match(line)
        for piece in match["title"].split(";") if match else []:
            title, year = split_year(_TAIL.sub("", piece).strip())
            title = title.strip(_MARKS).rstrip(".,")
            found.append(f"{title} ({year})" if year and title else title)
    return tuple(dict.fromkeys(title for title in found if title))[:MAX_TITLES]


def link_titles(catalog: Catalog, titles: tuple[str, ...]) -> LinkedTitles:
    """The row of each title: the same but for case, marks and articles, or alike to 90 %; a year must fit to one.

    More lenient than a person would be, so that the language model is not blamed for spelling.
    """
    keys = {row: _bare(item.title) for row, item in enumerate(catalog.items)}
    rows = []
    for one in titles:
        title, year = split_year(one)
        fitting = {row: key for row, key in keys.items() if year is None or _year_fits(catalog, row, year)}
        best = process.extractOne(_bare(title), fitting, scorer=fuzz.ratio, score_cutoff=MIN_SIMILARITY)
        rows.append(-1 if best is None else int(best[2]))
    return LinkedTitles(titles, tuple(rows))


def _year_fits(catalog: Catalog, row: int, year: int) -> bool:
    own = catalog[row].attributes.get("year")
    return not isinstance(own, int | float) or abs(own - year) <= 1


def _bare(title: str) -> str:
    return re.sub(r"^(?:the|a|an) (?=.)", "", title_key(display_title(title)))
