"""Looks up titles, exactly or with typos, in the phrases of a message and in runs of words around unknown words.

A look-up with typos compares many titles, so the number of look-ups per message is bounded: a page of unknown names
costs no more than a sentence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rapidfuzz import fuzz

from llmrec.data.catalog import Catalog
from llmrec.data.titles import TypoIndex, title_key
from llmrec.errors import RequestError
from llmrec.nlu.english import DECADES, FILLER, NUMBERS, ORDINALS, SMALL

_MAX_FUZZY = 8  # most phrases of a message that are looked up with typos; exact look-ups are not counted
_SIMILAR = 65.0  # of 100: less similar titles are not proposed
_MIN_TITLE = 7  # fewest letters of a title that is searched with typos in running text
_MIN_WORD = 3  # fewest letters of an unknown word that may be a typo
_MAX_WORDS = 7  # most words of a title with a typo
_MAX_UNKNOWN = 12  # unknown words whose surroundings are searched


@dataclass(frozen=True)
class PhraseMatch:
    """The row that a phrase means; -1 for none, with a note that gives the reason."""

    row: int
    note: str = ""


class PhraseLinker:
    """Links the phrases of one message to rows; each phrase is looked up once.

    Args:
        catalog: the catalogue whose titles are searched.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._known: dict[str, PhraseMatch] = {}
        self._left = _MAX_FUZZY

    def find(self, phrase: str) -> PhraseMatch:
        """Return the row with this title, as `Catalog.find` decides, or a note for the visitor."""
        if phrase not in self._known:
            self._known[phrase] = self._look_up(phrase)
        return self._known[phrase]

    def _look_up(self, phrase: str) -> PhraseMatch:
        several = ""
        try:
            row = self._catalog.exact(phrase)
        except RequestError as error:
            row, several = None, self._several(phrase, error)
        if row is not None:
            return PhraseMatch(row)
        if not self._left:
            return PhraseMatch(-1, several or f"I did not look for \u201c{phrase}\u201d; name fewer at once.")
        self._left -= 1
        try:
            row = None if several else self._catalog.misspelt(phrase)
        except RequestError as error:
            several = self._several(phrase, error)
        return PhraseMatch(-1, several or self._unknown(phrase)) if row is None else PhraseMatch(row)

    def _several(self, phrase: str, error: RequestError) -> str:
        names = str(error).rpartition("any of: ")[2]
        return f"Several {self._catalog.domain} fit \u201c{phrase}\u201d: {names}. Which one?"

    def _unknown(self, phrase: str) -> str:
        near = self._catalog.closest(phrase, 3)
        likely = [self._catalog.label(row) for row in near if self._is_similar(phrase, row)]
        close = f"; do you mean {' or '.join(likely)}?" if likely else "."
        return f"I have nothing called \u201c{phrase}\u201d here{close}"

    def _is_similar(self, phrase: str, row: int) -> bool:
        typed, known = title_key(phrase), title_key(self._catalog[row].title)
        return fuzz.ratio(typed, known) >= _SIMILAR or typed in known


class TypoSpanFinder:
    """Finds titles with typos in running text, around words that occur neither in titles nor in plain English.

    Args:
        names: titles and parts of titles, as tuples of word keys.
        vocabulary: further words that are not typos.
    """

    def __init__(self, names: Mapping[tuple[str, ...], object], vocabulary: Iterable[str]) -> None:
        in_titles = (word for name in names for word in name)
        self._vocabulary = {*FILLER, *SMALL, *NUMBERS, *ORDINALS, *DECADES, *vocabulary, *in_titles}
        self._index = TypoIndex(name for words in names if len(name := " ".join(words)) >= _MIN_TITLE)

    def find(self, keys: Sequence[str], taken: set[int]) -> list[tuple[int, int, tuple[str, ...]]]:
        """Return (first word, last word, name) for each title with typos.

        `taken` holds the positions of words that already have another meaning.
        """
        found: list[tuple[int, int, tuple[str, ...]]] = []
        used = set(taken)
        unknown = [place for place, key in enumerate(keys) if place not in taken and self._is_unknown(key)]
        for place in unknown[:_MAX_UNKNOWN]:
            best = self._around(keys, place, used)
            if best is not None:
                first, last, name = best
                used |= set(range(first, last + 1))
                found.append((first, last, tuple(name.split())))
        return found

    def _is_unknown(self, key: str) -> bool:
        if len(key) < _MIN_WORD or key.isdigit():
            return False
        return key not in self._vocabulary and key.rstrip("s") not in self._vocabulary

    def _around(self, keys: Sequence[str], place: int, used: set[int]) -> tuple[int, int, str] | None:
        """Return the title nearest to any run of words that includes `place`; on equal distance, longer runs win."""
        best: tuple[int, int] | None = None
        answer: tuple[int, int, str] | None = None
        for first in range(max(0, place - _MAX_WORDS + 1), place + 1):
            for last in range(place, min(len(keys), first + _MAX_WORDS)):
                if used.intersection(range(first, last + 1)):
                    continue
                near = self._index.nearest(" ".join(keys[first : last + 1]))
                if len(near) == 1 and near[0][1]:
                    rank = (near[0][1], first - last)
                    if best is None or rank < best:
                        best, answer = rank, (first, last, near[0][0])
        return answer
