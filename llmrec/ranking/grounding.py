"""Checks whether the catalogue supports a generated sentence; applied to all generated text before it is shown.

A sentence may name only titles of shown items. Tags and years next to a title must belong to that item (`Alien (1979),
a horror film`, `Alien is a horror film`). Elsewhere they must belong to every shown item that their clause names, or to
any shown item if it names none. A sentence may not deny having the items that are shown. The check is rule-based and
strict: a sentence that fails is dropped, not repaired.
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
# Denials that a small model writes instead of text about the list: `I do not have Alien, but I can look for one`.
_DENIAL = re.compile(
    r"\b(?:do not|don't|cannot|can't|could not|couldn't|unable to) (?:\w+ )?"
    r"(?:have|know|find|offer|recommend|help|see)\b"
    r"|\bi (?:can|could|will|would|'ll) (?:\w+ )?(?:look|search) for\b"
    r"|\bi (?:am|'m) (?:\w+ )?(?:sorry|afraid|unable)\b",
    re.IGNORECASE,
)
_DATED = re.compile(r"\s*\((\d{4})\)")
_LAST_MARKS = re.compile(r"[!?).'\u2026]*")  # punctuation of a title after its last word
_LAST_MARKS_DATED = re.compile(r"[!?).'\u2026]*\s*\((\d{4})\)")
_LABEL = re.compile(r"[A-Z][^.!?()]*?\s*\(\d{4}\)")
_BREAK = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'])")
_TITLE_BREAK = re.compile(r"(?<=[.!?])\s+")
_MASK = "\0"
# Separators of titles that share a statement (_JOINED), and words that begin a statement about the preceding title only
# (_BESIDE, _IS).
_JOINED = re.compile(r"\s*(?:,|,?\s*(?:and|or|&)|,?\s*and both)\s*")
_BESIDE = re.compile(r"\s*[,:\u2013-]\s*(?:which (?:is|are)\b|being\b|an?\b|the\b|both\b)")
_IS = re.compile(r"\s*(?:is|are)\b")
_NEW_CLAUSE = re.compile(r",\s*(?:and|or|so)\s*$")
_SHORT = 3  # a capital alone does not make a title of a word with at most this many letters


def _norm(text: str) -> str:
    return " ".join(_WORDS.findall(text.lower().replace("\u2019", "'")))


@dataclass(frozen=True, eq=False)
class GroundingChecker:
    """Checks sentences against one catalogue."""

    catalog: Catalog

    @cached_property
    def _titles(self) -> dict[str, set[int]]:
        """Normalised title -> its rows."""
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
        """Return the rows of each catalogue title in the text; at each position the longest title wins.

        One-word titles are often ordinary words, so they count only if capitalised inside a sentence, or quoted.
        """
        return [rows for _, _, rows in self._named(text, set())]

    def _named(self, text: str, shown: set[int]) -> list[tuple[int, int, set[int]]]:
        """Return (start, end, rows) for each title in the text; titles of shown items count in any spelling of case."""
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
        """True for a word that is marked as a title by its capital or by quotation marks."""
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
            return False  # a year in parentheses follows a title, and this title is not one of the shown items'
        for clause in _CLAUSE.split(masked):
            count = clause.count(_MASK)
            if not self._true_of(clause, about[:count], shown):
                return False
            about = about[count:]
        return True

    def _true_of(self, clause: str, about: Sequence[set[int]], shown: Sequence[int]) -> bool:
        """True when every tag and year in a clause is true of the items that it refers to.

        Args:
            clause: a clause with every title replaced by a mask.
            about: the rows that each mask may stand for.
            shown: the shown items, any of which a clause without a title may refer to.
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
        """Return the claims that are true of an item: its tags, its year, and the tags that its own text mentions."""
        item = self.catalog[row]
        own = {_norm(tag) for tag in tags(self.catalog, row)} | {str(item.attributes.get("year"))}
        return own | set(self._tag_words.findall(_norm(item.text)))

    def _claims(self, text: str) -> set[str]:
        """Return the tags and years that a text mentions, other than years in parentheses."""
        words = _norm(_DATED.sub(" ", text))
        return {*self._tag_words.findall(words), *_YEAR.findall(words)}

    def end_of_sentence(self, text: str, shown: Sequence[int]) -> re.Match[str] | None:
        """Return the gap after the first sentence of a text; a mark inside a shown title does not end a sentence.

        None while the text may still continue as such a title (`Hot Shots! P`).
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
