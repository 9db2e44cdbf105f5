"""Parses questions about items: `who directed it?` asks for `director`, `is it scary?` for `fright`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import yaml

from llmrec.data.catalog import Catalog
from llmrec.data.filters import Filters

PREMISE = "premise"  # the item's text, which is not an attribute

# How a question begins, after words of courtesy; or it ends with a question mark.
_INTERROGATIVE = re.compile(
    r"^(?:(?:and|so|but|ok|okay|hmm|well|oh|hey|hi|please|cool|great|nice|thanks|sorry|wait|yo|just)\b[,!. ]*)*"
    r"(?:who\w*|what\w*|where\w*|when\w*|how|in which|in what|for which|from which|is|isn't|are|was|does|did"
    r"|do you know|can|could|should|would|which|whose|has|any|tell me|give me the|any idea|i wonder|wonder(?:ing)?"
    r"|i'd like to know|i would like to know|curious)\b|\?\s*(?:[a-z]{1,5}\s*)?$"
)
_PRONOUN = re.compile(r"\b(?:it|its|it's|this|that|that's|this one|that one|they|he|she|one)\b")
# A request for advice, whatever else it names: `based on Heat and Fargo, what do you suggest?`
_ADVICE = re.compile(r"\b(?:what|which|anything)\b.{0,30}\b(?:suggest|recommend|advise|propose)\b")
# Wishes in the form of questions: `is there something that ...`, `can you find it for me`
_WISH = re.compile(
    r"\b(?:something|anything|films|movies|books|games|others|another|recommend|suggest|show me|find me|looking for"
    r"|in the mood|i want|i need|i'd like (?:to (?:see|watch)|a|some)|any good|give me (?:a|some|another))\b"
)
# Field -> fields that are not meant when it is asked for: `which book does it come from` does not ask for the country.
_YIELDING = {"source": ("country",), "place": ("series",), "period": ("year",), "audience": ("genre",)}
# Fields that may be asked for without the form of a question: `Heat, how many hours`, `main cast of Heat pls`
_PLAINLY_ASKED = frozenset(["premise", "director", "actor", "minutes", "year", "language"])
_BRIEFEST = 7  # a message of at most this many words may be a question without its form: `release year of it`
# A wish for other items with the same people: `is there another with her?`, `more by the same director`
_SAME = re.compile(
    r"\b(?:another|others?|more|something|anything|else|films?|movies?|books?)\b[\w ]{0,24}?\b(?P<how>with|by|from|of"
    r"|starring|directed by) (?:(?P<who>her|him|them)\b|(?:the )?same (?P<role>director|actors?|actress(?:es)?|people"
    r"|cast|author|artist|star|guy|woman|man))"
)
_ROLES = {"director": ("director",), "author": ("author",), "artist": ("artist",)}


@dataclass(frozen=True)
class ItemQuestion:
    """What is asked about items.

    Attributes:
        fields: attributes of the catalogue, and `premise` for the item's text.
        missing: names of the fields asked for that this catalogue does not have.
        unknown: phrases for what is asked for but held by no catalogue of items.
    """

    fields: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.fields or self.missing or self.unknown)


@cache
def _patterns() -> tuple[Mapping[str, re.Pattern[str]], Mapping[str, re.Pattern[str]]]:
    raw = yaml.safe_load((files("llmrec.nlu") / "item_questions.yaml").read_text("utf-8"))
    return tuple(  # type: ignore[return-value]
        {name: re.compile("|".join(forms)) for name, forms in raw[part].items()} for part in ("fields", "unknown")
    )


def item_question(text: str, catalog: Catalog) -> ItemQuestion:
    """Parse what a text asks for; the result is empty when no field is named.

    Args:
        text: lower case, with straight apostrophes.
        catalog: its own attributes are also understood by their names (`what is the price of it?`).
    """
    fields, unknown = _patterns()
    text = text.replace("-", " ")
    own = catalog.attribute_names
    asked = [name for name, pattern in fields.items() if pattern.search(text)]
    others = [name for name in own if name not in fields]
    asked += [name for name in others if re.search(rf"\b{re.escape(name.replace('_', ' '))}s?\b", text)]
    asked = [name for name in asked if name not in _YIELDING.get(next((o for o in asked if o in _YIELDING), ""), ())]
    there = [name for name in asked if name in own or (name == PREMISE and catalog.has_text)]
    outside = tuple(what for what, pattern in unknown.items() if pattern.search(text) and not there)
    missing = tuple(name for name in asked if name not in there and name != PREMISE)
    # missing fields are reported only if none of the fields asked for exists
    return ItemQuestion(tuple(there), () if there or outside else missing, outside)


def is_interrogative(text: str) -> bool:
    """True for a message (lower case, straight apostrophes) that has the form of a question."""
    return _INTERROGATIVE.search(text) is not None


def asks_about_title(text: str, question: ItemQuestion) -> bool:
    """True when a message that names a title asks about it rather than likes it.

    `text` is in lower case, with the title blanked out.
    """
    if is_interrogative(text):
        return bool(question) and _ADVICE.search(text) is None
    return bool(_PLAINLY_ASKED & {*question.fields, *question.missing}) and _WISH.search(text) is None


def asks_about_shown(text: str) -> bool:
    """True for a question (lower case, straight apostrophes) about an item that a pronoun stands for."""
    formed = is_interrogative(text) or len(text.split()) <= _BRIEFEST
    return formed and _PRONOUN.search(text) is not None and _WISH.search(text) is None


def people_like(text: str, catalog: Catalog, focus: int) -> tuple[Filters, tuple[tuple[int, int], ...]]:
    """Parse a wish for other items with the same people as the item in focus.

    Args:
        text: lower case, with straight apostrophes.
        catalog: the catalogue whose attributes name the people.
        focus: the row talked about last, or -1.

    Returns:
        The filters, and the character spans that were parsed; empty when there is no such wish or no such person.
    """
    match = _SAME.search(text) if focus >= 0 else None
    if match is None:
        return Filters(), ()
    behind = "director" if match["how"] in ("by", "directed by") else "actor"
    names = _ROLES.get(match["role"] or "", (behind,) if match["role"] is None else ("actor",))
    fields = catalog[focus].attributes
    for name in (*names, "author", "artist", "director"):
        people = fields.get(name)
        if isinstance(people, tuple):
            return Filters(any_of={name: people[:2]}), (match.span(),)
    return Filters(), ()
