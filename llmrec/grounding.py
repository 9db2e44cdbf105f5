"""Is a sentence backed by the catalogue? Used on everything the language model says before a person sees it.

A sentence may name titles only of shown items, and tag values and years only when they belong to every shown item that
its clause names, or to any of them when it names none. It may not deny having what is on display. The check is by
program and strict: a sentence that fails is dropped, not repaired.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from llmrec.catalog import Catalog
from llmrec.reasons import tags

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
_LABEL_YEAR = re.compile(r"\(\d{4}\)")
_LABEL = re.compile(r"([A-Z][^.!?()]*?)\s*\((\d{4})\)")


def _norm(text: str) -> str:
    return " ".join(_WORDS.findall(text.lower()))


@dataclass(frozen=True, eq=False)
class Checker:
    """Checks sentences against one catalogue."""

    catalog: Catalog

    @cached_property
    def _titles(self) -> dict[str, set[int]]:
        """Normalised titles of two words or more (one-word titles are ordinary words too often) to their rows."""
        out: dict[str, set[int]] = {}
        for row, item in enumerate(self.catalog.items):
            name = _norm(item.title)
            if name.count(" "):
                out.setdefault(name, set()).add(row)
        return out

    @cached_property
    def _longest(self) -> int:
        return max((name.count(" ") + 1 for name in self._titles), default=1)

    @cached_property
    def _tags(self) -> dict[str, str]:
        return {_norm(tag): tag for row in range(len(self.catalog)) for tag in tags(self.catalog, row)}

    def titles_in(self, text: str) -> list[set[int]]:
        """Catalogue titles (of two words or more) that the text contains, the longest at each place, as rows."""
        words = _norm(text).split()
        found, i = [], 0
        while i < len(words):
            for size in range(min(self._longest, len(words) - i), 1, -1):
                rows = self._titles.get(" ".join(words[i : i + size]))
                if rows:
                    found.append(rows)
                    i += size - 1
                    break
            i += 1
        return found

    def grounded(self, sentence: str, shown: Sequence[int]) -> bool:
        """True when every title, tag and year in the sentence belongs to a shown item."""
        allowed = set(shown)
        names = {_norm(self.catalog[row].title) for row in shown}
        for title, year in _LABEL.findall(sentence):
            low = _norm(title)
            if not any(
                low.endswith(name) and str(self.catalog[r].attributes.get("year", year)) == year
                for r in shown
                for name in [_norm(self.catalog[r].title)]
                if name
            ):
                return False
        rest = _norm(sentence)
        for name in sorted(names, key=len, reverse=True):  # a shown title may contain another title, or a tag
            rest = re.sub(rf"\b{re.escape(name)}\b", "|", rest) if name else rest
        if any(not rows & allowed for part in rest.split("|") for rows in self.titles_in(part)):
            return False
        if _DENIAL.search(sentence):
            return False
        return all(self._true_of(clause, shown) for clause in _CLAUSE.split(sentence))

    def _true_of(self, clause: str, shown: Sequence[int]) -> bool:
        """True when every tag and year of a clause belongs to all items that it names; to any shown one if none."""
        rest = _norm(_LABEL_YEAR.sub(" ", clause))
        named: list[int] = []
        for row in sorted(shown, key=lambda row: -len(self.catalog[row].title)):
            name = _norm(self.catalog[row].title)
            rest, count = re.subn(rf"\b{re.escape(name)}\b", "|", rest) if name else (rest, 0)
            named += [row] * bool(count)
        own = [{_norm(tag) for tag in tags(self.catalog, row)} for row in named or shown]
        years = [{str(self.catalog[row].attributes.get("year"))} for row in named or shown]
        join = set.intersection if named else set.union
        held, dated = (join(*sets) if sets else set() for sets in (own, years))
        if any(tag not in held and re.search(rf"\b{re.escape(tag)}s?\b", rest) for tag in self._tags):
            return False
        return all(year in dated for year in _YEAR.findall(rest))
