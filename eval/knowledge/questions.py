"""Questions about items on display, in held-out wordings, and the suite's own judgement of the answers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from llmrec.data.catalog import Catalog, Item
from llmrec.data.requests import Recommendation
from llmrec.dialogue.chat import Chat, Items, Token
from llmrec.eval.knowledge.wordings import wordings
from llmrec.nlu.state import Profile, Session

Outcome = Literal["right", "honest", "missed", "wrong"]
_WORDINGS = "knowledge-questions"
COUNT = 200
SHOWN = 5
UNKNOWN = "unknown"  # questions that no catalogue answers
_PLACES = ("first", "second", "third", "fourth", "fifth")
_NOT_KNOWN = re.compile(r"does not (?:give|say)|says nothing|do not know|don't know", re.IGNORECASE)
# What an answer about a level says, the most specific first; the suite's own words for the levels of the scale.
_LEVELS: Sequence[tuple[int, str]] = (
    (0, r"\bno (?:violence|sex)|\bnot (?:violent|frightening|scary)|without (?:violence|sex)"),
    (1, r"\bmild|\blittle"),
    (3, r"very (?:strong|violent|frightening|scary)"),
    (2, r"\bstrong|\bviolent|\bfrightening|\bscary"),
)
_LEVEL_FIELDS = ("violence", "fright", "sex")


@dataclass(frozen=True)
class Question:
    """A question about one item of a list.

    Attributes:
        field: what is asked for, or `unknown`.
        text: as typed.
        shown: rows of the list on display.
        row: the item that the question is about.
        focus: the row that the conversation was about before, or -1.
    """

    field: str
    text: str
    shown: tuple[int, ...]
    row: int
    focus: int


def draw_questions(catalog: Catalog, weight: np.ndarray, count: int, seed: int) -> list[Question]:
    """Draw questions evenly over the fields of the catalogue.

    Args:
        catalog: the catalogue that the questions are about.
        weight: float[n], sampling weights of the items, such as their popularity.
        count: number of questions.
        seed: random seed for all draws.
    """
    rng = np.random.default_rng(seed)
    own = {*catalog.attribute_names, UNKNOWN, "premise"}
    fields = [field for field in wordings(_WORDINGS) if field in own]
    drawn = []
    for place in range(count):
        field = fields[place % len(fields)]
        shown = tuple(int(row) for row in rng.choice(len(catalog), SHOWN, replace=False, p=weight / weight.sum()))
        spot = int(rng.integers(SHOWN))
        wording = str(rng.choice(list(wordings(_WORDINGS)[field])))
        named, focus = _named(catalog, shown, spot, rng)
        drawn.append(Question(field, wording.replace("{item}", named), shown, shown[spot], focus))
    return drawn


def _named(catalog: Catalog, shown: tuple[int, ...], spot: int, rng: np.random.Generator) -> tuple[str, int]:
    """Return how the question refers to the item, and the row that the conversation was about before."""
    forms = (f"number {spot + 1}", f"the {_PLACES[spot]} one", catalog[shown[spot]].title, "it", "that one")
    kind = int(rng.integers(len(forms)))
    return forms[kind], shown[spot] if kind > 2 else -1


def ask_question(chat: Chat, question: Question) -> tuple[str, bool]:
    """Ask the question below the list; returns the answer, and whether a new list came."""
    session = Session("measured")
    shown = tuple(Recommendation(row, 0.0, "llm", "") for row in question.shown)
    session.profile = replace(Profile(liked=()), shown=shown, focus=question.focus, asked=True, wish="films")
    said, listed = [], False
    for event in chat.turn(session, question.text):
        if isinstance(event, Token):
            said.append(event.text)
        listed = listed or isinstance(event, Items)
    return "".join(said), listed


def judge_answer(catalog: Catalog, question: Question, answer: str, listed: bool) -> Outcome:
    """Judge an answer: right, honestly unknown, missed (other answer, or a list), or wrong (other item, or untrue)."""
    item = catalog[question.row]
    others = [row for row in question.shown if row != question.row and catalog.label(row) in answer]
    if listed:
        return "missed"
    if others and catalog.label(question.row) not in answer:
        return "wrong"
    unsure = _NOT_KNOWN.search(answer) is not None
    value = item.text if question.field == "premise" else item.attributes.get(question.field)
    if question.field == UNKNOWN or value is None or value == "":
        return "honest" if unsure else "missed"
    if _holds(item, question.field, answer):
        return "right"
    return "missed" if unsure or not _states(catalog, question.field, answer) else "wrong"


def _holds(item: Item, field: str, answer: str) -> bool:
    """True when the answer gives the item's own value."""
    value = item.text if field == "premise" else item.attributes[field]
    if field in _LEVEL_FIELDS:
        return _level(answer) == value
    values = value if isinstance(value, tuple) else (str(value),)
    return str(values[0]).casefold() in answer.casefold()


def _states(catalog: Catalog, field: str, answer: str) -> bool:
    """True when the answer gives any value of the field, and so can be false."""
    if field in _LEVEL_FIELDS:
        return _level(answer) is not None
    if field in catalog.attribute_names:
        return any(value.casefold() in answer.casefold() for value in catalog.values(field) if len(value) > 3)
    return False


def _level(answer: str) -> int | None:
    """The level that an answer states, or None."""
    return next((level for level, form in _LEVELS if re.search(form, answer, re.IGNORECASE)), None)
