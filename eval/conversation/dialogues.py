"""Writes whole dialogues from a seed: which acts may open a dialogue, and which may follow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from llmrec.data.catalog import Catalog
from llmrec.data.interactions import Split
from llmrec.eval.conversation import acts
from llmrec.eval.conversation.acts import Act
from llmrec.eval.conversation.user_state import Step, UserState
from llmrec.eval.conversation.writer import Dialogue, DialogueWorld, DialogueWriter

KNOWN_EVERY = 4  # one dialogue in this many is with a user of the log
TURNS = (2, 6)
TWINS = 0.07  # share of dialogues that open with a title shared by two items

OPENINGS: Mapping[str, tuple[Act, float]] = {
    "empty": (acts.empty, 1.5), "like": (acts.like, 2.0), "want": (acts.want, 4.0), "like_but": (acts.like_but, 2.0),
    "dislike": (acts.dislike, 1.0), "unknown": (acts.unknown, 0.5),
}  # fmt: skip
LATER: Mapping[str, Act] = {
    "want": acts.want, "exclude": acts.exclude, "add": acts.add, "more": acts.add, "less": acts.exclude,
    "when": acts.when, "newer": acts.side, "older": acts.side, "switch": acts.switch,
    "switch_years": acts.switch_years, "any_years": acts.any_years, "no_longer": acts.no_longer, "allow": acts.allow,
    "any": acts.any_, "else": acts.else_, "count": acts.count, "like_place": acts.pointing("like"),
    "dislike_place": acts.pointing("dislike"), "seen_place": acts.pointing("seen"),
    "about_place": acts.pointing("about", "words"), "why_place": acts.pointing("why", "words"), "why": acts.why,
    "like_title": acts.like, "dislike": acts.dislike, "turn_liked": acts.turn_liked, "like_but": acts.like_but,
    "aside": acts.aside, "unknown": acts.unknown, "undo": acts.undo,
}  # fmt: skip
SPARE = {"exclude": 3.0, "add": 2.0, "when": 2.0, "else": 3.0, "like_place": 2.0, "dislike_place": 2.0}


def _twins(w: DialogueWriter) -> bool:
    """Add two steps: a title that two items share, which the chat must ask about, and the answer to that question."""
    if not w.world.twins:
        return False
    a, b = w.world.twins[int(w.rng.integers(len(w.world.twins)))]
    title = w.world.catalog[a].title
    w.took(w.say("name_twice", Step("name_twice", "", answer="question", named=title), title=title))
    row = int(w.rng.choice([a, b]))
    year, other = w.world.year(row) or 0, w.world.year(b if row == a else a) or 0
    age = ("newer" if w.chance(0.5) else "more recent") if year > other else "older"
    w.took(w.say("which", Step("which", "", opinion="like", rows=(row,)), year=str(year), age=age))
    return True


def _open(w: DialogueWriter) -> None:
    weights = np.array([weight for _, weight in OPENINGS.values()])
    while not w.steps:
        if w.chance(TWINS) and _twins(w):
            return
        act = str(w.rng.choice(list(OPENINGS), p=weights / weights.sum()))
        step = OPENINGS[act][0](w, act)
        if step is not None:
            w.took(step)


def write_dialogue(
    world: DialogueWorld, number: int, user: int, history: tuple[int, ...], seed: int, aside: bool
) -> Dialogue:
    """Write one dialogue: an opening, then steps drawn from those that are possible."""
    rng = np.random.default_rng([seed, number])
    value = str(rng.choice(list(world.having)))
    pool = [row for row in world.having[value] if row not in history] or list(range(len(world.catalog)))
    w = DialogueWriter(world, rng, int(rng.choice(pool)), UserState(history=history), aside)
    turns = int(rng.integers(TURNS[0], TURNS[1] + 1))
    _open(w)
    names = list(LATER)
    weights = np.array([SPARE.get(name, 1.0) for name in names])
    for _ in range(40 * turns):
        if len(w.steps) >= turns:
            break
        act = str(rng.choice(names, p=weights / weights.sum()))
        goal = w.goal
        step = None if w.steps[-1].answer == "question" and act == "undo" else LATER[act](w, act)
        if step is None or step.act == w.steps[-1].act:
            w.goal = goal
            continue
        if act == "undo":
            w.steps.append(step)
            w.state = _replayed(w)
        else:
            w.took(step)
    return Dialogue(number, user, history, tuple(w.steps))


def _replayed(w: DialogueWriter) -> UserState:
    """Recompute the state without the exchanges that were undone."""
    state = UserState(history=w.state.history)
    kept: list[Step] = []
    for step in w.steps:
        kept = kept[:-1] if step.act == "undo" else [*kept, step]
    for step in kept:
        state = state.after(replace(step, places=(), fresh=False), w.world.catalog)
    return state


def write_dialogues(catalog: Catalog, split: Split, count: int, seed: int, aside: bool = False) -> list[Dialogue]:
    """Write the suite's dialogues, or those in held-out wordings.

    A smaller `count` gives the first dialogues of a larger one.
    """
    world = DialogueWorld.of(catalog)
    rng = np.random.default_rng([seed, 1])
    users = rng.permutation(len(split.train.users))
    found = []
    for number in range(count):
        known = number % KNOWN_EVERY == KNOWN_EVERY - 1
        user = int(users[number % len(users)]) if known else -1
        history = tuple(int(r) for r in split.history(user, "test")) if known else ()
        found.append(write_dialogue(world, number, user, history, seed, aside))
    return found
