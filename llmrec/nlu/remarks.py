"""Sentences on what was asked for and cannot be acted on: what no value is called, and what no attribute holds."""

from __future__ import annotations

from collections.abc import Sequence

from llmrec.data.catalog import Catalog
from llmrec.nlu.wording import listed

_MOST, _LONGEST = 3, 40

Place = tuple[int, int]


def remarks(text: str, strange: Sequence[Place], beyond: Sequence[Place], catalog: Catalog) -> tuple[str, ...]:
    """Return a sentence for each kind; it names the attributes that the catalogue has.

    Args:
        text: the message.
        strange: character spans of words that are ruled out and that no attribute value is called, in order.
        beyond: character spans of amounts and times that no attribute holds, in order.
        catalog: its attributes are named.
    """
    names = [f"\u201c{name.replace('_', ' ')}\u201d" for name in catalog.attribute_names]
    have = f"the {catalog.domain} here have {listed(names) if names else 'no attributes to filter by'}"
    said = []
    if strange:
        said.append(f"I know no {_quoted(text, _runs(text, strange))} here and cannot leave that out: {have}.")
    if beyond:
        said.append(f"I cannot filter by {_quoted(text, beyond)}: {have}.")
    return tuple(said)


def _runs(text: str, places: Sequence[Place]) -> list[Place]:
    """Neighbouring words as one: `happy endings`."""
    runs: list[Place] = []
    for start, end in places:
        if runs and not text[runs[-1][1] : max(start, runs[-1][1])].strip():
            runs[-1] = (min(runs[-1][0], start), end)
        else:
            runs.append((start, end))
    return runs


def _quoted(text: str, places: Sequence[Place]) -> str:
    words = list(dict.fromkeys(text[start:end][:_LONGEST] for start, end in places))
    more = [f"{len(words) - _MOST} more"] if len(words) > _MOST else []
    return listed([*(f"\u201c{word}\u201d" for word in words[:_MOST]), *more], "or")
