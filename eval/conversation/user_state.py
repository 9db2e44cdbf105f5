"""State of the simulated user: what holds at each turn, by rules independent of the product's parser.

A step says what it means when it is written: which constraints it adds or lifts, which items it gives an opinion on.
The state that follows is what the answer is judged against.
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
    """One thing said, and what it means.

    Attributes:
        act: which kind of step, a key of `conversation_words.WORDINGS` or `undo`.
        text: as typed; empty for `undo`, which is a button.
        wording: place of the wording in its act.
        add: constraints that hold from now on.
        lift: those that hold no longer, of what was said before.
        opinion: `like`, `dislike` or `seen` of `rows` and `places`, `about` or `why` for a question on them.
        rows: items named by title.
        places: positions on the list on display, from 1; -1 is the last.
        side: `newer` or `older` than the item named or pointed at, which becomes a constraint.
        count: length of the list asked for, 0 when nothing is said.
        fresh: whether nothing on display may come again.
        answer: what must come: a `list`, a `question`, `words` that leave the list, or `unknown` for a title that does
            not exist.
        named: the title that does not exist, or that two items have.
        slipped: whether a title in it was misspelt.
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
    """What holds after some steps; rows are of the catalogue."""

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
        """bool[n]: those of them that may still be shown."""
        mask = self.fitting(catalog)
        mask[list(self.hidden)] = False
        return mask

    def pointed(self, places: Sequence[int]) -> tuple[int, ...]:
        """The rows at positions on the list on display."""
        return tuple(self.shown[place - 1 if place > 0 else place] for place in places)

    def after(self, step: Step, catalog: Catalog) -> UserState:
        """The state once a step was said; what it points at is on the list on display."""
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
    """Made after the newest of the items, or before the oldest."""
    years = [float(year) for row in rows if isinstance(year := catalog[row].attributes.get("year"), int | float)]
    if side == "newer":
        return Constraint("year", "year", low=max(years) + 1)
    return Constraint("year", "year", high=min(years) - 1)
