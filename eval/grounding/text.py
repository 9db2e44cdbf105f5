"""Extracts the titles and claims of free text and checks them against the catalogue, by the suite's own code.

A title is matched as a sequence of its words, the longest title first. A one-word title, or one of common short words
only, counts only if it is quoted, carries a year, or is capitalised inside a sentence. A claim is a value of the
catalogue's word attributes, or a year. It is checked against the last title named before it, else the next title in its
sentence, else all shown items.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from llmrec.data.catalog import Catalog
from llmrec.eval.stability.paraphrases import NOUNS

_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")
_YEAR = re.compile(r"\b(?:18|19|20)\d\d\b(?!s)")
_END = re.compile(r"[.!?\n]+(?:\s|$)")
_DENIED = re.compile(r"\b(?:not|no|without|never|isn't|isn\u2019t|nothing)\b(?:\W+\w+){0,2}\W*$", re.IGNORECASE)
_LABEL = re.compile(
    r"((?:[A-Z0-9][^\s.!?()]*)(?:[ :,]+(?:[A-Z0-9&][^\s.!?()]*|of|the|and|a|an|in|to|for|on|from))*)\s*\((\d{4})\)"
)
_QUOTED = re.compile(r"[\"\u201c\u00ab]([^\"\u201c\u201d\u00ab\u00bb]{2,80})[\"\u201d\u00bb]")
_COMMON = frozenset(
    "a an and the of to in on for my your you it is me we i so not no one all that this some".split()  # noqa: SIM905
)


@dataclass(frozen=True)
class Mention:
    """A title at text[start:end]; `rows` are the items with that title, empty if the catalogue has no such title."""

    start: int
    end: int
    rows: frozenset[int]


@dataclass(frozen=True)
class TextFindings:
    """The titles and claims of a text.

    Attributes:
        titles: number of titles named.
        off_list: named titles that belong to no allowed item.
        off_catalogue: named titles that are not in the catalogue.
        claims: number of values and years claimed.
        contradicted: descriptions of the claims that the catalogue contradicts.
    """

    titles: int
    off_list: tuple[str, ...]
    off_catalogue: tuple[str, ...]
    claims: int
    contradicted: tuple[str, ...]


class TextCheck:
    """Checks texts against one catalogue."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog

    def findings(self, text: str, shown: Sequence[int], known: Sequence[int] = ()) -> TextFindings:
        """Check a text.

        Args:
            text: as shown to a person.
            shown: rows on the list that the text is about.
            known: further rows that may be named, such as those the user named; claims about them are checked too.
        """
        mentions = self.mentions(text)
        allowed = {*shown, *known}
        named = [text[one.start : one.end] for one in mentions]
        outside = [words for words, one in zip(named, mentions, strict=True) if one.rows and not one.rows & allowed]
        unknown = [words for words, one in zip(named, mentions, strict=True) if not one.rows]
        claims, wrong = self._claims(text, mentions, frozenset(shown))
        return TextFindings(len(mentions), tuple(outside + unknown), tuple(unknown), claims, tuple(wrong))

    def mentions(self, text: str) -> list[Mention]:
        """Return the titles in a text, in order."""
        words = list(_WORD.finditer(text))
        keys = [_key(word.group()) for word in words]
        found: list[Mention] = []
        place = 0
        while place < len(words):
            size = next((n for n in range(self._longest, 0, -1) if self._named(text, words, keys, place, n)), 0)
            if size:
                rows = self._titles[tuple(keys[place : place + size])]
                found.append(Mention(words[place].start(), words[place + size - 1].end(), frozenset(rows)))
            place += max(size, 1)
        for match in [*_QUOTED.finditer(text), *_LABEL.finditer(text)]:
            start, end = match.span(1)
            proper = match.re is _LABEL or sum(w[0].isupper() for w in match[1].split()) * 2 > len(match[1].split())
            if proper and not any(one.start < end and start < one.end for one in found):
                found.append(Mention(start, end, frozenset()))
        return sorted(found, key=lambda one: one.start)

    def _named(self, text: str, words: list[re.Match[str]], keys: list[str], place: int, size: int) -> bool:
        span = words[place : place + size]
        if len(span) < size or tuple(keys[place : place + size]) not in self._titles:
            return False
        telling = [key for key in keys[place : place + size] if key not in _COMMON]
        if any(len(a.group()) > 3 and _END.search(text[a.end() : b.start() + 1]) for a, b in pairwise(span)):
            # A title may not span the end of a sentence, unless it has a mark there itself; `Dr.` and `L.A.` end no
            # sentence.
            said = text[span[0].start() : span[-1].end()].casefold()
            rows = self._titles[tuple(keys[place : place + size])]
            if not any(said in self.catalog[row].title.casefold() for row in rows):
                return False
        capital = all(one.group()[0].isupper() or one.group()[0].isdigit() for one in (span[0], span[-1]))
        if len(telling) > 1 and (capital or size > 3):
            return True
        before, after = text[: span[0].start()].rstrip(), text[span[-1].end() :]
        if re.match(r"\s*\(\d{4}\)", after) or (before[-1:] in {'"', "\u201c"} and after[:1] in {'"', "\u201d"}):
            return True
        inside = size > 1 or (bool(before) and before[-1] not in ".!?:\n")  # otherwise the capital says nothing
        tag = _key(span[0].group()) in self._values
        return capital and inside and bool(telling) and not (size == 1 and (tag or len(span[0].group()) < 4))

    def _claims(self, text: str, mentions: list[Mention], shown: frozenset[int]) -> tuple[int, list[str]]:
        masked = text
        for one in mentions:
            masked = masked[: one.start] + "\0" * (one.end - one.start) + masked[one.end :]
        count, wrong = 0, []
        for start, end, claim in self._claimed(masked):
            count += 1
            about = _about(text, mentions, start, shown)
            denied = _DENIED.search(masked[:start]) is not None
            if about and any(self._has(row, claim) for row in about) == denied:
                wrong.append(f"{text[start:end]} of {', '.join(self.catalog.label(row) for row in sorted(about)[:3])}")
        return count, wrong

    def _claimed(self, text: str) -> list[tuple[int, int, str]]:
        found = [(m.start(), m.end(), self._values[_key(m.group())]) for m in self._value_words.finditer(text)]
        return sorted([*found, *((m.start(), m.end(), m.group()) for m in _YEAR.finditer(text))])

    def _has(self, row: int, claim: str) -> bool:
        fields = self.catalog[row].attributes
        if claim.isdigit():
            return "year" not in fields or fields["year"] == int(claim)
        return any(claim in (value if isinstance(value, tuple) else (value,)) for value in fields.values())

    @cached_property
    def _titles(self) -> dict[tuple[str, ...], set[int]]:
        found: dict[tuple[str, ...], set[int]] = {}
        for row, item in enumerate(self.catalog.items):
            key = tuple(_key(word) for word in _WORD.findall(item.title))
            if key:
                found.setdefault(key, set()).add(row)
        return found

    @cached_property
    def _longest(self) -> int:
        return max(map(len, self._titles), default=1)

    @cached_property
    def _values(self) -> dict[str, str]:
        """Maps the words for a value, including its plural, to the value; word attributes only."""
        names = [n for n in self.catalog.attribute_names if n != "year"]
        found = {}
        for value in (value for name in names for value in self.catalog.values(name)):
            for form in (value.casefold(), f"{value.casefold()}s", NOUNS.get(value.casefold(), "")):
                found[_key(form)] = value
        return {key: value for key, value in found.items() if key}

    @cached_property
    def _value_words(self) -> re.Pattern[str]:
        forms = sorted({re.escape(form).replace("\\ ", "[ -]") for form in self._values}, key=len, reverse=True)
        return re.compile(rf"\b(?:{'|'.join(forms)})\b" if forms else r"(?!)", re.IGNORECASE)


def _about(text: str, mentions: Sequence[Mention], place: int, shown: frozenset[int]) -> frozenset[int]:
    """The items that a claim at a position is about; empty if they are not in the catalogue."""
    before = [one for one in mentions if one.end <= place]
    if before:
        return before[-1].rows
    after = [one for one in mentions if one.start >= place and not _END.search(text[place : one.start])]
    return after[0].rows if after else shown


def _key(word: str) -> str:
    return re.sub(r"[-\s]+", " ", word.casefold().replace("\u2019", "'")).strip()
