"""Variants of a request: other phrasings and synonyms, typos, punctuation and asides.

None of these phrasings is a training template (a test compares them with `prompts/`). They imitate how people type, not
what the parser understands.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from llmrec.data.catalog import Catalog
from llmrec.nlu.wording import before_noun, domain_verbs, lower_in_sentence, singular, with_article

# Slots: {thing} {a_thing} {things} the catalogue's noun, {verb} what one does with it, {wish} attributes,
# {titles} a list.
PHRASINGS: Mapping[str, tuple[str, ...]] = {
    "next": (
        "What should I {verb} next?",
        "Recommend me {a_thing}.",
        "Any suggestions for my next {thing}?",
        "I need something to {verb} tonight.",
        "Pick some {things} for me based on what I know already.",
        "Which {things} would suit my taste?",
        "Could you find me something I'd enjoy?",
        "I've run out of ideas. Help me choose {a_thing}.",
        "Surprise me with something good.",
        "Got any tips on what to {verb}?",
        "Show me {things} that match my profile.",
        "Please put together a list of {things} I might love.",
        "Given my history, what comes next?",
    ),
    "candidates": (
        "Which of these should I {verb} first?",
        "Rank these {things} for me.",
        "Put these {things} in the order I would like them.",
        "Order these from best to worst for me.",
        "Which of these {things} suits me best?",
        "Sort these by how much I would enjoy them.",
        "Out of these {things}, what is my best bet?",
        "Help me choose between these {things}.",
        "From this selection, what would I like most?",
        "I can only {verb} one of these. What do you advise?",
        "What would you pick for me here?",
        "Tell me what fits my taste among these {things}.",
        "Compare these {things} and give me a ranking.",
    ),
    "attributes": (
        "{wish}",
        "I am after {wish}.",
        "Do you have any {wish}?",
        "Find {wish} for me, please.",
        "I want to {verb} {wish}.",
        "Can you point me to {wish}?",
        "Tonight it should be {wish}.",
        "What {wish} are there?",
        "My friends and I would enjoy {wish}.",
        "Let's go with {wish}.",
        "I could do with {wish}.",
        "Are there {wish} you would recommend?",
        "List {wish} that I might like.",
    ),
    "named": (
        "I really liked {titles}. What now?",
        "I am a fan of {titles}. Recommend something similar.",
        "{titles} are my favourites. What else would I like?",
        "I loved {titles}. Any suggestions?",
        "Give me {things} like {titles}.",
        "Since I enjoyed {titles}, which {things} would suit me?",
        "My taste: {titles}. Your turn.",
        "If I tell you that I adored {titles}, what do you recommend?",
        "{titles} were great. Find me others of that kind, please.",
        "Things I love include {titles}. What comes close?",
        "Based on {titles}, what do you suggest?",
        "Find me something for a person who likes {titles}.",
        "I keep coming back to {titles}. Anything in the same vein?",
    ),
}

ASIDES = (
    "By the way, my neighbour has painted his fence green.",
    "My cat is asleep on the keyboard.",
    "The train was late again this morning.",
    "I had soup for lunch.",
    "My phone battery is almost empty.",
    "Somebody left an umbrella in the hallway.",
    "We moved the sofa to the other side of the room.",
    "The printer has run out of paper.",
)

# Common words for the value of an attribute: a plural noun of its own, and a synonym.
NOUNS: Mapping[str, str] = {
    "comedy": "comedies",
    "drama": "dramas",
    "thriller": "thrillers",
    "western": "westerns",
    "musical": "musicals",
    "documentary": "documentaries",
}
OTHERS: Mapping[str, str] = {
    "action": "action-packed {things}",
    "adventure": "adventurous {things}",
    "animation": "animated {things}",
    "children's": "{things} for kids",
    "comedy": "funny {things}",
    "crime": "gangster {things}",
    "documentary": "documentary {things}",
    "drama": "dramatic {things}",
    "fantasy": "magical {things}",
    "film-noir": "noir {things}",
    "horror": "scary {things}",
    "musical": "musical {things}",
    "mystery": "whodunits",
    "romance": "love stories",
    "sci-fi": "science fiction {things}",
    "thriller": "suspenseful {things}",
    "war": "military {things}",
    "western": "cowboy {things}",
}
_DECADES = ["twenties", "thirties", "forties", "fifties", "sixties", "seventies", "eighties", "nineties"]
# Only pairs that are interchangeable in every phrasing above.
_SAME: Mapping[str, str] = {
    "film": "movie", "films": "movies", "watch": "see", "recommend": "suggest", "suggest": "recommend",
    "suggestions": "ideas", "tips": "hints", "enjoy": "like", "enjoyed": "liked", "liked": "enjoyed",
    "loved": "adored", "adored": "loved", "would like": "would enjoy", "would I like": "would I enjoy",
    "might like": "might enjoy", "choose": "select", "pick": "select", "find": "get", "show": "give",
    "tonight": "this evening", "great": "terrific", "want": "wish", "please": "kindly", "rank": "sort",
    "favourites": "favorites", "a fan of": "fond of", "include": "are",
}  # fmt: skip
_SAID = re.compile(r"\b(?:" + "|".join(sorted(_SAME, key=len, reverse=True)) + r")\b", re.IGNORECASE)
_NEAR: Mapping[str, str] = {
    "a": "sq", "b": "vn", "c": "xv", "d": "sf", "e": "wr", "f": "dg", "g": "fh", "h": "gj", "i": "uo", "j": "hk",
    "k": "jl", "l": "k", "m": "n", "n": "bm", "o": "ip", "p": "o", "q": "wa", "r": "et", "s": "ad", "t": "ry",
    "u": "yi", "v": "cb", "w": "qe", "x": "zc", "y": "tu", "z": "x",
}  # fmt: skip
_LONG_WORD = re.compile(r"[A-Za-z]{4,}")
_WORDS_A_SLIP = 8


@dataclass(frozen=True)
class Nouns:
    """The words for the catalogue's things: `film`, `films`, and what one does with them."""

    thing: str
    things: str
    verb: str

    @staticmethod
    def of(catalog: Catalog) -> Nouns:
        """Return the words for the catalogue's domain."""
        domain = catalog.domain
        return Nouns(singular(domain), domain, domain_verbs(domain).do)

    @property
    def other(self) -> Nouns:
        """The same with synonyms, if there are any."""
        return Nouns(*(_SAME.get(word, word) for word in (self.thing, self.things, self.verb)))

    def fill(self, phrase: str, **slots: str) -> str:
        """Fill the slots of a phrasing and capitalise its beginning."""
        nouns = {"thing": self.thing, "a_thing": with_article(self.thing), "things": self.things}
        text = phrase.format(**nouns, verb=self.verb, **slots)
        return text[:1].upper() + text[1:]

    def of_value(self, value: str, other: bool = False) -> str:
        """Name the things with a value: `comedies`, `horror films`; with `other`, a synonym: `scary films`."""
        key = value.casefold()
        if other and key in OTHERS:
            return OTHERS[key].format(things=self.things)
        return NOUNS.get(key) or " ".join([*before_noun([lower_in_sentence(value)], self.things), self.things])


def decade(start: int, other: bool = False) -> str:
    """`the 1990s`, or with `other` `the nineties` (from the twenties on)."""
    place = (start - 1920) // 10
    return f"the {_DECADES[place]}" if other and 0 <= place < len(_DECADES) else f"the {start}s"


def typos(text: str, rng: np.random.Generator) -> str:
    """Insert one typing error per eight words, at least one: a letter omitted, doubled, swapped, or a nearby key.

    First letters and words of less than four letters are kept, as in most real typing errors.
    """
    words = list(_LONG_WORD.finditer(text))
    if not words:
        return text
    count = min(len(words), max(1, round(len(text.split()) / _WORDS_A_SLIP)))
    for place in sorted(rng.choice(len(words), count, replace=False), reverse=True):
        start, end = words[place].span()
        text = text[:start] + _slip(text[start:end], rng) + text[end:]
    return text


def _slip(word: str, rng: np.random.Generator) -> str:
    at = int(rng.integers(1, len(word) - 1))
    kind = rng.choice(["swap", "drop", "double", "beside"])
    if kind == "swap" and word[at] != word[at + 1]:
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    if kind == "double":
        return word[: at + 1] + word[at:]
    if kind == "beside":
        near = _NEAR[word[at].lower()]
        return word[:at] + near[int(rng.integers(len(near)))] + word[at + 1 :]
    return word[:at] + word[at + 1 :]


def synonyms(phrase: str) -> str:
    """Replace every word that has a synonym; slots of a phrasing are kept.

    >>> synonyms("Recommend me a {thing}, please.")
    'Suggest me a {thing}, kindly.'
    """

    def other(match: re.Match[str]) -> str:
        said = match.group()
        found = _SAME.get(said) or _SAME[said.lower()]
        return found[:1].upper() + found[1:] if said[0].isupper() and said[0] != "I" else found

    return _SAID.sub(other, phrase)


def bare(text: str) -> str:
    """Remove punctuation at the ends of sentences."""
    return re.sub(r"[.?!]+(?=\s|$)", "", text)


def emphatic(text: str) -> str:
    """Triple the punctuation marks at the ends of sentences, and prepend an ellipsis."""
    return "... " + (re.sub(r"([.?!])(?=\s|$)", r"\1\1\1", text) if re.search(r"[.?!]$", text) else f"{text}!!!")


def with_aside(text: str, aside: str, before: bool) -> str:
    """Add an unrelated sentence before or after the request."""
    ended = text if text.endswith((".", "?", "!")) else f"{text}."
    return f"{aside} {text}" if before else f"{ended} {aside}"
