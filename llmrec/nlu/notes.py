"""Notes that tell the visitor which constraints and names in a message cannot be acted on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from llmrec.data.catalog import Catalog
from llmrec.nlu.wording import join_words

_MOST, _LONGEST = 3, 40
_MOST_NOTES = 5

Span = tuple[int, int]


def unsupported_notes(text: str, strange: Sequence[Span], beyond: Sequence[Span], catalog: Catalog) -> tuple[str, ...]:
    """Return one sentence for each kind of unsupported constraint; it names the attributes that the catalogue has.

    Args:
        text: the message.
        strange: character spans of excluded words that are not attribute values, in order.
        beyond: character spans of amounts and times that no attribute holds, in order.
        catalog: the catalogue whose attributes are named.
    """
    names = [f"\u201c{name.replace('_', ' ')}\u201d" for name in catalog.attribute_names]
    have = f"the {catalog.domain} here have {join_words(names) if names else 'no attributes to filter by'}"
    said = []
    if strange:
        said.append(f"I know no {_quoted(text, _runs(text, strange))} here and cannot leave that out: {have}.")
    if beyond:
        said.append(f"I cannot filter by {_quoted(text, beyond)}: {have}.")
    return tuple(said)


def limit_notes(notes: Iterable[str]) -> tuple[str, ...]:
    """Return the distinct notes in order; of more than five, the first four and a note on how many are left out."""
    different = tuple(dict.fromkeys(notes))
    if len(different) <= _MOST_NOTES:
        return different
    kept = different[: _MOST_NOTES - 1]
    return (*kept, f"There were {len(different) - len(kept)} more names that I could not place.")


def _runs(text: str, places: Sequence[Span]) -> list[Span]:
    """Merge the spans of neighbouring words into one: `happy endings`."""
    runs: list[Span] = []
    for start, end in places:
        if runs and not text[runs[-1][1] : max(start, runs[-1][1])].strip():
            runs[-1] = (min(runs[-1][0], start), end)
        else:
            runs.append((start, end))
    return runs


def _quoted(text: str, places: Sequence[Span]) -> str:
    words = list(dict.fromkeys(text[start:end][:_LONGEST] for start, end in places))
    more = [f"{len(words) - _MOST} more"] if len(words) > _MOST else []
    return join_words([*(f"\u201c{word}\u201d" for word in words[:_MOST]), *more], "or")
