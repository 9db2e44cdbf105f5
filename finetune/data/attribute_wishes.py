"""Makes wishes in plain language from the attributes of an item: "a comedy from the 1990s", "a sad film"."""

from __future__ import annotations

import numpy as np

from llmrec.data.catalog import Catalog, Item
from llmrec.data.filters import Filters, Range
from llmrec.nlu.attribute_phrases import clause, is_adjective, kinds_of, says_kind
from llmrec.nlu.wording import lower_in_sentence, requested_item, value_in_sentence

_DECADE = ("from the {decade}s", "of the {decade}s", "made in the {decade}s", "from the {short}s")
_NOTED = 0.5  # share of wishes that name a mood, theme, person or place, if the item has one
_SAFETY = ("audience",)  # expressed by limits, not by wishes for one item


def wish(catalog: Catalog, row: int, rng: np.random.Generator) -> tuple[str, Filters]:
    """Return a wish for one or two fields of this item, and the equivalent filters."""
    item = catalog[row]
    kinds = kinds_of(item)
    years = [(name, int(v)) for name, v in item.attributes.items() if isinstance(v, int) and 1000 <= v <= 2999]
    noted = _noted(item)
    if noted and rng.random() < _NOTED:
        return _noted_wish(catalog, kinds, noted, rng)
    if not kinds and not years:
        return requested_item((), catalog.domain), Filters()
    use_tags = bool(kinds) and (not years or rng.random() < 0.85)
    count = min(len(kinds), 1 + int(rng.random() < 0.35)) if use_tags else 0
    chosen = [kinds[i] for i in rng.permutation(len(kinds))[:count]]
    use_year = bool(years) and (not chosen or rng.random() < 0.45)
    bare = bool(chosen) and rng.random() < 0.3
    text = requested_item([value_in_sentence(name, value) for name, value in chosen], catalog.domain, bare)
    ranges: dict[str, Range] = {}
    if use_year:
        name, year = years[0]
        decade = year // 10 * 10
        phrase = _DECADE[int(rng.integers(len(_DECADE)))]
        text += " " + phrase.format(decade=decade, short=str(decade)[2:] if decade >= 1900 else decade)
        ranges[name] = (decade, decade + 9)
    return text, Filters(all_of=_all_of(chosen), ranges=ranges)


def _noted(item: Item) -> list[tuple[str, str]]:
    """Return (attribute, value) pairs expressed in a clause or before the noun: moods, themes, people, places."""
    fields = ((name, value) for name, value in item.attributes.items() if isinstance(value, tuple))
    return [(name, one) for name, value in fields if not says_kind(name) and name not in _SAFETY for one in value]


def _noted_wish(
    catalog: Catalog, kinds: list[tuple[str, str]], noted: list[tuple[str, str]], rng: np.random.Generator
) -> tuple[str, Filters]:
    """Return a wish for one value of a uniformly drawn attribute, and sometimes a kind before the noun.

    The value stands in a clause, or before the noun if it is an adjective.
    """
    names = sorted({name for name, _ in noted})
    name = names[int(rng.integers(len(names)))]
    values = [one for one in noted if one[0] == name]
    chosen = [values[int(rng.integers(len(values)))]]
    before = [kinds[int(rng.integers(len(kinds)))]] if kinds and rng.random() < 0.4 else []
    adjectives = [value for attribute, value in chosen if is_adjective(attribute)]
    words = [*map(lower_in_sentence, adjectives), *(value_in_sentence(attribute, value) for attribute, value in before)]
    text = requested_item(words, catalog.domain, bool(before) and rng.random() < 0.3)
    if not adjectives:
        text += f" {clause(name, (chosen[0][1],))}"
    return text, Filters(all_of=_all_of([*chosen, *before]))


def _all_of(chosen: list[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    all_of: dict[str, tuple[str, ...]] = {}
    for name, value in chosen:
        all_of[name] = (*all_of.get(name, ()), value)
    return all_of
