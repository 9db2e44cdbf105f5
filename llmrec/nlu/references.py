"""Resolves references to the list on display (`the second one`, `#3`, `that one`) and answers to `Which one?`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from llmrec.data.catalog import Catalog
from llmrec.nlu.english import NUMBER_WORDS, NUMBERS, ORDINALS

_MOST_NOTES = 5
_ORDINALS = {word: number for number, word in enumerate(ORDINALS, start=1)}
# words for a position other than ordinals; negative positions count from the end
_ENDS = {"last": -1, "final": -1, "bottom": -1, "top": 1, "very first": 1, "very last": -1, "penultimate": -2}
_ENDS |= {"second to last": -2, "second last": -2, "last but one": -2, "third to last": -3}
_PLACE = "|".join(sorted((*_ORDINALS, *_ENDS, r"\d{1,3}(?:st|nd|rd|th)"), key=len, reverse=True))
_FOLLOW = (
    r"(?:\s+(?:and|or|but|is|was|looks?|sounds?|seems?|please|again|instead|too|already|because|on|in|i|off"
    r"|bor\w+|does"
    r"|did|doesn't|didn't|isn't|wasn't|before|of|from|was|at|out|away|as|thanks?|if)\b|\s*[,.!?;:)]|\s*$)"
)
_WHERE = r"(?:\s+(?:on|in|of|from) (?:the|this|that|your) (?:list|top|lot|bunch|row|suggestions))?"
_NUMBERED = re.compile(
    rf"(?:#\s?|(?:\b(?:number|item|option|entry)\s+|\b(?:no|nr)\.\s*))(\d{{1,3}}|{'|'.join(NUMBERS)})\b"
)
_AT_END = re.compile(r"\bthe one (?:at|on) the (?P<end>top|bottom|end)(?: of the list)?\b")
_SEVERAL = re.compile(
    rf"\bthe (?P<side>first|last|top|bottom) (?P<count>{'|'.join(NUMBERS)}"
    rf"|\d{{1,2}})\b(?! hundred)"
)
_ALL = re.compile(
    r"\b(?:all of (?:them|these|those)|them all|these all|both of (?:them|these)|both(?=\s*(?:$|[.,!?;]))"
    r"|every one of them)\b"
)
_THAT = re.compile(
    r"\b(?:that|this) (?:one|{nouns})\b|\b(?:about|why|seen|watched|liked?|loved?|hated?|enjoyed"
    r"|dislike|than|after|before|remove|skip|drop) (?:it|that|this)\b(?!\s+(?:one|{nouns}))"
)


# patterns for an answer to `Which one?`
_YEAR = re.compile(r"(?<!\d)(?:1[89]|20)\d\d(?!\d)")
_NEWER = re.compile(r"\b(?:newer|newest|more recent|most recent|latest|later|younger|modern|new|remake|recent)\b")
_OLDER = re.compile(r"\b(?:older|oldest|earlier|earliest|original|old|classic)\b")
_OPTION_PLACE = re.compile(
    rf"\b(?:(?P<word>{'|'.join(ORDINALS)}|last|latter|former)|(?:#|number |no\. ?)?(?P<number>\d{{1,2}}))\b"
)
_MAX_CHOICE_WORDS = 9


@dataclass(frozen=True)
class Reference:
    """Rows that text[start:end] refers to; empty when the position lies past the end of the list."""

    rows: tuple[int, ...]
    start: int
    end: int


def find_references(text: str, shown: Sequence[int], focus: int, nouns: str) -> tuple[list[Reference], list[str]]:
    """Find references to items on display.

    Args:
        text: lower case.
        shown: rows on display, in order.
        focus: the row talked about last, or -1.
        nouns: alternatives of a regular expression for the domain's nouns.

    Returns:
        The references in order of appearance, and remarks on the first few positions past the end of the list.
    """
    found: list[Reference] = []
    notes: list[str] = []
    for match in _SEVERAL.finditer(text):
        count = NUMBER_WORDS.get(match["count"]) or int(match["count"])
        # "the last one" is one item, "the first one" too
        rows = shown[:count] if match["side"] in {"first", "top"} else shown[-count:] if count else []
        found.append(Reference(tuple(rows), *match.span()))
    for place, position in _positions(text, nouns):
        if not any(place[0] < one.end and one.start < place[1] for one in found):
            rows = _rows_at(shown, position)
            found.append(Reference(rows, *place))
            if not rows:
                notes.append(_missing(position, len(shown)))
    for match in _ALL.finditer(text):
        found.append(Reference(tuple(shown), *match.span()))
    if not found:
        found = _that(text, shown, focus, nouns)
    return sorted(found, key=lambda one: one.start), list(dict.fromkeys(notes))[:_MOST_NOTES]


def _positions(text: str, nouns: str) -> list[tuple[tuple[int, int], int]]:
    """Return ((start, end), position) pairs; positions count from 1, or from -1 downwards from the end."""
    things = rf"(?:ones?|{nouns}|picks?|suggestions?|recommendations?|titles?|options?|entry)"
    pattern = re.compile(rf"\b(?:(?:the|and|or|,)\s+)({_PLACE})(?:\s+{things}\b{_WHERE}|{_WHERE}(?={_FOLLOW}))")
    found = []
    for match in pattern.finditer(text):
        word = match[1]
        if word in {"top", "bottom"} and not re.search(things, match.group()):
            continue  # `the top` alone does not refer to an item
        found.append((match.span(), _ENDS.get(word) or _ORDINALS.get(word) or int(re.sub(r"\D", "", word))))
    for match in _NUMBERED.finditer(text):
        found.append((match.span(), NUMBER_WORDS.get(match[1]) or int(match[1])))
    found += [(match.span(), 1 if match["end"] == "top" else -1) for match in _AT_END.finditer(text)]
    return found


def _rows_at(shown: Sequence[int], position: int) -> tuple[int, ...]:
    if position < 0:
        return (shown[position],) if len(shown) >= -position else ()
    return tuple(shown[position - 1 : position]) if position > 0 else ()


def _missing(position: int, length: int) -> str:
    if not length:
        return "There is no list on display yet."
    return f"There is no number {position} in the list; it has {length}." if position > 0 else "The list is empty."


def _that(text: str, shown: Sequence[int], focus: int, nouns: str) -> list[Reference]:
    """Resolve `that one` to the item talked about last, or to the only item on display."""
    target = focus if focus >= 0 else shown[0] if len(shown) == 1 else -1
    match = re.search(_THAT.pattern.replace("{nouns}", nouns), text)
    return [Reference((target,), *match.span())] if match and target >= 0 else []


def resolve_choice(text: str, catalog: Catalog, options: Sequence[int], year: str | None) -> int:
    """Return the row that the text picks, or -1 when it picks none, or several.

    Args:
        text: lower case.
        catalog: for the years.
        options: rows in the order in which they were offered.
        year: name of the attribute that holds the year, or None.
    """
    if not options or len(text.split()) > _MAX_CHOICE_WORDS:
        return -1
    years = [catalog[row].attributes.get(year) if year else None for row in options]
    named = [int(found) for found in _YEAR.findall(text)]
    if named:
        fitting = [row for row, own in zip(options, years, strict=True) if own in named]
        return fitting[0] if len(fitting) == 1 else -1
    dated = [(float(own), row) for row, own in zip(options, years, strict=True) if isinstance(own, int | float)]
    new, old = _NEWER.search(text), _OLDER.search(text)
    if bool(new) != bool(old) and len(dated) == len(options):
        return (max(dated) if new else min(dated))[1]
    place = _OPTION_PLACE.search(text)
    if place is None or new or old:
        return -1
    words = {**{word: spot for spot, word in enumerate(ORDINALS)}, "former": 0, "latter": len(options) - 1}
    spot = int(place["number"]) - 1 if place["number"] else words.get(place["word"], len(options) - 1)
    return options[spot] if 0 <= spot < len(options) else -1
