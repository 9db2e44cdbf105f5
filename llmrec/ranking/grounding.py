"""Grounding check: whether the catalogue backs a generated sentence; applied to all generated text before it is shown.

A sentence may name titles only of shown items. Tag values and years must belong to the title that they stand beside
(`Alien (1979), a horror film`, `Alien is a horror film`); elsewhere to every shown item that their clause names, or to
any of them when it names none. It may not deny having what is shown. The check is rule-based and strict: a
sentence that fails is dropped, not repaired.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from llmrec.data.catalog import Catalog
from llmrec.ranking.explanations import tags

_WORDS = re.compile(r"[^\W_]+(?:'[^\W_]+)?")
_YEAR = re.compile(r"\b(1[89]\d\d|20\d\d)\b")
_CLAUSE = re.compile(r";|, (?=but\b|while\b|whereas\b)")
# What a small model says instead of talking about the list: `I do not have Alien, but I can look for one like it`.
_DENIAL = re.compile(
    r"\b(?:do not|don't|cannot|can't|could not|couldn't|unable to) (?:\w+ )?"
    r"(?:have|know|find|offer|recommend|help|see)\b"
    r"|\bi (?:can|could|will|would|'ll) (?:\w+ )?(?:look|search) for\b"
    r"|\bi (?:am|'m) (?:\w+ )?(?:sorry|afraid|unable)\b",
    re.IGNORECASE,
)
_DATED = re.compile(r"\s*\((\d{4})\)")
_LAST_MARKS = re.compile(r"[!?).'\u2026]*")  # of a title, behind its last word
_LAST_MARKS_DATED = re.compile(r"[!?).'\u2026]*\s*\((\d{4})\)")
_LABEL = re.compile(r"[A-Z][^.!?()]*?\s*\(\d{4}\)")
_BREAK = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'])")
_TITLE_BREAK = re.compile(r"(?<=[.!?])\s+")
_MASK = "\0"
# Titles that share what is said of them, and words that speak of the title before them alone.
_JOINED = re.compile(r"\s*(?:,|,?\s*(?:and|or|&)|,?\s*and both)\s*")
_BESIDE = re.compile(r"\s*[,:\u2013-]\s*(?:which (?:is|are)\b|being\b|an?\b|the\b|both\b)")
_IS = re.compile(r"\s*(?:is|are)\b")
_NEW_CLAUSE = re.compile(r",\s*(?:and|or|so)\s*$")
_SHORT = 3  # letters of a word that is no title by its capital alone


def _norm(text: str) -> str:
    return " ".join(_WORDS.findall(text.lower().replace("\u2019", "'")))


@dataclass(frozen=True, eq=False)
class GroundingChecker:
    """Checks sentences against one catalogue."""

    catalog: Catalog

    @cached_property
    def _titles(self) -> dict[str, set[int]]:
        """Normalised titles to their rows."""
        out: dict[str, set[int]] = {}
        for row, item in enumerate(self.catalog.items):
            name = _norm(item.title)
            if name:
                out.setdefault(name, set()).add(row)
        return out

    @cached_property
    def _longest(self) -> int:
        return max((name.count(" ") + 1 for name in self._titles), default=1)

    @cached_property
    def _tags(self) -> dict[str, str]:
        return {_norm(tag): tag for row in range(len(self.catalog)) for tag in tags(self.catalog, row)}

    @cached_property
    def _tag_words(self) -> re.Pattern[str]:
        forms = sorted(map(re.escape, filter(None, self._tags)), key=len, reverse=True)
        return re.compile(rf"\b({'|'.join(forms)})s?\b" if forms else r"(?!)")

    def titles_in(self, text: str) -> list[set[int]]:
        """Catalogue titles that the text contains, the longest at each place, as rows.

        One-word titles are ordinary words too often: they count with a capital inside a sentence, or quoted.
        """
        return [rows for _, _, rows in self._named(text, set())]

    def _named(self, text: str, shown: set[int]) -> list[tuple[int, int, set[int]]]:
        """Titles at text[start:end] with their rows; those of shown items count however they are written."""
        text = text.replace("\u2019", "'")
        words = list(_WORDS.finditer(text))
        keys = [word[0].lower() for word in words]
        found, i = [], 0
        while i < len(words):
            for size in range(min(self._longest, len(words) - i), 0, -1):
                rows = self._titles.get(" ".join(keys[i : i + size]), set())
                start, end = words[i].start(), words[i + size - 1].end()
                if rows and (size > 1 or rows & shown or self._proper(text, start, end)):
                    found.append((start, end, rows))
                    i += size - 1
                    break
            i += 1
        return found

    def _proper(self, text: str, start: int, end: int) -> bool:
        """True for a word whose capital or quotation marks make it a title."""
        word, before = text[start:end], text[:start].rstrip()
        if before.endswith(('"', "\u201c")) and re.match(r"[.!?,]*[\"\u201d]", text[end:]):
            return True
        inside = bool(before) and before[-1] not in '.!?:"'
        return inside and word[0].isupper() and len(word) > _SHORT and word.lower() not in self._tags

    def grounded(self, sentence: str, shown: Sequence[int]) -> bool:
        """True when every title, tag and year in the sentence belongs to a shown item."""
        if _DENIAL.search(sentence):
            return False
        allowed = set(shown)
        sentence = sentence.replace(_MASK, " ")
        masked, place, about = "", 0, list[set[int]]()
        for start, end, named in self._named(sentence, allowed):
            rows = named & allowed
            dated, bare = _LAST_MARKS_DATED.match(sentence, end), _LAST_MARKS.match(sentence, end)
            if dated:
                rows = {row for row in rows if str(self.catalog[row].attributes.get("year", dated[1])) == dated[1]}
            if not rows:
                return False
            masked += sentence[place:start] + _MASK
            place = dated.end() if dated else bare.end() if bare else end
            about.append(rows)
        masked += sentence[place:]
        if _LABEL.search(masked):
            return False  # a year in parentheses follows a title, and this one is not shown
        for clause in _CLAUSE.split(masked):
            count = clause.count(_MASK)
            if not self._true_of(clause, about[:count], shown):
                return False
            about = about[count:]
        return True

    def _true_of(self, clause: str, about: Sequence[set[int]], shown: Sequence[int]) -> bool:
        """True when every tag and year of a clause belongs to what it is said of.

        Args:
            clause: with a mask for every title.
            about: the rows that each mask may stand for.
            shown: what a clause without a title speaks of, any of it.
        """
        first, *after = clause.split(_MASK)
        if not about:
            return self._claims(first) <= set[str]().union(*map(self._fields, shown))
        fields = [set[str]().union(*map(self._fields, rows)) for rows in about]
        everything = set.intersection(*fields)
        if not self._claims(first) <= everything:
            return False
        group: list[set[str]] = []
        before = first
        for place, words in enumerate(after):
            group.append(fields[place])
            if _JOINED.fullmatch(words) and place + 1 < len(after):
                continue
            begins = len(group) == place + 1 or _NEW_CLAUSE.search(before)
            own = _BESIDE.match(words) or (_IS.match(words) and begins)
            if not self._claims(words) <= (set.intersection(*group) if own else everything):
                return False
            group, before = [], words
        return True

    def _fields(self, row: int) -> set[str]:
        """What may be said of an item: its tags, its year, and the tags that its own text names."""
        item = self.catalog[row]
        own = {_norm(tag) for tag in tags(self.catalog, row)} | {str(item.attributes.get("year"))}
        return own | set(self._tag_words.findall(_norm(item.text)))

    def _claims(self, text: str) -> set[str]:
        """Tags and years in words."""
        words = _norm(_DATED.sub(" ", text))
        return {*self._tag_words.findall(words), *_YEAR.findall(words)}

    def end_of_sentence(self, text: str, shown: Sequence[int]) -> re.Match[str] | None:
        """Return the gap behind the first sentence of a text; what looks like an end inside a shown title is none.

        While the text may still go on as such a title (`Hot Shots! P`) there is none yet.
        """
        inner = [
            (title[: gap.start()], title[gap.end() :])
            for title in {self.catalog[row].title.casefold() for row in shown}
            for gap in _TITLE_BREAK.finditer(title)
        ]
        for gap in _BREAK.finditer(text):
            said, next_ = text[: gap.start()].casefold(), text[gap.end() :].casefold()
            if not any(said.endswith(a) and (next_.startswith(b) or b.startswith(next_)) for a, b in inner):
                return gap
        return None
