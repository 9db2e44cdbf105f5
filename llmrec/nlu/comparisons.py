"""Items that share what is said of them, and items that something is to be newer or older than."""

from __future__ import annotations

import re
from collections.abc import Sequence

from llmrec.data.filters import Range
from llmrec.nlu import cues
from llmrec.nlu.mentions import Mention

_JOINED = re.compile(r"\s*(?:,|,?\s*(?:and|or|&)|,?\s*and both)\s*(?:the )?[\"\u201c\u201d]?\s*")


def groups(text: str, targets: Sequence[Mention]) -> list[list[Mention]]:
    """Put items joined by `and`, `or` or a comma together; `targets` are in order of appearance in `text`."""
    found: list[list[Mention]] = []
    for target in targets:
        last = found[-1][-1] if found else None
        joined = last is not None and (
            (last.start, last.end) == (target.start, target.end) or _JOINED.fullmatch(text[last.end : target.start])
        )
        if joined:
            found[-1].append(target)
        else:
            found.append([target])
    return found


def compared_with(before: str, years: Sequence[int]) -> tuple[Range, tuple[int, int]] | None:
    """The years that `newer than` or `older than` leaves when it ends the text before some items, and its place.

    Args:
        before: lower case.
        years: of the items.
    """
    newer, older = cues.NEWER_THAN.search(before), cues.OLDER_THAN.search(before)
    if years and newer:
        return (max(years) + 1, None), newer.span()
    return ((None, min(years) - 1), older.span()) if years and older else None
