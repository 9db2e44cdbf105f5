"""Entity linking: finds the items that a message names by title."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from llmrec.data.catalog import Catalog
from llmrec.data.titles import PLAIN_ARTICLES, title_key, title_variants
from llmrec.nlu import cue_phrases
from llmrec.nlu.english import ARTICLES, CLOSERS, FILLER, INDEFINITE, SMALL, TASTE
from llmrec.nlu.lexicon import Lexicon, Word, split_words
from llmrec.nlu.notes import limit_notes
from llmrec.nlu.opinions import ends_with_opinion, is_verdict
from llmrec.nlu.title_lookup import PhraseLinker, TypoSpanFinder

_NEAR = 80  # characters before a name that are searched for words of taste
_BEING = frozenset(["am", "are", "be", "been", "being", "got", "is", "was", "were"])
_OPENERS = frozenset(["also", "and", "because", "but", "oh", "so", "that", "well"])
_SHORTENED = frozenset(["dr", "mr", "mrs", "ms", "st", "vs", "jr"])
_QUOTED = re.compile(r"[\"\u201c\u201d\u00ab\u00bb]([^\"\u201c\u201d\u00ab\u00bb]{1,120})[\"\u201c\u201d\u00ab\u00bb]")
_JOINED = re.compile(r"\s*(?:,|,?\s*(?:and|or|&)|,?\s*and both)\s*(?:the )?[\"\u201c\u201d]?\s*")
_YEAR_AFTER = re.compile(r"^(?:[.!?]?\s*\(\s*(\d{4})\s*\)|\s*,?\s*(?:from|of)?\s*((?:18|19|20)\d{2})\b)")


@dataclass(frozen=True)
class Mention:
    """An item named at text[start:end]; row -1 for a name of no item, or of several: then `options` holds them."""

    row: int
    start: int
    end: int
    options: tuple[int, ...] = ()


@dataclass(frozen=True)
class Mentions:
    """The items named, and remarks about names that match no item or several."""

    found: tuple[Mention, ...]
    notes: tuple[str, ...]


class EntityLinker:
    """Finds titles inside sentences; returns only confident matches."""

    def __init__(self, catalog: Catalog, lexicon: Lexicon) -> None:
        self._catalog, self._lexicon = catalog, lexicon
        self._names: dict[tuple[str, ...], dict[int, int]] = {}
        self._longest: dict[str, int] = {}
        for row, item in enumerate(catalog.items):
            for name, rank in _surface_forms(item.title).items():
                if not name:
                    continue  # a title without letters cannot be typed
                self._names.setdefault(name, {})[row] = rank
                self._longest[name[0]] = max(self._longest.get(name[0], 0), len(name))
        self._typos = TypoSpanFinder(self._names, lexicon.vocabulary)

    def link(self, text: str) -> Mentions:
        """Return the items that `text` (cleaned, one line) names, in order of appearance."""
        found: list[Mention] = []
        notes: list[str] = []
        lookup = PhraseLinker(self._catalog)
        for match in _QUOTED.finditer(text):
            self._look_up(text, match.span(1), found, notes, lookup, insist=True)
        words = split_words(text)
        shouting = _mostly_capital(words)
        self._misspelt(text, words, found, notes)
        place = 0
        while place < len(words):
            length = self._at(text, words, place, found, notes, shouting)
            place += max(length, 1)
        for match in [
            one for cue in (cue_phrases.CUE, cue_phrases.ASKED, cue_phrases.STOCKED) for one in cue.finditer(text)
        ]:
            self._pieces(text, match, found, notes, lookup)
        return Mentions(tuple(sorted(found, key=lambda one: one.start)), limit_notes(notes))

    def _at(
        self, text: str, words: list[Word], place: int, found: list[Mention], notes: list[str], shouting: bool
    ) -> int:
        """Match the longest title that starts at a word; returns the number of words it spans, or 0."""
        longest = min(self._longest.get(words[place].key, 0), len(words) - place)
        for length in range(longest, 0, -1):
            span = words[place : place + length]
            rows = self._called(tuple(word.key for word in span))
            start, end = span[0].start, span[-1].end
            whole = any(text[start:end].casefold() == self._catalog[row].title.strip(" !?.").casefold() for row in rows)
            if not rows or _overlaps(start, end, found) or (_spans_sentences(span) and not whole):
                continue
            if self._confident(text, words, place, length, found, shouting):
                self._settle(text, (start, end), rows, found, notes)
                return length
        return 0

    def _misspelt(self, text: str, words: list[Word], found: list[Mention], notes: list[str]) -> None:
        """Add titles with typos."""
        taken = {place for place, word in enumerate(words) if _overlaps(word.start, word.end, found)}
        for first, last, name in self._typos.find([word.key for word in words], taken):
            self._settle(text, (words[first].start, words[last].end), self._called(name), found, notes)

    def _called(self, name: tuple[str, ...]) -> list[int]:
        """Return the rows that a name means; whole titles come before halves of titles, and those before heads."""
        ranks = self._names.get(name, {})
        return [row for row, rank in ranks.items() if rank == min(ranks.values())]

    def _confident(
        self, text: str, words: list[Word], place: int, length: int, found: list[Mention], shouting: bool
    ) -> bool:
        span = words[place : place + length]
        keys = [word.key for word in span]
        starts_sentence = place == 0 or bool(re.search(r"[.!?:;\n]", span[0].gap))
        capital = span[0].capital and not shouting and (not starts_sentence or (length > 1 and span[-1].capital))
        named = len([key for key in keys if key not in SMALL]) >= 2 or len(keys) > 3
        if not span[0].capital and _is_passive(words, place, length):
            return False
        if re.match(r"\s*\((?:18|19|20)\d\d\)", text[span[-1].end :]):
            return True
        if named and not self._lexicon.is_kind(keys):
            return capital or not (place and words[place - 1].key in INDEFINITE)
        if capital and (length > 1 or keys[0] not in {"i", "ok"}):
            return True
        is_value = self._lexicon.is_kind if span[0].capital else self._lexicon.is_word
        plain = is_value(keys) or (keys[0] in ARTICLES and is_value(keys[1:]))
        alone = length == len(words)
        opens = starts_sentence or "," in span[0].gap or words[place - 1].key in _OPENERS
        verdict = opens and not plain and is_verdict(text[span[-1].end :].lower())
        if plain or all(key in SMALL for key in keys):
            return (alone and span[0].capital and not plain) or (verdict and length > 1)
        ends = alone or place + length == len(words) or words[place + length].key in CLOSERS
        ends = ends or _has_punctuation(words[place + length].gap)
        before = text[max(0, span[0].start - _NEAR) : span[0].start].lower()
        tasted = _follows_opinion_or_title(words, place, found) or ends_with_opinion(before)
        return alone or verdict or (ends and (tasted or (span[0].capital and starts_sentence and not shouting)))

    def _settle(
        self, text: str, place: tuple[int, int], rows: list[int], found: list[Mention], notes: list[str]
    ) -> None:
        """Choose among items of the same name by a year that follows; if several remain, add a note and guess none."""
        start, end = place
        year = _YEAR_AFTER.match(text[end:])
        if year:
            asked = int(year[1] or year[2])
            dated = [row for row in rows if self._catalog[row].attributes.get("year") == asked]
            if dated:
                rows, end = dated, end + year.end()
        labels = list(dict.fromkeys(self._catalog.label(row) for row in rows))
        if len(labels) > 1:
            notes.append(
                f"Several {self._catalog.domain} fit \u201c{text[start:end]}\u201d: {', '.join(labels[:4])}. Which one?"
            )
            found.append(Mention(-1, start, end, tuple(rows)))
        else:
            found.append(Mention(rows[0], start, end))

    def _pieces(
        self, text: str, cue: re.Match[str], found: list[Mention], notes: list[str], lookup: PhraseLinker
    ) -> None:
        """Look up what follows a cue such as `I loved ...` piece by piece, where no title has been found yet."""
        rest = cue_phrases.ENDING.sub("", cue["rest"])
        start = cue.start("rest")
        cursor = 0
        for piece in cue_phrases.PIECES.split(rest):
            at = rest.index(piece, cursor) if piece else cursor
            cursor = at + len(piece)
            if piece and not _overlaps(start + at, start + cursor, found):
                self._look_up(text, (start + at, start + cursor), found, notes, lookup, insist=False)

    def _look_up(
        self,
        text: str,
        place: tuple[int, int],
        found: list[Mention],
        notes: list[str],
        lookup: PhraseLinker,
        insist: bool,
    ) -> None:
        phrase = cue_phrases.TRIM.sub("", text[place[0] : place[1]].strip()).strip(" '\"")
        words = split_words(phrase)
        keys = [word.key for word in words]
        if not keys or _overlaps(*place, found):
            return
        shouting = not insist and text.isupper()
        named = (
            not shouting and len(keys) > 1 and all(word.capital for word in words) and not self._lexicon.is_kind(keys)
        )
        if not insist and (len(keys) > 8 or sum(map(len, keys)) < 5 or (self._plain(keys) and not named)):
            return
        start = place[0] + text[place[0] : place[1]].index(phrase)
        known = lookup.find(phrase)
        proper = not shouting and sum(word.capital for word in words) * 2 > len(words) and words[0].capital
        if known.row >= 0 or insist or proper:
            found.append(Mention(known.row, start, start + len(phrase)))
            notes += [known.note] if known.note else []

    def _plain(self, keys: list[str]) -> bool:
        """True when every word is a small word or an attribute value: a description, not a title."""
        return self._lexicon.is_word(keys) or all(
            key in SMALL or key in FILLER or self._lexicon.is_word([key]) or self._lexicon.is_word([key.rstrip("s")])
            for key in keys
        )


def coordinated_groups(text: str, targets: Sequence[Mention]) -> list[list[Mention]]:
    """Group items joined by `and`, `or` or a comma; `targets` are in order of appearance in `text`."""
    found: list[list[Mention]] = []
    for target in targets:
        last = found[-1][-1] if found else None
        joined = last is not None and (
            (last.start, last.end) == (target.start, target.end) or _JOINED.fullmatch(text[last.end : target.start])
        )
        if joined:
            found[-1].append(target)
        else:
            found.append([target])
    return found


def _surface_forms(title: str) -> dict[tuple[str, ...], int]:
    """Return the forms of a title with their ranks; lower ranks take precedence.

    The whole title has rank 0, either half of `Il Postino (The Postman)` 2, and the head before a colon or dash 4. A
    form without its article ranks one higher.
    """
    parts = title_variants(title)
    head = re.split(r":|\s+-\s+", title, maxsplit=1)[0]
    called = [(title, 0), *((part, 2) for part in parts if part != title and len(title_key(part)) > 2)]
    if len(title_key(head).split()) > 1:
        called.append((head, 4))
    names: dict[tuple[str, ...], int] = {}
    for one, rank in called:
        keys = title_key(one).split()
        if keys:
            names.setdefault(tuple(keys), rank)
            # split like a sentence: there `Part II` keeps its `part`
            names.setdefault(tuple(word.key for word in split_words(one)), rank)
        if len(keys) > 1 and keys[0] in PLAIN_ARTICLES:
            names.setdefault(tuple(keys[1:]), rank + 1)  # `Fear` takes precedence over `The Fear`
    return names


def _follows_opinion_or_title(words: list[Word], place: int, found: list[Mention]) -> bool:
    """True after a word of taste (`liked the film Heat`) or another title (`Toy Story, Heat and ...`)."""
    before = place - 1
    while before >= 0 and words[before].key in ARTICLES:
        before -= 1
    if before < 0:
        return False
    if words[before].key in TASTE:
        return True
    gap_start = words[before].start if words[before].key in {"and", "or"} else words[before].end
    return any(gap_start - 4 <= mention.end <= words[place].start for mention in found)


def _is_passive(words: list[Word], place: int, length: int) -> bool:
    """True for a passive such as `I was blown away by`, which is not a title."""
    after = place + length
    return place > 0 and words[place - 1].key in _BEING and after < len(words) and words[after].key == "by"


def _spans_sentences(span: list[Word]) -> bool:
    """True when a sentence ends inside the span; the dot after an initial or `Dr.` does not end one."""
    return any(
        re.search(r"[.!?;]\s", word.gap) and not (word.gap[0] == "." and (len(last.key) == 1 or last.key in _SHORTENED))
        for last, word in pairwise(span)
    )


def _has_punctuation(gap: str) -> bool:
    return bool(re.search(r"[.,!?;:()]|\s[-\u2013\u2014]\s", gap))


def _mostly_capital(words: list[Word]) -> bool:
    """True when capitals carry no information: all capitals, or Every Word Capitalised."""
    return len(words) > 4 and sum(word.capital for word in words) > 0.8 * len(words)


def _overlaps(start: int, end: int, found: list[Mention]) -> bool:
    return any(start < one.end and one.start < end for one in found)
