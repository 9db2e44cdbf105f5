"""Explanations of recommended items, made only from catalogue fields of the item and of the user's own items."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llmrec.data.attribute_types import format_number
from llmrec.data.catalog import Catalog
from llmrec.data.filters import Filters
from llmrec.data.interactions import History
from llmrec.inner_product import inner
from llmrec.nlu.attribute_phrases import adjectives_of, clause, is_adjective, kinds_of, says_kind
from llmrec.nlu.wording import described_item, join_words, lower_in_sentence, unique_words, value_in_sentence

_TAGS = 3  # more would be a list, not a reason
_RECENT = 50
_TELLING = (
    "director",
    "author",
    "artist",
    "series",
    "theme",
    "actor",
)  # attributes that two items may share, the most informative first
_SUBJECTS = ("theme", "director", "author", "artist", "brand")


def tags(catalog: Catalog, row: int) -> list[str]:
    """Return all values of the item's tuple attributes, in catalogue order."""
    return [value for _, value in fields_of(catalog, row)]


def fields_of(catalog: Catalog, row: int) -> list[tuple[str, str]]:
    """Return (attribute, value) for all values of the item's tuple attributes, in catalogue order."""
    fields = catalog[row].attributes.items()
    return [(name, value) for name, values in fields if isinstance(values, tuple) for value in values]


def spoken_kinds(catalog: Catalog, row: int) -> dict[str, str]:
    """Return tag -> wording inside a sentence for the tags that say what kind of thing the item is."""
    return {value: value_in_sentence(name, value) for name, value in kinds_of(catalog[row])}


def reason(
    catalog: Catalog, row: int, history: Sequence[int], vectors: np.ndarray, message: str, filters: Filters
) -> str:
    """Return the reason for a recommended item: the wishes that it fulfils, and the liked item that it is nearest to.

    Without either, the reason is a description of the item. It has at most three tags, and names another item only if
    the user liked it.

    Args:
        catalog: the items.
        row: the recommended item.
        history: rows of the user's items; a `History` says which of them were not liked.
        vectors: float32[n, d] item vectors of the encoder, which define "nearest".
        message: the user's message.
        filters: the constraints that were applied.
    """
    asked = _asked(catalog, row, message, filters)
    facts = [*asked, *_numbers(catalog, row, filters)]
    lead = f"{join_words(facts)}, as you asked" if facts else ""
    not_liked = History(history).disliked
    liked = [one for one in history if one not in not_liked]
    near = _nearest(catalog, row, liked, vectors, asked) if liked else ""
    return "; ".join(part for part in (lead, near) if part) or describe(catalog, row)


def fulfilled(catalog: Catalog, row: int, message: str, filters: Filters) -> list[str]:
    """Return the item's properties that the message or the constraints ask for, as clauses."""
    return [*_asked(catalog, row, message, filters), *_numbers(catalog, row, filters)]


def _asked(catalog: Catalog, row: int, message: str, filters: Filters) -> list[str]:
    """Return the item's tags that the message or the constraints name: kinds as plain words, others as clauses."""
    said = f" {message.lower()} "
    wanted = {v.lower() for values in (*filters.any_of.values(), *filters.all_of.values()) for v in values}
    named: dict[str, list[str]] = {}
    for name, tag in fields_of(catalog, row):
        if {tag.lower(), tag.lower().replace("-", " ")} & wanted or _says(said, tag):
            named.setdefault("" if says_kind(name) or is_adjective(name) else name, []).append(tag)
    words = unique_words(named.pop("", []))[:_TAGS]
    return [*words, *(clause(name, tuple(values[:_TAGS])) for name, values in named.items())][:_TAGS]


def _numbers(catalog: Catalog, row: int, filters: Filters) -> list[str]:
    """Return the item's numbers that have a range among the constraints."""
    fields = catalog[row].attributes
    numbers = [(name, fields[name]) for name in filters.ranges if name in fields]
    return [_number(name, value) for name, value in numbers if isinstance(value, int | float)]


def _number(name: str, value: float) -> str:
    plain = says_kind(name) or name == "year"
    return f"{name.replace('_', ' ')} {format_number(value)}" if plain else clause(name, value)


def _says(said: str, tag: str) -> bool:
    return tag.lower() in said or tag.lower().replace("-", " ") in said


def _nearest(catalog: Catalog, row: int, liked: Sequence[int], vectors: np.ndarray, told: Sequence[str]) -> str:
    """Return a clause on the nearest liked item and what both have in common, without what `told` already says."""
    recent = np.asarray(liked[-_RECENT:], np.int64)
    near = int(recent[int(np.argmax(_cosine(vectors[recent], vectors[row])))])
    common = _common(catalog, row, near, told)
    return f"goes with {catalog.label(near)}" + (f", both {join_words(common)}" if common else "")


def _common(catalog: Catalog, row: int, other: int, told: Sequence[str]) -> list[str]:
    """Return the kinds that both items share, and one clause true of both: who made them or what they are about."""
    heard = {one.casefold() for one in told}
    theirs = {value.casefold() for _, value in kinds_of(catalog[other])} - heard
    kinds = [one for one in unique_words(value for _, value in kinds_of(catalog[row])) if one.casefold() in theirs]
    shared = [
        clause(name, tuple(both))
        for name in _TELLING
        if (both := sorted(set(_words(catalog, row, name)) & set(_words(catalog, other, name))))
    ]
    clauses = [one for one in shared if one.casefold() not in heard][:1]
    return [*kinds[: max(0, _TAGS - len(told) - len(clauses))], *clauses]


def _words(catalog: Catalog, row: int, name: str) -> tuple[str, ...]:
    value = catalog[row].attributes.get(name)
    return value if isinstance(value, tuple) else ()


def describe(catalog: Catalog, row: int) -> str:
    """Describe an item in one clause from catalogue fields: "a comedy and romance film from 1995 about weddings"."""
    item = catalog[row]
    years = (v for name, v in item.attributes.items() if name == "year" or name.endswith("_year"))
    year = next((v for v in years if isinstance(v, int) and 1000 <= v <= 2999), None)
    kinds = [value_in_sentence(name, value) for name, value in kinds_of(item)]
    said = {one.casefold() for one in kinds}
    adjective = next((one for one in map(lower_in_sentence, adjectives_of(item)) if one.casefold() not in said), "")
    head = described_item(kinds, catalog.domain, _TAGS, adjective)
    about = next((clause(name, found[:2]) for name in _SUBJECTS if (found := _words(catalog, row, name))), "")
    return " ".join(part for part in (head, f"from {year}" if year else "", about) if part)


def listing(catalog: Catalog, rows: Sequence[int]) -> str:
    """Return the shown items with their fields, one per line, as in the talk prompt."""
    return "\n".join(f"{i}. {catalog.label(row)}: {describe(catalog, row)}" for i, row in enumerate(rows, 1))


def _cosine(many: np.ndarray, one: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(many, axis=1) * max(float(np.linalg.norm(one)), 1e-9)
    return np.asarray(inner(one[None], many)[0] / np.maximum(norms, 1e-9))
