"""The base model asked in plain words, and its titles looked up in the catalogue: free generation as a yardstick."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rapidfuzz import fuzz, process

from llmrec.catalog import Catalog
from llmrec.eval.grounding_requests import Demand
from llmrec.eval.language_generate import replies
from llmrec.model import RecModel
from llmrec.titles import display_title, split_year, title_key

HISTORY = 10  # latest items that the prompt names
ASKED = 10
TOKENS = 200
ALIKE = 90.0  # of 100: a title with a slip in it still counts as the catalogue's
_LINE = re.compile(r"^\s*(?:\d{1,2}\s*[.):]|[-*\u2022])\s*(?P<title>.+?)\s*$")
_TAIL = re.compile(r"\s+[-\u2013\u2014:]\s+.*$|\s+by [A-Z].*$")
_MARKS = "\"'\u201c\u201d\u2018\u2019*_` "


@dataclass(frozen=True)
class Listed:
    """What the base model listed: its titles, and for each the row it means, -1 where the catalogue has no such one."""

    titles: tuple[str, ...]
    rows: tuple[int, ...]


def ask(
    model: RecModel, catalog: Catalog, demands: Sequence[Demand], progress: Callable[[int], None] | None = None
) -> list[Listed]:
    """Let the base model list items for each demand, greedily.

    Args:
        model: the bundle, LoRA not merged.
        catalog: for the history's titles and for looking up.
        demands: the requests.
        progress: is told how many are done.
    """
    with model.base_only():
        said = replies(model, [prompt(catalog, demand) for demand in demands], TOKENS, progress=progress)
    return [look_up(catalog, titles_of(one.text)) for one in said]


def prompt(catalog: Catalog, demand: Demand) -> str:
    """The user's message: what is known, the request, and the form of the answer."""
    titles = [catalog.label(row) for row in demand.history[-HISTORY:]]
    known = f"I liked these {catalog.domain}: {'; '.join(titles)}.\n" if titles else ""
    return f"{known}{demand.text}\nList the titles of {ASKED} {catalog.domain}, numbered, one a line, nothing else."


def titles_of(text: str) -> tuple[str, ...]:
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
    return tuple(dict.fromkeys(title for title in found if title))[:ASKED]


def look_up(catalog: Catalog, titles: tuple[str, ...]) -> Listed:
    """The row of each title: the same but for case, marks and articles, or alike to 90 %; a year must fit to one.

    More lenient than a person would be, so that the base model is not blamed for spelling.
    """
    keys = {row: _bare(item.title) for row, item in enumerate(catalog.items)}
    rows = []
    for one in titles:
        title, year = split_year(one)
        fitting = {row: key for row, key in keys.items() if year is None or _year_fits(catalog, row, year)}
        best = process.extractOne(_bare(title), fitting, scorer=fuzz.ratio, score_cutoff=ALIKE)
        rows.append(-1 if best is None else int(best[2]))
    return Listed(titles, tuple(rows))


def _year_fits(catalog: Catalog, row: int, year: int) -> bool:
    own = catalog[row].attributes.get("year")
    return not isinstance(own, int | float) or abs(own - year) <= 1


def _bare(title: str) -> str:
    return re.sub(r"^(?:the|a|an) (?=.)", "", title_key(display_title(title)))
