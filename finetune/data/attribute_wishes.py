"""Wishes in plain language, made from the attributes of an item: "a comedy from the 1990s"."""

from __future__ import annotations

import numpy as np

from llmrec.data.catalog import Catalog
from llmrec.data.filters import Filters
from llmrec.nlu.wording import requested_item, value_in_sentence
from llmrec.ranking.explanations import fields_of

_DECADE = ("from the {decade}s", "of the {decade}s", "made in the {decade}s", "from the {short}s")


def wish(catalog: Catalog, row: int, rng: np.random.Generator) -> tuple[str, Filters]:
    """A wish that this item fulfils, and the filters that say the same; one or two of its fields."""
    fields = catalog[row].attributes
    tags = fields_of(catalog, row)
    years = [(name, int(v)) for name, v in fields.items() if isinstance(v, int) and 1000 <= v <= 2999]
    if not tags and not years:
        return requested_item((), catalog.domain), Filters()
    use_tags = bool(tags) and (not years or rng.random() < 0.85)
    count = min(len(tags), 1 + int(rng.random() < 0.35)) if use_tags else 0
    chosen = [tags[i] for i in rng.permutation(len(tags))[:count]]
    use_year = bool(years) and (not chosen or rng.random() < 0.45)
    bare = bool(chosen) and rng.random() < 0.3
    text = requested_item([value_in_sentence(name, value) for name, value in chosen], catalog.domain, bare)
    all_of: dict[str, tuple[str, ...]] = {}
    for name, value in chosen:
        all_of[name] = (*all_of.get(name, ()), value)
    ranges: dict[str, tuple[float | None, float | None]] = {}
    if use_year:
        name, year = years[0]
        decade = year // 10 * 10
        phrase = _DECADE[int(rng.integers(len(_DECADE)))]
        text += " " + phrase.format(decade=decade, short=str(decade)[2:] if decade >= 1900 else decade)
        ranges[name] = (decade, decade + 9)
    return text, Filters(all_of=all_of, ranges=ranges)
