"""Why an item is in a list, in words made from catalogue fields of that item and of the user's own items only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llmrec.catalog import Catalog
from llmrec.filters import Filters
from llmrec.inner import inner
from llmrec.kinds import number_words


def tags(catalog: Catalog, row: int) -> list[str]:
    """All values of the item's tuple attributes, in catalogue order."""
    return [v for values in catalog[row].attributes.values() if isinstance(values, tuple) for v in values]


def reason(
    catalog: Catalog, row: int, history: Sequence[int], vectors: np.ndarray, message: str, filters: Filters
) -> str:
    """One clause: what was asked for that the item has, else the history item it is nearest to.

    Args:
        catalog: the items.
        row: the recommended item.
        history: rows of the user's items.
        vectors: float32[n, d] item vectors of the encoder, for "nearest".
        message: what the user said.
        filters: the constraints that were applied.
    """
    facts = _asked(catalog, row, message, filters)
    lead = f"{', '.join(facts)}, as you asked" if facts else ""
    near = _nearest(catalog, row, history, vectors) if len(history) else ""
    return "; ".join(part for part in (lead, near) if part) or describe(catalog, row)


def _asked(catalog: Catalog, row: int, message: str, filters: Filters) -> list[str]:
    """The item's own values that the message or the constraints name."""
    said = f" {message.lower()} "
    wanted = {v.lower() for values in (*filters.any_of.values(), *filters.all_of.values()) for v in values}
    named = [t for t in tags(catalog, row) if {t.lower(), t.lower().replace("-", " ")} & wanted or _says(said, t)]
    fields = catalog[row].attributes
    numbers = [(name, fields[name]) for name in filters.ranges if name in fields]
    return named + [f"{name} {number_words(v)}" for name, v in numbers if isinstance(v, int | float)]


def _says(said: str, tag: str) -> bool:
    return tag.lower() in said or tag.lower().replace("-", " ") in said


def _nearest(catalog: Catalog, row: int, history: Sequence[int], vectors: np.ndarray) -> str:
    recent = np.asarray(history[-50:], np.int64)
    near = int(recent[int(np.argmax(_cosine(vectors[recent], vectors[row])))])
    theirs = set(tags(catalog, near))
    common = [tag for tag in tags(catalog, row) if tag in theirs]
    return f"goes with {catalog.label(near)}" + (f", both {', '.join(common)}" if common else "")


def singular(domain: str) -> str:
    """The domain noun for one item: films -> film."""
    return domain[:-1] if domain.endswith("s") and len(domain) > 3 else domain


def article(word: str) -> str:
    """The indefinite article before a word."""
    return "an" if word[:1].lower() in "aeiou" else "a"


def describe(catalog: Catalog, row: int, limit: int = 3) -> str:
    """One clause from catalogue fields: "a comedy and romance film from 1995"."""
    fields = catalog[row].attributes
    noun = singular(catalog.domain)
    tags = [v.lower() for values in fields.values() if isinstance(values, tuple) for v in values][:limit]
    words = ", ".join(tags[:-1]) + " and " + tags[-1] if len(tags) > 1 else "".join(tags)
    years = (v for name, v in fields.items() if name == "year" or name.endswith("_year"))
    year = next((v for v in years if isinstance(v, int) and 1000 <= v <= 2999), None)
    head = f"{article(words)} {words} {noun}" if words else f"{article(noun)} {noun}"
    return head + (f" from {year}" if year else "")


def listing(catalog: Catalog, rows: Sequence[int]) -> str:
    """The shown items with their fields, one a line, as the talk prompt gives them."""
    return "\n".join(f"{i}. {catalog.label(row)}: {describe(catalog, row)}" for i, row in enumerate(rows, 1))


def _cosine(many: np.ndarray, one: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(many, axis=1) * max(float(np.linalg.norm(one)), 1e-9)
    return np.asarray(inner(one[None], many)[0] / np.maximum(norms, 1e-9))
