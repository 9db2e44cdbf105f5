"""Pointing at the list on display: `the second one`, `#3`, `the last two`, `that one`, `all of them`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from llmrec.english import NUMBERS, ORDINALS

_ORDINALS = {word: number for number, word in enumerate(ORDINALS, start=1)}
_SMALL_NUMBERS = {word: number for number, word in enumerate(NUMBERS, start=1)}
_ORDINAL = rf"(?:{'|'.join(_ORDINALS)}|last|\d{{1,3}}(?:st|nd|rd|th))"
_FOLLOW = (
    r"(?:\s+(?:and|or|but|is|was|looks?|sounds?|seems?|please|again|instead|too|already|because)\b"
    r"|\s*[,.!?;:)]|\s*$)"
)
_NUMBERED = re.compile(r"(?:#\s?|\b(?:number|no\.|item|option)\s+)(\d{1,3})\b")
_SEVERAL = re.compile(rf"\bthe (?P<side>first|last) (?P<count>{'|'.join(NUMBERS)}|\d{{1,2}})\b(?! hundred)")
_ALL = re.compile(
    r"\b(?:all of (?:them|these|those)|them all|these all|both(?: of (?:them|these))?|every one of them)\b"
)
_THAT = re.compile(
    r"\b(?:that|this) (?:one|{nouns})\b|\b(?:about|why|seen|watched|liked?|loved?|hated?|enjoyed"
    r"|dislike) (?:it|that|this)\b(?!\s+(?:one|{nouns}))"
)


@dataclass(frozen=True)
class Pointer:
    """Rows pointed at by text[start:end]; none when the list is shorter than that."""

    rows: tuple[int, ...]
    start: int
    end: int


def pointers(text: str, shown: Sequence[int], focus: int, nouns: str) -> tuple[list[Pointer], list[str]]:
    """Find what the text points at.

    Args:
        text: lower case.
        shown: rows on display, in order.
        focus: the row talked about last, or -1.
        nouns: alternatives of a regular expression for the domain's nouns.

    Returns:
        The pointers in order of appearance, and a remark for each that points past the end of the list.
    """
    found: list[Pointer] = []
    notes: list[str] = []
    for match in _SEVERAL.finditer(text):
        count = _SMALL_NUMBERS.get(match["count"]) or int(match["count"])
        # "the last one" is one item, "the first one" too
        rows = shown[:count] if match["side"] == "first" else shown[-count:] if count else []
        found.append(Pointer(tuple(rows), *match.span()))
    for place, position in _positions(text, nouns):
        if not any(place[0] < one.end and one.start < place[1] for one in found):
            rows = _at(shown, position)
            found.append(Pointer(rows, *place))
            if not rows:
                notes.append(_missing(position, len(shown)))
    for match in _ALL.finditer(text):
        found.append(Pointer(tuple(shown), *match.span()))
    if not found:
        found = _that(text, shown, focus, nouns)
    return sorted(found, key=lambda one: one.start), notes


def _positions(text: str, nouns: str) -> list[tuple[tuple[int, int], int]]:
    """Return ((start, end), position) with positions from 1, and -1 for the last."""
    things = rf"(?:ones?|{nouns}|picks?|suggestions?|recommendations?|titles?|options?)"
    pattern = re.compile(rf"\b(?:the|and|or|,)\s+({_ORDINAL})(?:\s+{things}\b|(?={_FOLLOW}))")
    found = []
    for match in pattern.finditer(text):
        word = match[1]
        position = -1 if word == "last" else _ORDINALS.get(word) or int(re.sub(r"\D", "", word))
        found.append((match.span(), position))
    found += [(match.span(), int(match[1])) for match in _NUMBERED.finditer(text)]
    return found


def _at(shown: Sequence[int], position: int) -> tuple[int, ...]:
    if position == -1:
        return tuple(shown[-1:])
    return tuple(shown[position - 1 : position]) if position > 0 else ()


def _missing(position: int, length: int) -> str:
    if not length:
        return "There is no list on display yet."
    return f"There is no number {position} in the list; it has {length}." if position > 0 else "The list is empty."


def _that(text: str, shown: Sequence[int], focus: int, nouns: str) -> list[Pointer]:
    """`That one`: the item talked about last, or the only one on display."""
    target = focus if focus >= 0 else shown[0] if len(shown) == 1 else -1
    match = re.search(_THAT.pattern.replace("{nouns}", nouns), text)
    return [Pointer((target,), *match.span())] if match and target >= 0 else []
