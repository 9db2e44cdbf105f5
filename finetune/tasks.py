"""The traffic: one generator a task, each made from the train part of the data and the catalogue alone.

A generator yields conversations (lists of messages) for ever, in an order that its random generator fixes. Which tokens
are trained on is marked in the parts; a recipe mixes tasks by their share of tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from llmrec.catalog import Catalog
from llmrec.finetune.wishes import wish
from llmrec.reasons import describe, listing, singular
from llmrec.render import ItemRef, Message, Part, Rendered, UserRef
from llmrec.templates import Slot, fill, load

Example = list[Message] | Rendered


@dataclass(frozen=True, eq=False)
class World:
    """What traffic is made from.

    Attributes:
        catalog: the items.
        histories: rows of each user's train part, oldest first.
        vectors: float32[t, d] for each history: the user vector after each of its items (causal).
        window: the most items that a prompt shows.
        user_share: how often a user vector follows an item of a packed history.
        passages: int64[m, length], ordinary text of the base model as ids, for replay.
    """

    catalog: Catalog
    histories: Sequence[np.ndarray]
    vectors: Sequence[np.ndarray]
    window: int
    user_share: float
    passages: np.ndarray

    @property
    def popularity(self) -> np.ndarray:
        """float64[n]: train interactions of every item."""
        return np.bincount(np.concatenate(self.histories), minlength=len(self.catalog)).astype(np.float64)


def pick(options: Sequence[str], rng: np.random.Generator) -> str:
    """One of several phrasings."""
    return options[int(rng.integers(len(options)))]


def say(phrase: str, wished: str) -> str:
    """A wish as a sentence."""
    sentence = phrase.format(wish=wished)
    return sentence[:1].upper() + sentence[1:]


def next_item(world: World, rng: np.random.Generator) -> Iterator[Example]:
    """Whole histories cut into windows with a random first cut; every item but a window's first is a target.

    One pass trains all positions: a row for each target would read every item `window` times.
    """
    template = load("next_item")
    while True:
        for user in rng.permutation(len(world.histories)):
            rows, vectors = world.histories[user], world.vectors[user]
            if len(rows) < 2:
                continue
            start, stop = 0, int(rng.integers(1, world.window + 1)) if len(rows) > world.window else world.window
            while start < len(rows) - 1:
                stop = min(stop, len(rows) - 1)
                parts: list[Part] = []
                for t in range(start, stop + 1):
                    parts.append(ItemRef(int(rows[t]), loss=t > start))
                    if t < stop and rng.random() < world.user_share:
                        parts.append(UserRef(vectors[t]))
                phrase = pick(template.user, rng)
                slots = {"domain": world.catalog.domain, "history": tuple(parts)}
                yield [Message("user", fill(phrase, slots), open=True)]
                start, stop = stop, stop + world.window


def wish_item(world: World, rng: np.random.Generator) -> Iterator[Example]:
    """The next item of a history, asked for with one or two of its fields in words."""
    template, phrases = load("wish"), load("attribute").user
    long_enough = np.flatnonzero([len(rows) >= 3 for rows in world.histories])
    while True:
        user = int(rng.choice(long_enough))
        rows, vectors = world.histories[user], world.vectors[user]
        t = int(rng.integers(1, len(rows)))
        start = max(0, t - int(rng.integers(1, 16)))
        history = tuple(ItemRef(int(r)) for r in rows[start:t])
        slots: dict[str, Slot] = {
            "domain": world.catalog.domain,
            "history": history,
            "user": (UserRef(vectors[t - 1]),) if rng.random() < 0.8 else (),
            "message": say(pick(phrases, rng), wish(world.catalog, int(rows[t]), rng)[0]),
        }
        yield _ask(pick(template.user, rng), slots, int(rows[t]))


def attribute_item(world: World, rng: np.random.Generator) -> Iterator[Example]:
    """A wish without any history; popular items that fulfil it are the likelier answers."""
    template = load("attribute")
    weight = np.sqrt(world.popularity)
    weight /= weight.sum()
    while True:
        row = int(rng.choice(len(weight), p=weight))
        yield _ask("{message}", {"message": say(pick(template.user, rng), wish(world.catalog, row, rng)[0])}, row)


def item_title(world: World, rng: np.random.Generator) -> Iterator[Example]:
    """Item tokens to title and fields."""
    template = load("item_to_title")
    while True:
        for row in rng.permutation(len(world.catalog)):
            fields = describe(world.catalog, int(row))
            answer = {"title": world.catalog.label(int(row)), "fields": fields[:1].upper() + fields[1:] + "."}
            question = fill(pick(template.user, rng), {"item": ItemRef(int(row))})
            yield [
                Message("user", question),
                Message("assistant", fill(pick(template.assistant, rng), answer, loss=True)),
            ]


def title_item(world: World, rng: np.random.Generator) -> Iterator[Example]:
    """Title, with or without its year, to item tokens."""
    template = load("title_to_item")
    while True:
        for row in rng.permutation(len(world.catalog)):
            item = world.catalog[int(row)]
            title = item.title if rng.random() < 0.3 else world.catalog.label(int(row))
            yield _ask(pick(template.user, rng), {"title": title}, int(row))


def conversation(world: World, rng: np.random.Generator) -> Iterator[Example]:
    """Two turns: liked titles in words, an item with one sentence of reason, a critique, another item."""
    opening, critique = load("conversation"), load("critique")
    users = np.flatnonzero([len(rows) >= 6 for rows in world.histories])
    users = users if len(users) else np.arange(len(world.histories))
    while True:
        rows = world.histories[int(rng.choice(users))]
        t = int(rng.integers(min(3, len(rows) - 2), len(rows) - 1)) if len(rows) > 2 else 0
        first, second = int(rows[t]), int(rows[min(t + 1, len(rows) - 1)])
        names = [world.catalog.label(int(r)) for r in rows[max(0, t - int(rng.integers(1, 4))) : t]]
        slots = {"liked": " and ".join(names) or f"a {singular(world.catalog.domain)}"}
        answer = {
            "item": ItemRef(first, loss=True),
            "first": world.catalog.label(first),
            "description": describe(world.catalog, first),
        }
        yield [
            Message("user", fill(pick(opening.user, rng), {**slots, "wish": wish(world.catalog, first, rng)[0]})),
            Message("assistant", fill(pick(opening.assistant, rng), answer, loss=True)),
            *_ask(pick(critique.user, rng), {"wish": wish(world.catalog, second, rng)[0]}, second),
        ]


def talk(world: World, rng: np.random.Generator) -> Iterator[Example]:
    """Words about a list that is already chosen: every claim in them is a field of an item in the list."""
    template, frame = load("talk"), load("system")
    weight = np.sqrt(world.popularity)
    weight /= weight.sum()
    ask = load("attribute")
    while True:
        shown = [int(r) for r in rng.choice(len(weight), int(rng.integers(2, 6)), replace=False, p=weight)]
        message = say(pick(ask.user, rng), wish(world.catalog, shown[0], rng)[0])
        answer = {
            "first": world.catalog.label(shown[0]),
            "second": world.catalog.label(shown[1]),
            "description": describe(world.catalog, shown[0]),
            "description_second": describe(world.catalog, shown[1]),
        }
        slots = {"message": message, "shown": listing(world.catalog, shown)}
        yield [
            Message("system", fill(frame.user[0], {"domain": world.catalog.domain})),
            Message("user", fill(template.user[0], slots)),
            Message("assistant", fill(pick(template.assistant, rng), answer, loss=True)),
        ]


def replay(world: World, rng: np.random.Generator) -> Iterator[Example]:
    """Ordinary text, so that the model keeps its language."""
    users = np.zeros((0, world.vectors[0].shape[1]), np.float32)
    while True:
        for i in rng.permutation(len(world.passages)):
            ids = world.passages[i]
            yield Rendered(ids, np.arange(len(ids)) > 0, users)


def _ask(phrase: str, slots: dict[str, Slot], row: int) -> list[Message]:
    return [Message("user", fill(phrase, slots)), Message("assistant", (ItemRef(row, loss=True),))]


Task = Callable[[World, np.random.Generator], Iterator[Example]]
TASKS: dict[str, Task] = {
    task.__name__: task
    for task in (next_item, wish_item, attribute_item, item_title, title_item, conversation, talk, replay)
}
