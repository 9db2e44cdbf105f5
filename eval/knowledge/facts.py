"""Compares item notes with facts from another source: directors and stars in ReDial's film table."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rapidfuzz import fuzz

from llmrec.data.catalog import Catalog
from llmrec.data.titles import title_key
from llmrec.errors import DataError
from llmrec.eval.crs.redial import FILMS, find
from llmrec.eval.knowledge.film_labels import label_keys

_ALIKE = 85.0  # similarity out of 100: `Stanley Donen` and `Stanly Donen` are one person
_YEAR = re.compile(r"(?P<title>.*?)\s*\((?P<year>\d{4})\)")


@dataclass(frozen=True)
class Fact:
    """What the other source says about a film."""

    directors: tuple[str, ...]
    stars: tuple[str, ...]


@dataclass(frozen=True)
class Agreement:
    """How one field of the notes compares with the other source.

    Attributes:
        agreed: per compared film, whether both agree.
        differing: (row, what the note says, what the other source says) of the films that disagree.
    """

    agreed: tuple[bool, ...]
    differing: tuple[tuple[int, tuple[str, ...], tuple[str, ...]], ...]


def read_facts(directory: Path) -> dict[tuple[str, int], Fact]:
    """Read ReDial's film table by (title key, year).

    Raises:
        DataError: the file is missing or malformed.
    """
    path = find(directory, FILMS)
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as file:
            films = json.load(file)
        found = (_fact(one) for one in films.values())
        return {key: fact for pair in found if pair is not None for key, fact in (pair,)}
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not ReDial's film table: {str(error)[:100]}") from None


def _fact(film: Mapping[str, Any]) -> tuple[tuple[str, int], Fact] | None:
    named = _YEAR.fullmatch(film["name"])
    if named is None:
        return None
    stars, writers = tuple(film.get("star") or ()), tuple(film.get("writer") or ())
    # Four entries list the writers as stars, so there is no cast to compare with.
    fact = Fact(tuple(film.get("director") or ()), () if set(stars) <= set(writers) else stars)
    return (title_key(named["title"]), int(named["year"])), fact


def matched(catalog: Catalog, facts: Mapping[tuple[str, int], Fact]) -> dict[int, Fact]:
    """Return row -> fact for films whose title, without parts in brackets, and year match."""
    found = {}
    for row, item in enumerate(catalog.items):
        for key in label_keys(item):
            if key in facts:
                found[row] = facts[key]
    return found


def directors_agree(catalog: Catalog, facts: Mapping[int, Fact]) -> Agreement:
    """Compare directors: a note agrees if it names one of the other source's directors and nobody else."""
    pairs = _pairs(catalog, "director", {row: fact.directors for row, fact in facts.items()})
    return _agreement(pairs, lambda ours, theirs: all(known(one, theirs) for one in ours))


def casts_agree(catalog: Catalog, facts: Mapping[int, Fact]) -> Agreement:
    """Compare casts: a note agrees if its first two actors are among the other source's stars."""
    pairs = _pairs(catalog, "actor", {row: fact.stars for row, fact in facts.items()})
    return _agreement(pairs, lambda ours, theirs: all(known(one, theirs) for one in ours[:2]))


def _pairs(
    catalog: Catalog, name: str, other: Mapping[int, tuple[str, ...]]
) -> Iterable[tuple[int, tuple[str, ...], tuple[str, ...]]]:
    for row, theirs in other.items():
        ours = catalog[row].attributes.get(name)
        if isinstance(ours, tuple) and ours and theirs:
            yield row, ours, theirs


def _agreement(pairs: Iterable[tuple[int, tuple[str, ...], tuple[str, ...]]], agree: Any) -> Agreement:
    compared = [(row, ours, theirs, bool(agree(ours, theirs))) for row, ours, theirs in pairs]
    differing = tuple((row, ours, theirs) for row, ours, theirs, same in compared if not same)
    return Agreement(tuple(same for *_, same in compared), differing)


def known(name: str, others: Sequence[str]) -> bool:
    """True if one of the other names is equal up to accents, case, word order and a misspelling."""
    return any(fuzz.token_sort_ratio(title_key(name), title_key(other)) >= _ALIKE for other in others)
