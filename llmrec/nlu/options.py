"""The answer to `Which one?`: which of a few items of one name a turn picks, by year, age or place."""

from __future__ import annotations

import re
from collections.abc import Sequence

from llmrec.data.catalog import Catalog
from llmrec.nlu.english import ORDINALS

_YEAR = re.compile(r"(?<!\d)(?:1[89]|20)\d\d(?!\d)")
_NEW = re.compile(r"\b(?:newer|newest|more recent|most recent|latest|later|younger|modern|new|remake|recent)\b")
_OLD = re.compile(r"\b(?:older|oldest|earlier|earliest|original|old|classic)\b")
_PLACE = re.compile(
    rf"\b(?:(?P<word>{'|'.join(ORDINALS)}|last|latter|former)|(?:#|number |no\. ?)?(?P<number>\d{{1,2}}))\b"
)
_MOST_WORDS = 9


def chosen(text: str, catalog: Catalog, options: Sequence[int], year: str | None) -> int:
    """Return the row that the text picks, or -1 when it picks none, or several.

    Args:
        text: lower case.
        catalog: for the years.
        options: rows in the order in which they were offered.
        year: the attribute that holds the year, if there is one.
    """
    if not options or len(text.split()) > _MOST_WORDS:
        return -1
    years = [catalog[row].attributes.get(year) if year else None for row in options]
    named = [int(found) for found in _YEAR.findall(text)]
    if named:
        fitting = [row for row, own in zip(options, years, strict=True) if own in named]
        return fitting[0] if len(fitting) == 1 else -1
    dated = [(float(own), row) for row, own in zip(options, years, strict=True) if isinstance(own, int | float)]
    new, old = _NEW.search(text), _OLD.search(text)
    if bool(new) != bool(old) and len(dated) == len(options):
        return (max(dated) if new else min(dated))[1]
    place = _PLACE.search(text)
    if place is None or new or old:
        return -1
    words = {**{word: spot for spot, word in enumerate(ORDINALS)}, "former": 0, "latter": len(options) - 1}
    spot = int(place["number"]) - 1 if place["number"] else words.get(place["word"], len(options) - 1)
    return options[spot] if 0 <= spot < len(options) else -1
