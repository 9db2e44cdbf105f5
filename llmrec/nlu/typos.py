"""Titles with a slip of the keyboard, anywhere in a sentence: `Unforgertable bored me`, `something like hard raon`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rapidfuzz import process
from rapidfuzz.distance import OSA

from llmrec.nlu.english import DECADES, FILLER, NUMBERS, ORDINALS, SMALL

_SHORTEST = 7  # letters of a title that a slip may stand in
_LONG = 11  # letters from which on two slips are forgiven
_STRANGE = 3  # letters of a word that may be a slip
_MOST_WORDS = 7
_MOST_STRANGE = 12  # unknown words looked into, so that a page of nonsense costs no more than a sentence


class SlipFinder:
    """Finds misspelt titles around words that neither the catalogue nor plain English has."""

    def __init__(self, names: Mapping[tuple[str, ...], object], known: Iterable[str]) -> None:
        self._known = {
            *FILLER,
            *SMALL,
            *NUMBERS,
            *ORDINALS,
            *DECADES,
            *known,
            *(word for name in names for word in name),
        }
        self._by_length: dict[int, list[str]] = {}
        for name in names:
            joined = " ".join(name)
            if len(joined) >= _SHORTEST - 1:
                self._by_length.setdefault(len(joined), []).append(joined)

    def strange(self, key: str) -> bool:
        """True for a word that stands in no title and in no word list."""
        return (
            len(key) >= _STRANGE and not key.isdigit() and key not in self._known and key.rstrip("s") not in self._known
        )

    def find(self, keys: Sequence[str], taken: set[int]) -> list[tuple[int, int, tuple[str, ...]]]:
        """Return (first word, last word, name) for each misspelt title; `taken` words belong to something else."""
        found: list[tuple[int, int, tuple[str, ...]]] = []
        used = set(taken)
        strange = [place for place, key in enumerate(keys) if place not in taken and self.strange(key)]
        for place in strange[:_MOST_STRANGE]:
            best = self._around(keys, place, used)
            if best is not None:
                first, last, name = best
                used |= set(range(first, last + 1))
                found.append((first, last, tuple(name.split())))
        return found

    def _around(self, keys: Sequence[str], place: int, used: set[int]) -> tuple[int, int, str] | None:
        """The nearest title of a run of words that holds the one at `place`; longer runs go first among equals."""
        best: tuple[int, int] | None = None
        answer: tuple[int, int, str] | None = None
        for first in range(max(0, place - _MOST_WORDS + 1), place + 1):
            for last in range(place, min(len(keys), first + _MOST_WORDS)):
                if used.intersection(range(first, last + 1)):
                    continue
                near = self._near(" ".join(keys[first : last + 1]))
                if near is not None:
                    rank = (near[1], first - last)
                    if best is None or rank < best:
                        best, answer = rank, (first, last, near[0])
        return answer

    def _near(self, typed: str) -> tuple[str, int] | None:
        """The one title within reach of what was typed, with its distance; None when none is, or several are."""
        if len(typed) < _SHORTEST - 1:
            return None
        reach = 2 if len(typed) >= _LONG else 1
        names = [n for size in range(len(typed) - reach, len(typed) + reach + 1) for n in self._by_length.get(size, [])]
        near = process.extract(typed, names, scorer=OSA.distance, score_cutoff=reach, limit=2)
        near = [one for one in near if one[0][0] == typed[0] and _numbers(one[0]) == _numbers(typed)]
        if not near or (len(near) > 1 and near[0][1] == near[1][1]) or len(near[0][0]) < _SHORTEST:
            return None
        return near[0][0], int(near[0][1])


def _numbers(text: str) -> list[str]:
    return [word for word in text.split() if word.isdigit()]
