"""The spoken traffic: conversations of several turns, explanations, words about a list, and refusals.

Everything that an answer claims is a field of an item it names; every later turn is answered by an item that the same
user took later and that fulfils what the turn asks for.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from llmrec.catalog import Catalog
from llmrec.english import listed
from llmrec.finetune.wishes import wish
from llmrec.finetune.world import Example, World, pick, say, slice_of
from llmrec.reasons import describe, listing, singular, tags
from llmrec.render import ItemRef, Message, UserRef
from llmrec.templates import Slot, fill, load


def conversation(world: World, rng: np.random.Generator) -> Iterator[Example]:
    """One to four items: liked titles and a wish, an item with a sentence of reason, then critiques of several kinds.

    One conversation in six begins with an empty request and the question that answers it.
    """
    opening = load("conversation")
    for rows, vectors, t in slice_of(world, rng, 6):
        names = [world.name(int(r), rng) for r in rows[max(0, t - int(rng.integers(1, 4))) : t]]
        slots: dict[str, Slot] = {
            "liked": listed(names) or f"a {singular(world.catalog.domain)}",
            "wish": wish(world.catalog, int(rows[t]), rng)[0],
        }
        first = fill(pick(opening.user, rng), slots)
        if rng.random() < 0.5:
            first = (UserRef(vectors[t - 1]), *first)
        messages = _clarification(rng) if rng.random() < 1 / 6 else []
        messages += [Message("user", first), _suggest(world, int(rows[t]), rng)]
        for turn in range(1, min(int(rng.integers(1, 5)), len(rows) - t)):
            messages.append(_critique(world.catalog, int(rows[t + turn - 1]), int(rows[t + turn]), rng))
            messages.append(_suggest(world, int(rows[t + turn]), rng))
        yield messages


def _suggest(world: World, row: int, rng: np.random.Generator) -> Message:
    """An item, with a sentence about it half of the time."""
    item = ItemRef(row, loss=True)
    if rng.random() < 0.5:
        return Message("assistant", (item,))
    answer: dict[str, Slot] = {
        "item": item,
        "first": world.catalog.label(row),
        "description": describe(world.catalog, row),
    }
    return Message("assistant", fill(pick(load("conversation").assistant, rng), answer, loss=True))


def _clarification(rng: np.random.Generator) -> list[Message]:
    """Nothing to go by, and one question back."""
    template = load("clarification")
    asked = Message("user", fill(pick(template.user, rng), {}))
    return [asked, Message("assistant", fill(pick(template.assistant, rng), {}, loss=True))]


def _critique(catalog: Catalog, shown: int, wanted: int, rng: np.random.Generator) -> Message:
    """What somebody says who was shown one item and takes the other: what is true of the two, else a wish."""
    more = _more(catalog, shown, wanted)
    if more and rng.random() < 0.25:
        slots: dict[str, Slot] = {"more": pick(more, rng), "title": catalog[shown].title}
        return Message("user", fill(pick(load("comparison").user, rng), slots))
    gone = [tag for tag in tags(catalog, shown) if tag not in tags(catalog, wanted)]
    if gone and rng.random() < 0.4:
        return Message("user", fill(pick(load("exclusion").user, rng), {"tag": pick(gone, rng).lower()}))
    return Message("user", fill(pick(load("critique").user, rng), {"wish": wish(catalog, wanted, rng)[0]}))


def _more(catalog: Catalog, shown: int, wanted: int) -> list[str]:
    """What the wanted item is more than the shown one: by year and by tags that only it has."""
    a, b = (
        next((v for v in catalog[row].attributes.values() if isinstance(v, int) and 1000 <= v <= 2999), None)
        for row in (shown, wanted)
    )
    out = [f"more {tag.lower()}" for tag in tags(catalog, wanted) if tag not in tags(catalog, shown)]
    if a is not None and b is not None and a != b:
        out.append("newer" if b > a else "older")
    return out


def explanation(world: World, rng: np.random.Generator) -> Iterator[Example]:
    """Why an item: its fields and those of a liked item that shares the most with it."""
    template = load("explanation")
    for rows, _, t in slice_of(world, rng, 2):
        row = int(rows[t])
        own = set(tags(world.catalog, row))
        liked = max(rows[max(0, t - 10) : t], key=lambda r: len(own & set(tags(world.catalog, int(r)))))
        slots: dict[str, Slot] = {
            "item": ItemRef(row),
            "title": world.catalog.label(row),
            "description": describe(world.catalog, row),
            "liked": world.catalog.label(int(liked)),
            "liked_description": describe(world.catalog, int(liked)),
        }
        yield [
            Message("user", fill(pick(template.user, rng), slots)),
            Message("assistant", fill(pick(template.assistant, rng), slots, loss=True)),
        ]


def talk(world: World, rng: np.random.Generator) -> Iterator[Example]:
    """Words about a list that is already chosen, whatever was said to get it: every claim is a field of a listed item.

    What is said names liked titles that are not on the list, too: a model that had heard wishes alone in this frame
    answered each of them with "I do not have ...".
    """
    template = load("talk")
    most = min(5, int((world.weight > 0).sum()))
    while True:
        count = int(rng.integers(2, most + 1)) if most > 2 else most
        shown = [int(r) for r in rng.choice(len(world.catalog), count, replace=False, p=world.weight)]
        message = _said(world, shown[0], rng)
        second = shown[min(1, count - 1)]
        answer = {
            "first": world.catalog.label(shown[0]),
            "second": world.catalog.label(second),
            "description": describe(world.catalog, shown[0]),
            "description_second": describe(world.catalog, second),
        }
        slots = {"message": message, "shown": listing(world.catalog, shown)}
        yield [
            _frame(world),
            Message("user", fill(template.user[0], slots)),
            Message("assistant", fill(pick(template.assistant, rng), answer, loss=True)),
        ]


def _said(world: World, row: int, rng: np.random.Generator) -> str:
    """What somebody may have said who is shown this item first: a wish, a critique, liked titles."""
    kind = str(rng.choice(["attribute", "liked", "critique", "exclusion"], p=[0.5, 0.25, 0.15, 0.1]))
    other = int(rng.choice(len(world.catalog), p=world.weight))
    absent = [tag for tag in tags(world.catalog, other) if tag not in tags(world.catalog, row)]
    if kind == "exclusion" and absent:
        return pick(load(kind).user, rng).format(tag=pick(absent, rng).lower())
    if kind == "liked":
        others = rng.choice(len(world.catalog), int(rng.integers(1, 4)), p=world.weight)
        liked = [world.name(int(r), rng) for r in dict.fromkeys(others)]
        return pick(load(kind).user, rng).format(liked=listed(liked))
    asked = load("critique" if kind == "critique" else "attribute")
    return say(pick(asked.user, rng), wish(world.catalog, row, rng)[0])


def refusal(world: World, rng: np.random.Generator) -> Iterator[Example]:
    """Questions outside the business, declined in a sentence.

    They stand under the frame of the recommender, so that the model without it still answers what it is asked. Titles
    that the catalogue lacks are not among them: the program knows which these are, and a model that is taught to deny
    titles denies those on display as well (in 13 of 40 replies).
    """
    template, slots = load("refusal"), {"domain": world.catalog.domain}
    while True:
        yield [
            _frame(world),
            Message("user", fill(pick(template.user, rng), slots)),
            Message("assistant", fill(pick(template.assistant, rng), slots, loss=True)),
        ]


def _frame(world: World) -> Message:
    return Message("system", fill(load("system").user[0], {"domain": world.catalog.domain}))
