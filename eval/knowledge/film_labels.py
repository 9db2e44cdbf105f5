"""Film labels: titles and years, by which films of another source are matched with the catalogue."""

from __future__ import annotations

import re

from llmrec.data.catalog import Item
from llmrec.data.titles import title_key

_BRACKETS = re.compile(r"\s*\([^)]*\)")


def title_forms(title: str) -> tuple[str, str]:
    """Return a title as it is, and without its parts in brackets (other languages, `a.k.a.`)."""
    return title, _BRACKETS.sub("", title)


def label_keys(item: Item) -> list[tuple[str, int]]:
    """Return (title key, year) of both forms of an item's title; empty without a year."""
    year = item.attributes.get("year")
    return [(title_key(title), year) for title in title_forms(item.title)] if isinstance(year, int) else []
