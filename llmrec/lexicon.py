"""The words by which people mean attribute values: the catalogue's own, their plurals, a few synonyms."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from llmrec.catalog import Catalog
from llmrec.titles import title_key

# What people say -> the catalogue values they may mean; an entry counts only where the catalogue has such a
# value.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "science fiction": ("Sci-Fi", "Science Fiction"),
    "sf": ("Sci-Fi", "Science Fiction"),
    "futuristic": ("Sci-Fi", "Science Fiction"),
    "kid": ("Children's", "Kids", "Family"),
    "kids": ("Children's", "Family"),
    "child": ("Children's", "Kids", "Family"),
    "children": ("Children's", "Kids", "Family"),
    "family": ("Children's", "Kids"),
    "funny": ("Comedy", "Humor"),
    "comedic": ("Comedy", "Humor"),
    "hilarious": ("Comedy", "Humor"),
    "humor": ("Comedy",),
    "humour": ("Comedy", "Humor"),
    "scary": ("Horror",),
    "creepy": ("Horror",),
    "spooky": ("Horror",),
    "frightening": ("Horror",),
    "animated": ("Animation",),
    "cartoon": ("Animation",),
    "cartoons": ("Animation",),
    "romantic": ("Romance",),
    "love story": ("Romance",),
    "love stories": ("Romance",),
    "suspense": ("Thriller",),
    "suspenseful": ("Thriller",),
    "whodunit": ("Mystery",),
    "detective": ("Mystery",),
    "documentaries": ("Documentary",),
    "noir": ("Film-Noir", "Noir"),
    "cowboy": ("Western",),
    "cowboys": ("Western",),
    "gangster": ("Crime",),
    "gangsters": ("Crime",),
    "mafia": ("Crime",),
    "dramatic": ("Drama",),
    "adventurous": ("Adventure",),
    "magical": ("Fantasy",),
    "military": ("War",),
    "wartime": ("War",),
    "action packed": ("Action",),
    "funnier": ("Comedy", "Humor"),
    "scarier": ("Horror",),
    "more romantic": ("Romance",),
    "love films": ("Romance",),
    "love movies": ("Romance",),
    "whodunits": ("Mystery",),
    "detectives": ("Mystery",),
}
_PAIRS: dict[str, tuple[str, ...]] = {"romcom": ("Romance", "Comedy"), "rom com": ("Romance", "Comedy")}

# An attribute with more values than this (people, brands) must be named in capitals or with two words or
# more.
_FEW = 60
_WORD = re.compile(r"[^\W_]+(?:['\u2019`\u00b4][^\W_]+)*|&")
_MOST_WORDS = 6


@dataclass(frozen=True)
class Word:
    """A word of the text: its key (no case, no accents), its place, and the marks between it and the last."""

    key: str
    start: int
    end: int
    gap: str
    capital: bool


@dataclass(frozen=True)
class Meaning:
    """The attribute values that a phrase stands for (usually one)."""

    attribute: str
    values: tuple[str, ...]
    plural: bool = False


@dataclass(frozen=True)
class Hit:
    """A phrase found in the text, as word positions first..last (inclusive)."""

    first: int
    last: int
    meaning: Meaning


def words_of(text: str) -> list[Word]:
    """Split text into words with their places."""
    found: list[Word] = []
    end = 0
    for match in _WORD.finditer(text):
        raw = match.group()
        found.append(Word(title_key(raw), match.start(), match.end(), text[end : match.start()], raw[0].isupper()))
        end = match.end()
    return found


class Lexicon:
    """Phrases -> attribute values for one catalogue."""

    def __init__(self, catalog: Catalog) -> None:
        self._names = [name for name in catalog.attribute_names if _is_words(catalog, name)]
        self._values = {name: catalog.values(name) for name in self._names}
        self._phrases: dict[tuple[str, ...], Meaning] = {}
        for name in sorted(self._names, key=lambda one: len(self._values[one])):
            self._add_attribute(name)
        self.year = next((name for name in catalog.attribute_names if is_year(name)), None)
        self.main = self._main(catalog)

    def _add_attribute(self, name: str) -> None:
        for value in self._values[name]:
            for phrase, plural in _forms(value):
                self._add(phrase, Meaning(name, (value,), plural))
        by_key = {title_key(value): value for value in self._values[name]}
        for phrase, wanted in SYNONYMS.items():
            values = [by_key[title_key(one)] for one in wanted if title_key(one) in by_key]
            if values:
                self._add(phrase, Meaning(name, (values[0],)))
        for phrase, wanted in _PAIRS.items():
            values = [by_key[title_key(one)] for one in wanted if title_key(one) in by_key]
            if len(values) == len(wanted):
                self._add(phrase, Meaning(name, tuple(values)))

    def _add(self, phrase: str, meaning: Meaning) -> None:
        key = tuple(title_key(phrase).split())
        if key and len(key) <= _MOST_WORDS:
            self._phrases.setdefault(key, meaning)

    def _main(self, catalog: Catalog) -> tuple[str, ...]:
        """The three commonest values of the attribute with fewest values: what to ask about."""
        few = [n for n in self._names if 2 <= len(self._values[n]) <= _FEW and catalog.kind(n) != "flag"]
        if not few:
            return ()
        name = min(few, key=lambda one: (-_coverage(catalog, one), len(self._values[one])))
        counts = Counter(value for item in catalog.items for value in _tuple(item.attributes.get(name)))
        return tuple(value for value, _ in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:3])

    @property
    def vocabulary(self) -> frozenset[str]:
        """Every word of every phrase."""
        return frozenset(word for phrase in self._phrases for word in phrase)

    def is_word(self, keys: Iterable[str]) -> bool:
        """True when the words together are an attribute value or a synonym of one."""
        return tuple(keys) in self._phrases

    def find(self, words: list[Word], taken: set[int]) -> list[Hit]:
        """Return attribute values named in the text, longest first, skipping the words in `taken`."""
        hits: list[Hit] = []
        place = 0
        while place < len(words):
            hit = self._at(words, place, taken)
            if hit is not None:
                hits.append(hit)
            place = place + 1 if hit is None else hit.last + 1
        return hits

    def _at(self, words: list[Word], place: int, taken: set[int]) -> Hit | None:
        for length in range(min(_MOST_WORDS, len(words) - place), 0, -1):
            span = range(place, place + length)
            if taken.intersection(span) or any("." in words[i].gap or "," in words[i].gap for i in span[1:]):
                continue
            meaning = self._phrases.get(tuple(words[i].key for i in span))
            if meaning is not None and (
                length > 1 or words[place].capital or len(self._values[meaning.attribute]) <= _FEW
            ):
                return Hit(place, place + length - 1, meaning)
        return None


def _forms(value: str) -> list[tuple[str, bool]]:
    """The phrases for a value, each with whether it is a plural noun: Comedy, Comedies; Sci-Fi, scifi."""
    key = title_key(value)
    forms = [(key, False), (key.replace(" ", ""), False)]
    if key.endswith("y") and not key.endswith(("ay", "ey", "oy")):
        forms.append((f"{key[:-1]}ies", True))
    elif not key.endswith("s"):
        forms.append((f"{key}s", True))
    elif key.endswith("s") and len(key) > 4:
        forms.append((key[:-1], False))
    return forms


def _is_words(catalog: Catalog, name: str) -> bool:
    return any(isinstance(item.attributes.get(name), str | tuple) for item in catalog.items)


def is_year(name: str) -> bool:
    """Whether an attribute of this name holds a year, not an amount."""
    return name.casefold() == "year" or name.casefold().endswith("_year")


def _coverage(catalog: Catalog, name: str) -> int:
    return sum(1 for item in catalog.items if name in item.attributes)


def _tuple(value: object) -> tuple[str, ...]:
    return value if isinstance(value, tuple) else (value,) if isinstance(value, str) else ()
