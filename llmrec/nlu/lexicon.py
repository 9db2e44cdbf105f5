"""Lexicon of attribute values: the catalogue's own words, their plurals, and a few synonyms."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import yaml

from llmrec.data.attribute_types import SAFETY
from llmrec.data.catalog import Catalog
from llmrec.data.filters import join_names, split_name
from llmrec.data.titles import title_key
from llmrec.nlu.attribute_phrases import is_adjective, says_kind
from llmrec.nlu.english import FILLER, SMALL
from llmrec.nlu.title_lookup import TypoSpanFinder

_PAIRS: dict[str, tuple[str, ...]] = {"romcom": ("Romance", "Comedy"), "rom com": ("Romance", "Comedy")}

# A value of an attribute with more values than this (people, brands) is recognised only if it is capitalised, has at
# least two words, or is excluded.
_FEW_VALUES = 60
_PEOPLE = ("director", "actor", "author", "artist")
_PARTICLES = frozenset(["de", "del", "della", "di", "da", "du", "des", "van", "von", "le", "la", "el", "bin", "ben"])
_SURNAME = 4  # fewest letters of a surname that identifies a person by itself
# Words after which a bare lower-case word is a subject or a person.
_OPENERS = frozenset(
    ["about", "with", "by", "starring", "featuring", "involving", "in", "of", "on", "directed", "around"]
)
_OPENERS |= frozenset(["concerning", "regarding", "has", "have", "contains", "involves", "into", "features", "like"])
_OPENERS |= frozenset(["me", "gimme", "want", "need", "any", "more", "watch"])
_ARTICLES = frozenset(["a", "an", "the", "some"])
_NOUNS = frozenset(["film", "films", "movie", "movies", "flick", "flicks", "story", "stories", "book", "books", "game"])
_VERBS_TOO = frozenset(["play", "plays"])
_WORD = re.compile(r"[^\W_]+(?:['\u2019`\u00b4][^\W_]+)*|&")
_STOPS = re.compile(r"[.,]")


@dataclass(frozen=True)
class Word:
    """A word of the text: its key (lower case, no accents), its position, and the text between it and the last word."""

    key: str
    start: int
    end: int
    gap: str
    capital: bool


@dataclass(frozen=True)
class LexiconEntry:
    """The attribute values that a phrase stands for (usually one).

    Attributes:
        attribute: the attribute of the values; several attributes are joined as by `filters.join_names`.
        values: alternative spellings of one value; with `conjunctive`, several values that must all hold.
        plural: whether the phrase is a plural noun.
        conjunctive: see `values`.
        small: whether one of the attributes has so few values that a bare lower-case word names one.
    """

    attribute: str
    values: tuple[str, ...]
    plural: bool = False
    conjunctive: bool = False
    small: bool = True


@dataclass(frozen=True)
class ValueMatch:
    """A phrase found in the text, as word positions first..last (inclusive).

    Attributes:
        first: position of its first word.
        last: position of its last word.
        entry: the values it stands for.
        confident: whether it asks for the value in any context; a lower-case word of a large attribute may be an
            ordinary word, and counts only where it is excluded.
    """

    first: int
    last: int
    entry: LexiconEntry
    confident: bool = True

    @property
    def names_people(self) -> bool:
        """True for a director, actor, author or artist."""
        return _names_people(self.entry)


def split_words(text: str) -> list[Word]:
    """Split text into words with their positions."""
    found: list[Word] = []
    end = 0
    for match in _WORD.finditer(text):
        raw = match.group()
        found.append(Word(title_key(raw), match.start(), match.end(), text[end : match.start()], raw[0].isupper()))
        end = match.end()
    return found


class Lexicon:
    """Maps phrases to the attribute values of one catalogue."""

    def __init__(self, catalog: Catalog) -> None:
        # the audience is a limit, see `suitability`: `family` alone is not a wish for a family film
        self._names = [name for name in catalog.attribute_names if _holds_words(catalog, name) and name not in SAFETY]
        # ordered, and with quick membership: synonyms are looked up among thousands of people or brands
        self._values = {name: dict.fromkeys(catalog.values(name)) for name in self._names}
        self._marked: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
        found: dict[tuple[str, ...], dict[str, LexiconEntry]] = {}
        self._exact: set[tuple[tuple[str, ...], str]] = set()
        for name in sorted(self._names, key=lambda one: len(self._values[one])):
            self._add_attribute(name, found)
        self._phrases = {key: _merge_entries(self._preferred(key, entries)) for key, entries in found.items()}
        people = {key for key, entry in self._phrases.items() if _names_people(entry) and len(key) > 1}
        self._misspelt_people = TypoSpanFinder({key: None for key in people}, self.vocabulary)
        self._longest = max(map(len, self._phrases), default=0)
        self.year = next((name for name in catalog.attribute_names if is_year_attribute(name)), None)
        self.example_values = self._example_values(catalog)

    def _add_attribute(self, name: str, found: dict[tuple[str, ...], dict[str, LexiconEntry]]) -> None:
        """Add the phrases for one attribute's values; a synonym counts only if it is not itself a value."""
        small = len(self._values[name]) <= _FEW_VALUES
        spelt: dict[tuple[str, ...], dict[str, bool]] = {}
        for value in self._values[name]:
            for phrase, plural in _surface_forms(value):
                spelt.setdefault(_key(phrase), {}).setdefault(value, plural)
            # split like a sentence: there `Part 2` keeps its `part`
            words = split_words(value)
            key = tuple(word.key for word in words)
            spelt.setdefault(key, {}).setdefault(value, False)
            if any(_STOPS.search(word.gap) for word in words[1:]):
                self._marked.setdefault(key, set()).add(tuple(word.gap.strip() for word in words[1:]))
        by_key = {title_key(value): value for value in self._values[name]}
        others: dict[tuple[str, ...], LexiconEntry] = {}
        for phrases, conjunctive in ((synonyms(), False), (_PAIRS, True)):
            for phrase, wanted in phrases.items():
                values = tuple(by_key[title_key(one)] for one in wanted if self._is_value(name, one, by_key))
                if values and (not conjunctive or len(values) == len(wanted)):
                    kept = values if conjunctive or not says_kind(name) else values[:1]
                    for key, plural in [(_key(phrase), False)] if conjunctive else _phrase_forms(phrase):
                        others.setdefault(key, LexiconEntry(name, kept, plural, conjunctive, small))
        own = {key: LexiconEntry(name, tuple(v), all(v.values()), small=small) for key, v in spelt.items() if key}
        if name in _PEOPLE:
            others |= {key: LexiconEntry(name, values, small=False) for key, values in self._surnames(name).items()}
        for key, entry in {**others, **own}.items():
            found.setdefault(key, {})[name] = entry
        self._exact |= {(key, name) for key in own}

    def _is_value(self, name: str, value: str, by_key: dict[str, str]) -> bool:
        """True when the attribute has this value; kinds may differ in spelling, values of controlled lists may not."""
        return title_key(value) in by_key if says_kind(name) else value in self._values[name]

    def _surnames(self, name: str) -> dict[tuple[str, ...], tuple[str, ...]]:
        """Return surname -> the people with it, without short ones, common words, and those that are also first names.

        `suits me best` does not ask for Edna Best.
        """
        parted = {value: tuple(title_key(value).split()) for value in self._values[name]}
        plain = {key[0] for key in parted.values() if len(key) > 1} | FILLER | SMALL
        found: dict[tuple[str, ...], list[str]] = {}
        for value, key in parted.items():
            start = next((place for place, word in enumerate(key[1:-1], 1) if word in _PARTICLES), len(key) - 1)
            if len(key) > 1 and (len(key) - start > 1 or (len(key[-1]) >= _SURNAME and key[-1] not in plain)):
                found.setdefault(key[start:], []).append(value)
        return {key: tuple(values) for key, values in found.items()}

    def _preferred(self, key: tuple[str, ...], entries: dict[str, LexiconEntry]) -> list[LexiconEntry]:
        """Return the meanings of a phrase: exact values before synonyms, and among synonyms subjects before kinds."""
        if "country" in entries:  # `Spanish films` come from Spain; `set in Spain` is parsed by `suitability`
            return [entries["country"]]
        exact = {name: one for name, one in entries.items() if (key, name) in self._exact}
        if exact:
            return list(exact.values())
        subjects = {name: one for name, one in entries.items() if not says_kind(name) and not is_adjective(name)}
        return list((subjects or entries).values())

    def _example_values(self, catalog: Catalog) -> tuple[str, ...]:
        """Return the three commonest values of one attribute, as examples for questions.

        Of the attributes with few values, it is the one that most items have; on a tie, the one with the fewest values.
        """
        few = [
            n for n in self._names if 2 <= len(self._values[n]) <= _FEW_VALUES and catalog.attribute_type(n) != "flag"
        ]
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

    def is_kind(self, keys: Iterable[str]) -> bool:
        """True when the words together name a kind of item; unlike these, a series or a place is often also a title."""
        entry = self._phrases.get(tuple(keys))
        return entry is not None and any(says_kind(name) or is_adjective(name) for name in split_name(entry.attribute))

    def find(self, words: list[Word], taken: set[int], include_uncertain: bool = False) -> list[ValueMatch]:
        """Return the attribute values named in the text, in order; at each position the longest phrase wins.

        Args:
            words: the words of the text.
            taken: positions of words that already have another meaning; they are skipped.
            include_uncertain: also return matches that are not `confident`.
        """
        matches: list[ValueMatch] = []
        place = 0
        while place < len(words):
            match = self._at(words, place, taken, include_uncertain)
            if match is not None:
                matches.append(match)
            place = place + 1 if match is None else match.last + 1
        taken = taken | {place for match in matches for place in range(match.first, match.last + 1)}
        slips = self._misspelt_people.find([word.key for word in words], taken)
        found = [ValueMatch(first, last, self._phrases[name]) for first, last, name in slips]
        return sorted([*matches, *found], key=lambda match: match.first)

    def _at(self, words: list[Word], place: int, taken: set[int], include_uncertain: bool) -> ValueMatch | None:
        for length in range(min(self._longest, len(words) - place), 0, -1):
            span = words[place : place + length]
            entry = self._phrases.get(tuple(word.key for word in span))
            if entry is None or not taken.isdisjoint(range(place, place + length)) or self._broken(span):
                continue
            if entry.attribute == "source" and span[0].key in _VERBS_TOO and not _asked_for(words, place):
                continue  # `where Johnny Depp plays`
            confident = length > 1 or span[0].capital or entry.small or _asked_for(words, place)
            if confident or include_uncertain:
                return ValueMatch(place, place + length - 1, entry, confident)
        return None

    def _broken(self, span: list[Word]) -> bool:
        """True when a full stop or comma separates the words and the value itself has none there."""
        gaps = tuple(word.gap.strip() for word in span[1:])
        stops = any(_STOPS.search(gap) for gap in gaps)
        return stops and gaps not in self._marked.get(tuple(word.key for word in span), ())


@cache
def synonyms() -> dict[str, tuple[str, ...]]:
    """Return phrase -> the values it may mean; an entry counts only in a catalogue that has such a value."""
    raw = yaml.safe_load((files("llmrec.nlu") / "synonyms.yaml").read_text("utf-8"))
    found: dict[str, list[str]] = {}
    for value, phrases in raw.items():
        for phrase in phrases:
            found.setdefault(phrase, []).append(value)
    return {phrase: tuple(values) for phrase, values in found.items()}


def _asked_for(words: list[Word], place: int) -> bool:
    """True for a bare word in the position of a subject or a person: `about dogs`, `with eastwood`."""
    start = place - 1 if place and words[place - 1].key in _ARTICLES else place
    before = words[start - 1].key if start and not _STOPS.search(words[place].gap) else ""
    after = words[place + 1].key if place + 1 < len(words) and not _STOPS.search(words[place + 1].gap) else ""
    return len(words) == 1 or before in _OPENERS or after in _NOUNS


def _names_people(meaning: LexiconEntry) -> bool:
    return not set(split_name(meaning.attribute)).isdisjoint(_PEOPLE)


def _phrase_forms(phrase: str) -> list[tuple[tuple[str, ...], bool]]:
    return [(key, plural) for form, plural in _surface_forms(phrase) if (key := _key(form))]


def _key(phrase: str) -> tuple[str, ...]:
    return tuple(title_key(phrase).split())


def _merge_entries(entries: list[LexiconEntry]) -> LexiconEntry:
    """Merge the entries of a phrase in several attributes into one; attributes with fewer values come first."""
    if len(entries) == 1:
        return entries[0]
    pairs = [one for one in entries if one.conjunctive]
    alike = [one for one in entries if one.conjunctive == bool(pairs)]
    values = {value.casefold(): value for one in reversed(alike) for value in reversed(one.values)}
    return LexiconEntry(
        join_names(one.attribute for one in alike),
        tuple(reversed(values.values())),
        all(one.plural for one in alike),
        bool(pairs),
        any(one.small for one in alike),
    )


def _surface_forms(value: str) -> list[tuple[str, bool]]:
    """Return (phrase, whether it is a plural noun) for a value: Comedy, Comedies; Sci-Fi, scifi; Boxes, box."""
    key = title_key(value)
    forms = [(key, False), (key.replace(" ", ""), False)]
    if key.endswith("y") and not key.endswith(("ay", "ey", "oy", "uy")):
        forms.append((f"{key[:-1]}ies", True))
    elif key.endswith(("s", "x", "z", "ch", "sh")):
        forms.append((f"{key}es", True))
    else:
        forms.append((f"{key}s", True))
    if key.endswith("s") and not key.endswith("ss") and len(key) > 4:
        forms.append((key[:-1], False))
        if key.endswith("ies"):
            forms.append((f"{key[:-3]}y", False))
        elif key.endswith(("ses", "xes", "zes", "ches", "shes")):
            forms.append((key[:-2], False))
    return forms


def _holds_words(catalog: Catalog, name: str) -> bool:
    return any(isinstance(item.attributes.get(name), str | tuple) for item in catalog.items)


def is_year_attribute(name: str) -> bool:
    """Return whether an attribute of this name holds a year rather than an amount."""
    return name.casefold() == "year" or name.casefold().endswith("_year")


def _coverage(catalog: Catalog, name: str) -> int:
    return sum(1 for item in catalog.items if name in item.attributes)


def _tuple(value: object) -> tuple[str, ...]:
    return value if isinstance(value, tuple) else (value,) if isinstance(value, str) else ()
