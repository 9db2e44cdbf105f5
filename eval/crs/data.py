"""Conversational recommendation benchmarks in a common format: dialogues, and the questions taken from them.

A question is one film that the recommender names in a turn: the turns before it are given, and the film must be found.
A turn is everything one person says until the other speaks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from llmrec.data.catalog import Catalog
from llmrec.ranker import Mask, Rows

SEEKER, RECOMMENDER = "seeker", "recommender"


@dataclass(frozen=True)
class Turn:
    """Everything one person says until the other speaks.

    Attributes:
        speaker: `SEEKER` or `RECOMMENDER`.
        words: the text without the titles.
        text: the text with them.
        rows: the catalogue rows named, in order, each once.
        disliked: the named rows that the turn's own words speak against.
    """

    speaker: str
    words: str
    text: str
    rows: tuple[int, ...]
    disliked: tuple[int, ...] = ()


@dataclass(frozen=True)
class Dialogue:
    """One conversation.

    Attributes:
        id: the publisher's identifier.
        when: its position in time relative to the others; only the order counts.
        turns: in order, speakers alternating.
    """

    id: str
    when: int
    turns: tuple[Turn, ...]


@dataclass(frozen=True, eq=False)
class Corpus:
    """A published benchmark, as far as it is available.

    Attributes:
        name: for file names.
        catalog: every film that can be recommended.
        train: dialogues for training and for choosing settings.
        test: the official test part.
        available: description of which part of the published data this is.
    """

    name: str
    catalog: Catalog
    train: tuple[Dialogue, ...]
    test: tuple[Dialogue, ...]
    available: str


@dataclass(frozen=True, eq=False)
class CrsQuestions:
    """Questions as arrays, with one entry per question.

    Attributes:
        dialogues: the dialogues that they are taken from.
        dialogue: int64[q], index into `dialogues`.
        turn: int64[q], the turn whose film must be found; only earlier turns may be used.
        target: int64[q], the row that the recommender named.
        repeated: bool[q], whether the film had been named before that turn.
    """

    dialogues: tuple[Dialogue, ...]
    dialogue: Rows
    turn: Rows
    target: Rows
    repeated: Mask

    def __len__(self) -> int:
        return len(self.target)

    def where(self, mask: Mask) -> CrsQuestions:
        """Select the questions where bool[q] is true."""
        return CrsQuestions(
            self.dialogues, self.dialogue[mask], self.turn[mask], self.target[mask], self.repeated[mask]
        )

    def contexts(self) -> Iterator[tuple[Turn, ...]]:
        """The turns before each question."""
        for dialogue, turn in zip(self.dialogue, self.turn, strict=True):
            yield self.dialogues[dialogue].turns[:turn]

    def histories(self) -> list[Rows]:
        """The rows named before each question, ordered by their latest mention: int64[h] each."""
        return [named_rows(context) for context in self.contexts()]


def named_rows(context: Sequence[Turn]) -> Rows:
    """The rows named in these turns, ordered by their latest mention: int64[h]."""
    said = [row for turn in context for row in turn.rows]
    return np.array(list(dict.fromkeys(said[::-1]))[::-1], np.int64)


def tastes(context: Sequence[Turn]) -> tuple[Rows, Rows]:
    """The rows that indicate a taste, ordered by their latest mention, and those that the seeker spoke against."""
    against = {row for turn in context if turn.speaker == SEEKER for row in turn.disliked}
    named = named_rows(context)
    disliked = np.isin(named, list(against))
    return named[~disliked], named[disliked]


def merge_turns(parts: Sequence[Turn]) -> tuple[Turn, ...]:
    """Merge messages into turns: consecutive messages of one person become one turn."""
    out: list[Turn] = []
    for part in parts:
        if out and out[-1].speaker == part.speaker:
            last = out.pop()
            part = Turn(
                part.speaker,
                f"{last.words} {part.words}".strip(),
                f"{last.text} {part.text}".strip(),
                tuple(dict.fromkeys((*last.rows, *part.rows))),
                tuple(dict.fromkeys((*last.disliked, *part.disliked))),
            )
        out.append(part)
    return tuple(out)


def questions_of(dialogues: Sequence[Dialogue], speakers: Sequence[str] = (RECOMMENDER,)) -> CrsQuestions:
    """Extract the questions from dialogues: every film that one of `speakers` names in a turn."""
    found: list[tuple[int, int, int, bool]] = []
    for number, dialogue in enumerate(dialogues):
        named: set[int] = set()
        for place, turn in enumerate(dialogue.turns):
            if turn.speaker in speakers:
                found += [(number, place, row, row in named) for row in turn.rows]
            named.update(turn.rows)
    table = np.array(found, np.int64).reshape(-1, 4)
    return CrsQuestions(tuple(dialogues), table[:, 0], table[:, 1], table[:, 2], table[:, 3].astype(np.bool_))


def split_latest(dialogues: Sequence[Dialogue], share: float) -> tuple[tuple[Dialogue, ...], tuple[Dialogue, ...]]:
    """Split off the latest share of the dialogues as (earlier, later), just as the test part follows the train part."""
    order = sorted(dialogues, key=lambda one: (one.when, one.id))
    cut = len(order) - round(len(order) * share)
    return tuple(order[:cut]), tuple(order[cut:])


def allowed_items(cases: CrsQuestions, n_items: int, named_too: bool) -> Mask:
    """bool[q, n]: the allowed answers; without `named_too`, films named before are excluded."""
    mask = np.ones((len(cases), n_items), np.bool_)
    if not named_too:
        for line, rows in zip(mask, cases.histories(), strict=True):
            line[rows] = False
    return mask
