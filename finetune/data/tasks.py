"""Item tasks: one generator of training examples per task, from the train part and the catalogue alone.

A generator yields conversations (lists of messages) endlessly, in an order determined by its random generator. The
parts of a message mark which tokens are trained on. A recipe mixes tasks by their share of tokens. `TASKS` holds these
tasks and the dialogue tasks of `dialogues`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import numpy as np

from llmrec.finetune.data import dialogues
from llmrec.finetune.data.attribute_wishes import wish
from llmrec.finetune.data.context import (
    Example,
    TaskContext,
    for_domain,
    item_question,
    liked_slots,
    pick,
    random_positions,
    verb_slots,
    wish_sentence,
)
from llmrec.lm.prompts import Slot, fill_template, load_template
from llmrec.lm.rendering import ItemRef, Message, Part, Rendered, UserRef
from llmrec.nlu.wording import end_sentence
from llmrec.ranking.explanations import describe

_PREMISE_WORDS = 40  # longer texts are cut: a pack holds a thousand tokens


def next_item(context: TaskContext, rng: np.random.Generator) -> Iterator[Example]:
    """Yield whole histories, cut into windows with a random first cut; every item except a window's first is a target.

    One pass trains all positions. With one row per target, every item would be read `window` times.
    """
    phrases = for_domain(load_template("next_item").user, context.catalog.domain)
    while True:
        for user in rng.permutation(len(context.histories)):
            rows, vectors = context.histories[user], context.vectors[user]
            if len(rows) < 2:
                continue
            start, stop = 0, int(rng.integers(1, context.window + 1)) if len(rows) > context.window else context.window
            while start < len(rows) - 1:
                stop = min(stop, len(rows) - 1)
                parts: list[Part] = []
                for t in range(start, stop + 1):
                    parts.append(ItemRef(int(rows[t]), loss=t > start))
                    if t < stop and rng.random() < context.user_share:
                        parts.append(UserRef(vectors[t]))
                phrase = pick(phrases, rng)
                slots: dict[str, Slot] = {"domain": context.catalog.domain, "history": tuple(parts)}
                yield [Message("user", fill_template(phrase, slots), open=True)]
                start, stop = stop, stop + context.window


def user_item(context: TaskContext, rng: np.random.Generator) -> Iterator[Example]:
    """Yield next items to predict from the user vector alone."""
    template = load_template("user_item")
    for rows, vectors, t in random_positions(context, rng, 2):
        slots: dict[str, Slot] = {"domain": context.catalog.domain, "user": UserRef(vectors[t - 1])}
        slots |= verb_slots(context.catalog.domain)
        target = ItemRef(int(rows[t]), loss=True)
        yield [Message("user", (*fill_template(pick(template.user, rng), slots), target), open=True)]


def wish_item(context: TaskContext, rng: np.random.Generator) -> Iterator[Example]:
    """Yield next items of a history, requested in words by one or two of their fields."""
    template, phrases = load_template("wish"), load_template("attribute").user
    for rows, vectors, t in random_positions(context, rng, 3):
        start = max(0, t - int(rng.integers(1, 16)))
        slots: dict[str, Slot] = {
            "domain": context.catalog.domain,
            "history": tuple(ItemRef(int(r)) for r in rows[start:t]),
            "user": (UserRef(vectors[t - 1]),) if rng.random() < 0.8 else (),
            "message": wish_sentence(
                pick(phrases, rng), wish(context.catalog, int(rows[t]), rng)[0], context.catalog.domain
            ),
        }
        yield item_question(pick(template.user, rng), slots, int(rows[t]))


def attribute_item(context: TaskContext, rng: np.random.Generator) -> Iterator[Example]:
    """Yield wishes without any history; among the items that fulfil a wish, popular ones are more likely answers."""
    template = load_template("attribute")
    while True:
        row = int(rng.choice(len(context.catalog), p=context.weight))
        message = wish_sentence(pick(template.user, rng), wish(context.catalog, row, rng)[0], context.catalog.domain)
        yield item_question("{message}", {"message": message}, row)


def liked_item(context: TaskContext, rng: np.random.Generator) -> Iterator[Example]:
    """Yield next items of users who name one to five liked items in words."""
    template = load_template("liked")
    for rows, _, t in random_positions(context, rng, 2):
        names = [context.name(int(r), rng) for r in rows[max(0, t - int(rng.integers(1, 6))) : t]]
        yield item_question(
            pick(template.user, rng), liked_slots(names) | verb_slots(context.catalog.domain), int(rows[t])
        )


def search_item(context: TaskContext, rng: np.random.Generator) -> Iterator[Example]:
    """Yield items to find from a few consecutive words of their title or text, as typed into a search box."""
    template = load_template("search")
    while True:
        row = int(rng.integers(len(context.catalog)))
        item = context.catalog[row]
        source = item.text if item.text and rng.random() < 0.7 else item.title
        words = re.findall(r"\w[\w'-]*", source.lower())
        if not words:
            continue
        count = int(rng.integers(1, 7))
        start = int(rng.integers(max(1, len(words) - count + 1)))
        slots: dict[str, Slot] = {"domain": context.catalog.domain, "words": " ".join(words[start : start + count])}
        yield item_question(pick(template.user, rng), slots, row)


def ranking(context: TaskContext, rng: np.random.Generator) -> Iterator[Example]:
    """Yield choices among 5 to 20 candidates in random order; the answer is the item that the user chose."""
    template = load_template("ranking")
    for rows, vectors, t in random_positions(context, rng, 3):
        others = rng.choice(len(context.catalog), int(rng.integers(4, 20)), p=context.weight)
        candidates = rng.permutation(np.unique([int(rows[t]), *others]))
        history = rows[max(0, t - int(rng.integers(1, 16))) : t]
        slots: dict[str, Slot] = {
            "domain": context.catalog.domain,
            "history": tuple(ItemRef(int(r)) for r in history),
            "user": (UserRef(vectors[t - 1]),) if rng.random() < 0.8 else (),
            "candidates": tuple(ItemRef(int(r)) for r in candidates),
        }
        yield item_question(pick(template.user, rng), slots, int(rows[t]))


def item_title(context: TaskContext, rng: np.random.Generator) -> Iterator[Example]:
    """Yield questions for the title and the fields of an item given by its tokens."""
    template = load_template("item_to_title")
    while True:
        for row in rng.permutation(len(context.catalog)):
            fields = describe(context.catalog, int(row))
            answer = {
                "title": end_sentence(context.catalog.label(int(row))),
                "fields": fields[:1].upper() + fields[1:] + ".",
            }
            question = fill_template(pick(template.user, rng), {"item": ItemRef(int(row))})
            yield [
                Message("user", question),
                Message("assistant", fill_template(pick(template.assistant, rng), answer, loss=True)),
            ]


def title_item(context: TaskContext, rng: np.random.Generator) -> Iterator[Example]:
    """Yield questions for the item tokens of a title, given with or without its year."""
    template = load_template("title_to_item")
    while True:
        for row in rng.permutation(len(context.catalog)):
            yield item_question(pick(template.user, rng), {"title": context.name(int(row), rng)}, int(row))


def item_premise(context: TaskContext, rng: np.random.Generator) -> Iterator[Example]:
    """Yield questions about what an item given by its tokens is about, for items that have a text."""
    template = load_template("item_to_premise")
    for row in _rows_with_text(context, rng):
        question = fill_template(pick(template.user, rng), {"item": ItemRef(row)})
        answer = {"premise": _excerpt(context, row)}
        yield [
            Message("user", question),
            Message("assistant", fill_template(pick(template.assistant, rng), answer, loss=True)),
        ]


def premise_item(context: TaskContext, rng: np.random.Generator) -> Iterator[Example]:
    """Yield questions for the item tokens of an item given by what it is about, for items that have a text."""
    template = load_template("premise_to_item")
    for row in _rows_with_text(context, rng):
        slots: dict[str, Slot] = {"domain": context.catalog.domain, "premise": _excerpt(context, row)}
        yield item_question(pick(template.user, rng), slots, row)


def _rows_with_text(context: TaskContext, rng: np.random.Generator) -> Iterator[int]:
    """Yield endlessly the rows of items with a text, in a new random order each pass; all rows if no item has one."""
    rows = [row for row in range(len(context.catalog)) if context.catalog[row].text] or range(len(context.catalog))
    while True:
        yield from (int(row) for row in rng.permutation(rows))


def _excerpt(context: TaskContext, row: int) -> str:
    """Return the beginning of an item's text, or of its description if it has no text."""
    words = context.catalog[row].text.split() or describe(context.catalog, row).split()
    return " ".join(words[:_PREMISE_WORDS])


def replay(context: TaskContext, rng: np.random.Generator) -> Iterator[Example]:
    """Yield passages of ordinary text, so that the model keeps its language."""
    users = np.zeros((0, context.vectors[0].shape[1]), np.float32)
    while True:
        for i in rng.permutation(len(context.passages)):
            ids = context.passages[i]
            yield Rendered(ids, np.arange(len(ids)) > 0, users)


Task = Callable[[TaskContext, np.random.Generator], Iterator[Example]]
TASKS: dict[str, Task] = {
    task.__name__: task
    for task in (
        next_item,
        user_item,
        wish_item,
        attribute_item,
        liked_item,
        search_item,
        ranking,
        item_title,
        title_item,
        item_premise,
        premise_item,
        dialogues.conversation,
        dialogues.explanation,
        dialogues.talk,
        dialogues.refusal,
        replay,
    )
}
TEXT_TASKS = frozenset({"replay"})  # the model is kept close to the base model on these
