"""The attribute that says what kind of thing an item is: genre, category, tags."""

from __future__ import annotations

from llmrec.data.catalog import Catalog
from llmrec.nlu.attribute_phrases import says_kind


def kind_attribute(catalog: Catalog) -> str | None:
    """Return the attribute of kinds with the fewest values, or None.

    People, themes, places and other notes are no kinds, so a suite asks the same with notes on the items as without.
    """
    names = [
        name
        for name in catalog.attribute_names
        if says_kind(name) and any(isinstance(item.attributes.get(name), tuple) for item in catalog.items)
    ]
    return min(names, key=lambda name: len(catalog.values(name)), default=None)
