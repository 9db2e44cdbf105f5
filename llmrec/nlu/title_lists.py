"""Parses the list of titles in a language model's answer and links them to catalogue rows."""

from __future__ import annotations

import re
from dataclasses import dataclass

from llmrec.data.catalog import Catalog
from llmrec.data.titles import split_year

MAX_TITLES = 10  # at most this many titles of an answer are used
_LINE = re.compile(r"^\s*(?:\d{1,2}\s*[.):]|[-*\u2022])\s*(?P<title>.+?)\s*$")
_TAIL = re.compile(r"\s+[-\u2013\u2014:]\s+.*$|\s+by [A-Z].*$")
_MARKS = "\"'\u201c\u201d\u2018\u2019*_` "


@dataclass(frozen=True)
class LinkedTitles:
    """The listed titles, and the catalogue row of each; -1 where the catalogue has no such title."""

    titles: tuple[str, ...]
    rows: tuple[int, ...]


def parse_title_list(text: str) -> tuple[str, ...]:
    r"""Return the titles of a list without marks, descriptions and repetitions; an unfinished last line counts.

    >>> parse_title_list('Sure:\n1. "Heat" (1995)\n2. **Alien** - a classic\n3. Heat (1995)')
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
    """Link each title to the row with the nearest title.

    Case, punctuation, articles and typos may differ; a year may be off by at most one. Among equally near rows the
    first is taken, so that the language model is not penalised for spelling.
    """
    return LinkedTitles(titles, tuple(next(iter(catalog.nearest(one)), -1) for one in titles))
