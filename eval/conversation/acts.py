"""Dialogue acts of the simulated user: each returns a step that is possible now (or None) together with its meaning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from llmrec.eval.conversation.phrasings import LATER_FILMS
from llmrec.eval.conversation.user_state import Step
from llmrec.eval.conversation.writer import DialogueWriter, list_positions, year_range
from llmrec.eval.grounding.requests import Constraint

KNOWN_EVERY = 4  # one dialogue in this many is with a user of the log
TURNS = (2, 6)
PLACED = 5  # list positions that a visitor refers to
Act = Callable[[DialogueWriter, str], Step | None]


def _titles(w: DialogueWriter, rows: Sequence[int]) -> tuple[str, bool]:
    typed = [w.title(row) for row in rows]
    names = [name for name, _ in typed]
    link = f", {names[-2]} and {names[-1]}" if len(names) > 2 else " and ".join(names[-2:])
    return (f"{', '.join(names[:-2])}{link}" if len(names) > 2 else link), any(slip for _, slip in typed)


def _others(w: DialogueWriter, count: int) -> list[int]:
    """Rows that may be named: neither the goal nor an item named before."""
    gone = {w.goal, *w.state.hidden}
    return [int(r) for r in w.rng.permutation(w.world.titled)[: 20 * count] if int(r) not in gone][:count]


def empty(w: DialogueWriter, act: str) -> Step | None:
    """A request without content; only while no preferences are known."""
    known = w.state.history or w.state.liked or w.state.constraints
    return None if known else w.say(act, Step(act, "", answer="question"))


def like(w: DialogueWriter, act: str) -> Step | None:
    """One to three titles that the visitor likes."""
    rows = _others(w, 1 if act == "like_title" else 1 + int(w.rng.integers(3)))
    titles, slipped = _titles(w, rows)
    one, nouns = len(rows) == 1, w.world.nouns
    slots = {"title" if act == "like_title" else "titles": titles, "are": "is" if one else "are"}
    slots |= {"it": "it", "those": "it"} if one else {"it": "them", "those": "those"}
    slots["things_are"] = f"{nouns.thing} is" if one else f"{nouns.things} are"
    return w.say(act, Step(act, "", opinion="like", rows=tuple(rows), slipped=slipped), **slots)


def dislike(w: DialogueWriter, act: str) -> Step | None:
    """A title that the visitor dislikes."""
    rows = _others(w, 1)
    title, slipped = w.title(rows[0])
    return w.say(act, Step(act, "", opinion="dislike", rows=tuple(rows), slipped=slipped), title=title)


def turn_liked(w: DialogueWriter, act: str) -> Step | None:
    """A title that was disliked before and is liked now."""
    if not w.state.disliked:
        return None
    row = w.state.disliked[-1]
    title, slipped = w.title(row)
    return w.say(act, Step(act, "", opinion="like", rows=(row,), slipped=slipped), title=title)


def _tag(w: DialogueWriter, value: str, kind: str = "tag") -> Constraint:
    return Constraint(kind, w.world.tag, value)


def _fresh_value(w: DialogueWriter) -> str | None:
    """A value of the goal that was not requested yet."""
    own = [value for value in w.world.values(w.goal) if value not in w.wanted()]
    return w.pick(own) if own else None


def _foreign_value(w: DialogueWriter) -> str | None:
    """A value that the goal lacks, drawn by its frequency in the catalogue."""
    own = {*w.world.values(w.goal), *w.wanted(), *w.unwanted()}
    values = [value for value in w.world.having if value not in own]
    if not values:
        return None
    common = np.array([len(w.world.having[value]) for value in values], np.float64)
    return str(w.rng.choice(values, p=common / common.sum()))


def want(w: DialogueWriter, act: str) -> Step | None:
    """A value of the goal, half of the time with a range of years that contains the goal's year."""
    value, year = _fresh_value(w), w.world.year(w.goal)
    if value is None or w.wanted() or w.ranged():  # a second wish might add or replace, which would be ambiguous
        return None
    when = year_range(w, year) if year is not None and w.chance(0.5) else None
    add = (_tag(w, value), *([when] if when else []))
    slots = {**w.tagged(value), **({"years": when.words} if when else {})}
    said = w.say(act, Step(act, "", add=add), **slots)
    # a phrasing without a slot for the years does not mention them
    return said if when is None or when.words.casefold() in said.text.casefold() else _less(said, when)


def _less(step: Step, gone: Constraint) -> Step:
    return replace(step, add=tuple(one for one in step.add if one is not gone))


def like_but(w: DialogueWriter, act: str) -> Step | None:
    """A liked title, and how the recommendation should differ from it."""
    row = _others(w, 1)[0]
    year, goal = w.world.year(row), w.world.year(w.goal)
    foreign, own = _foreign_value(w), _fresh_value(w)
    forms: list[tuple[str, Step]] = []
    if foreign:
        forms.append((f"not {foreign.casefold()}", Step(act, "", add=(_tag(w, foreign, "not"),))))
        forms.append((f"without the {foreign.casefold()}", Step(act, "", add=(_tag(w, foreign, "not"),))))
    if own:
        forms.append((f"with more {own.casefold()}", Step(act, "", add=(_tag(w, own),))))
    if year is not None and goal is not None and year != goal and not w.ranged():
        forms.append(("newer", Step(act, "", side="newer")) if goal > year else ("older", Step(act, "", side="older")))
    if not forms:
        return None
    but, meant = forms[int(w.rng.integers(len(forms)))]
    title, slipped = w.title(row)
    return w.say(act, replace(meant, opinion="like", rows=(row,), slipped=slipped), title=title, but=but)


def add(w: DialogueWriter, act: str) -> Step | None:
    """One more value of the goal, required in addition to the earlier ones."""
    value = _fresh_value(w)
    return None if value is None else w.say(act, Step(act, "", add=(_tag(w, value),)), **w.tagged(value))


def exclude(w: DialogueWriter, act: str) -> Step | None:
    """A value that the goal lacks, to be excluded."""
    value = _foreign_value(w)
    return None if value is None else w.say(act, Step(act, "", add=(_tag(w, value, "not"),)), **w.tagged(value))


def when(w: DialogueWriter, act: str) -> Step | None:
    """A range of years that contains the goal's year."""
    year = w.world.year(w.goal)
    if year is None or w.ranged():
        return None
    when = year_range(w, year)
    return w.say(act, Step(act, "", add=(when,)), years=when.words)


def switch(w: DialogueWriter, act: str) -> Step | None:
    """Another value instead of those requested; the goal becomes an item that has it."""
    old = [one for one in w.state.constraints if one.kind == "tag"]
    rest = [one for one in w.state.constraints if one.kind != "tag"]
    values = [value for value in w.world.having if value not in {*w.wanted(), *w.unwanted()}]
    for value in w.rng.permutation(values).tolist() if old else []:
        pool = [r for r in w.world.having[value] if all(c.holds(w.world.catalog[r]) for c in rest)]
        if len(pool) > 12:
            w.goal = int(w.rng.choice(pool))
            return w.say(act, Step(act, "", add=(_tag(w, value),), lift=tuple(old)), **w.tagged(value))
    return None


def switch_years(w: DialogueWriter, act: str) -> Step | None:
    """Other years instead of those requested."""
    old = w.dated()
    rest = [one for one in w.state.constraints if one.kind != "year"]
    pool = [r for r, item in enumerate(w.world.catalog.items) if all(c.holds(item) for c in rest)]
    pool = [r for r in pool if w.world.year(r) is not None and r not in w.state.hidden]
    if not old or not pool or any(step.side for step in w.steps):
        return None
    w.goal = int(w.rng.choice(pool))
    when = year_range(w, w.world.year(w.goal) or 0)
    return w.say(act, Step(act, "", add=(when,), lift=tuple(old)), years=when.words)


def any_years(w: DialogueWriter, act: str) -> Step | None:
    """Drops the constraint on years."""
    pointed = any(step.side for step in w.steps)
    return w.say(act, Step(act, "", lift=tuple(w.dated()))) if w.dated() and not pointed else None


def no_longer(w: DialogueWriter, act: str) -> Step | None:
    """Drops a requested value."""
    tags = [one for one in w.state.constraints if one.kind == "tag"]
    return w.say(act, Step(act, "", lift=(tags[-1],)), **w.tagged(tags[-1].value)) if tags else None


def allow(w: DialogueWriter, act: str) -> Step | None:
    """Allows a value that was excluded."""
    out = [one for one in w.state.constraints if one.kind == "not"]
    return w.say(act, Step(act, "", lift=(out[-1],)), **w.tagged(out[-1].value)) if out else None


def any_(w: DialogueWriter, act: str) -> Step | None:
    """Drops all requested values and years."""
    held = w.state.constraints
    pointed = any(step.side for step in w.steps)
    return (
        w.say(act, Step(act, "", lift=held))
        if len(held) > 1 and not pointed and (w.state.liked or w.state.history)
        else None
    )


def else_(w: DialogueWriter, act: str) -> Step | None:
    """Asks for items other than those on display, while enough of them certainly exist."""
    return w.say(act, Step(act, "", fresh=True)) if w.room() == w.state.count else None


def count(w: DialogueWriter, act: str) -> Step | None:
    """Asks for another list length."""
    number = int(w.rng.choice([3, 4, 5, 6, 8]))
    words = dict(zip((3, 4, 5, 6, 8), ("three", "four", "five", "six", "eight"), strict=True))
    return w.say(act, Step(act, "", count=number), n=words[number] if w.chance(0.5) else str(number))


def side(w: DialogueWriter, act: str) -> Step | None:
    """Newer or older than an item on display; only without another range, whose ends might contradict it."""
    most = min(w.room(), 3)
    if not most or w.ranged():
        return None
    position = int(w.rng.integers(1, most + 1))
    return w.say(act, Step(act, "", places=(position,), side=act), place=w.place(position))


def pointing(opinion: str, answer: str = "list") -> Act:
    """Return an act that gives an opinion on items on display, or asks about them."""

    def write(w: DialogueWriter, act: str) -> Step | None:
        most = min(w.room(), PLACED)
        if not most:
            return None
        words, places = list_positions(w, most) if opinion in {"like", "seen", "about"} else _one(w, most)
        return w.say(act, Step(act, "", opinion=opinion, places=places, answer=answer), place=words)

    return write


def _one(w: DialogueWriter, most: int) -> tuple[str, tuple[int, ...]]:
    position = int(w.rng.integers(1, most + 1))
    return w.place(position), (position,)


def why(w: DialogueWriter, act: str) -> Step | None:
    """A question about the whole list."""
    return w.say(act, Step(act, "", opinion="why", answer="words")) if w.room() else None


def aside(w: DialogueWriter, act: str) -> Step | None:
    """Small talk, or a question that is not about the catalogue."""
    return w.say(act, Step(act, "", answer="words"))


def unknown(w: DialogueWriter, act: str) -> Step | None:
    """A title that the catalogue lacks: a later film, or a quoted title combined from two titles of the catalogue."""
    there = {item.title for item in w.world.catalog.items}
    later = [title for title in LATER_FILMS if title not in there]
    if w.world.nouns.things == "films" and later and w.chance(0.5):
        return w.say(act, Step(act, "", answer="unknown", named=(title := w.pick(later))), title=title)
    a, b = (w.world.catalog[int(r)].title.split() for r in w.rng.choice(w.world.titled, 2, replace=False))
    title = " ".join([*a[: (len(a) + 1) // 2], *b[len(b) // 2 :]])
    near = any(title.casefold() in item.title.casefold() for item in w.world.catalog.items)
    if near or len(title.split()) < 3 or set(title) & set("()[]"):
        return None
    return w.say(act, Step(act, "", answer="unknown", named=title), title=f'"{title}"')


def undo(w: DialogueWriter, act: str) -> Step | None:
    """The button that undoes the last exchange."""
    return Step(act, "") if w.steps and w.steps[-1].act != "undo" else None
