"""State of the simulated user: what holds at each turn, by rules independent of the product's parser.

A step records its meaning when it is written: which constraints it adds or lifts, and which items it gives an opinion
on. The answer is judged against the resulting state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from llmrec.data.catalog import Catalog
from llmrec.eval.grounding.requests import Constraint
from llmrec.ranker import Mask

OPINIONS = ("like", "dislike", "seen")


@dataclass(frozen=True)
class Step:
    """One message of the visitor and its meaning.

    Attributes:
        act: kind of step, a key of `conversation_words.WORDINGS` or `undo`.
        text: as typed; empty for `undo`, which is a button.
        wording: index of the wording in its act.
        add: constraints that hold from now on.
        lift: earlier constraints that no longer hold.
        opinion: `like`, `dislike` or `seen` for `rows` and `places`; `about` or `why` for a question about them.
        rows: items named by title.
        places: positions on the displayed list, from 1; -1 is the last.
        side: `newer` or `older` than the item named or referred to, which becomes a constraint.
        count: requested list length, 0 when none is given.
        fresh: whether all items on display must be replaced by others.
        answer: the expected answer: a `list`, a `question`, `words` without a new list, or `unknown` for a title that
            does not exist.
        named: the title that does not exist, or that two items share.
        slipped: whether a title in the message was misspelt.
    """

    act: str
    text: str
    wording: int = 0
    add: tuple[Constraint, ...] = ()
    lift: tuple[Constraint, ...] = ()
    opinion: str = ""
    rows: tuple[int, ...] = ()
    places: tuple[int, ...] = ()
    side: str = ""
    count: int = 0
    fresh: bool = False
    answer: str = "list"
    named: str = ""
    slipped: bool = False


@dataclass(frozen=True)
class UserState:
    """What holds after some steps; rows refer to the catalogue."""

    constraints: tuple[Constraint, ...] = ()
    history: tuple[int, ...] = ()
    liked: tuple[int, ...] = ()
    disliked: tuple[int, ...] = ()
    seen: tuple[int, ...] = ()
    passed: tuple[int, ...] = ()
    shown: tuple[int, ...] = ()
    count: int = 10

    @property
    def opinions(self) -> dict[str, tuple[int, ...]]:
        """The rows of each opinion."""
        return {"like": self.liked, "dislike": self.disliked, "seen": self.seen}

    @property
    def hidden(self) -> frozenset[int]:
        """Rows that must not be shown."""
        return frozenset((*self.history, *self.liked, *self.disliked, *self.seen, *self.passed))

    def fitting(self, catalog: Catalog) -> Mask:
        """bool[n]: the items that satisfy every constraint."""
        return np.array([all(one.holds(item) for one in self.constraints) for item in catalog.items], np.bool_)

    def available(self, catalog: Catalog) -> Mask:
        """bool[n]: the fitting items that may still be shown."""
        mask = self.fitting(catalog)
        mask[list(self.hidden)] = False
        return mask

    def pointed(self, places: Sequence[int]) -> tuple[int, ...]:
        """The rows at positions on the displayed list."""
        return tuple(self.shown[place - 1 if place > 0 else place] for place in places)

    def after(self, step: Step, catalog: Catalog) -> UserState:
        """Return the state after a step; its positions refer to the displayed list."""
        rows = (*step.rows, *self.pointed(step.places))
        state = self
        if step.opinion in OPINIONS:
            held = {name: tuple(row for row in own if row not in rows) for name, own in self.opinions.items()}
            held[step.opinion] = (*held[step.opinion], *rows)
            state = replace(self, liked=held["like"], disliked=held["dislike"], seen=held["seen"])
        constraints = tuple(one for one in state.constraints if one not in step.lift)
        if step.side and rows:
            constraints = (*constraints, _beyond(catalog, rows, step.side))
        return replace(
            state,
            constraints=(*constraints, *step.add),
            passed=tuple(dict.fromkeys((*state.passed, *(self.shown if step.fresh else ())))),
            count=step.count or state.count,
        )


def _beyond(catalog: Catalog, rows: Sequence[int], side: str) -> Constraint:
    """A constraint to years after the newest of the items, or before the oldest."""
    years = [float(year) for row in rows if isinstance(year := catalog[row].attributes.get("year"), int | float)]
    if side == "newer":
        return Constraint("year", "year", low=max(years) + 1)
    return Constraint("year", "year", high=min(years) - 1)
