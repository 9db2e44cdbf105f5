"""Dialogue tasks: conversations of several turns, explanations, talk about a list, and refusals.

Every claim in an answer is a field of an item that the answer names. Each later turn of a conversation is answered by
an item that the same user chose later and that fulfils the request of the turn.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from llmrec.data.catalog import Catalog
from llmrec.finetune.data.attribute_wishes import wish
from llmrec.finetune.data.context import (
    Example,
    TaskContext,
    excluded_slots,
    for_domain,
    liked_slots,
    pick,
    random_positions,
    verb_slots,
    wish_sentence,
)
from llmrec.lm.prompts import Slot, fill_template, load_template
from llmrec.lm.rendering import ItemRef, Message, UserRef
from llmrec.ranking.explanations import describe, listing, spoken_kinds, tags

_BY_YEAR = ("newer", "older")


def conversation(context: TaskContext, rng: np.random.Generator) -> Iterator[Example]:
    """Yield conversations with one to four recommended items.

    The user names liked titles and a wish; the answer is an item, half of the time with a sentence about it. Critiques
    of several kinds follow. One conversation in six begins with an empty request, answered by a question.
    """
    opening = load_template("conversation")
    for rows, vectors, t in random_positions(context, rng, 6):
        names = [context.name(int(r), rng) for r in rows[max(0, t - int(rng.integers(1, 4))) : t]]
        slots: dict[str, Slot] = {
            **liked_slots(names),
            **verb_slots(context.catalog.domain),
            "wish": wish(context.catalog, int(rows[t]), rng)[0],
        }
        first = fill_template(pick(opening.user, rng), slots)
        if rng.random() < 0.5:
            first = (UserRef(vectors[t - 1]), *first)
        messages = _clarification(context.catalog.domain, rng) if rng.random() < 1 / 6 else []
        messages += [Message("user", first), _suggest(context, int(rows[t]), rng)]
        for turn in range(1, min(int(rng.integers(1, 5)), len(rows) - t)):
            messages.append(_critique(context.catalog, int(rows[t + turn - 1]), int(rows[t + turn]), rng))
            messages.append(_suggest(context, int(rows[t + turn]), rng))
        yield messages


def _suggest(context: TaskContext, row: int, rng: np.random.Generator) -> Message:
    """Return an answer with an item and, half of the time, a sentence about it."""
    item = ItemRef(row, loss=True)
    if rng.random() < 0.5:
        return Message("assistant", (item,))
    answer: dict[str, Slot] = {
        "item": item,
        "first": context.catalog.label(row),
        "description": describe(context.catalog, row),
    }
    return Message("assistant", fill_template(pick(load_template("conversation").assistant, rng), answer, loss=True))


def _clarification(domain: str, rng: np.random.Generator) -> list[Message]:
    """Return a request that says nothing about the user's taste, and the question that answers it."""
    template = load_template("clarification")
    asked = Message("user", fill_template(pick(template.user, rng), verb_slots(domain)))
    return [asked, Message("assistant", fill_template(pick(template.assistant, rng), {}, loss=True))]


def _critique(catalog: Catalog, shown: int, wanted: int, rng: np.random.Generator) -> Message:
    """Return the critique of a user who was shown one item and wants another.

    It states a true difference between the two items, or else a wish that the wanted item fulfils.
    """
    more = _more(catalog, shown, wanted)
    if more and rng.random() < 0.25:
        said = pick(more, rng)
        year = said in _BY_YEAR
        slots: dict[str, Slot] = {
            "title": catalog[shown].title,
            "more": said if year else f"with {said}",
            "which": f"that is {said}" if year else f"with {said}",
        }
        return Message("user", fill_template(pick(load_template("comparison").user, rng), slots))
    gone = _absent(catalog, shown, wanted)
    if gone and rng.random() < 0.4:
        return Message(
            "user", fill_template(pick(load_template("exclusion").user, rng), excluded_slots(pick(gone, rng)))
        )
    asked = pick(load_template("critique").user, rng)
    return Message("user", fill_template(asked, {"wish": wish(catalog, wanted, rng)[0]} | verb_slots(catalog.domain)))


def _absent(catalog: Catalog, row: int, other: int) -> list[str]:
    """Return the tags of an item that another item lacks, as worded inside a sentence."""
    return [words for tag, words in spoken_kinds(catalog, row).items() if tag not in tags(catalog, other)]


def _more(catalog: Catalog, shown: int, wanted: int) -> list[str]:
    """Return comparisons in favour of the wanted item: newer or older, and "more" of the tags that only it has."""
    a, b = (
        next((v for v in catalog[row].attributes.values() if isinstance(v, int) and 1000 <= v <= 2999), None)
        for row in (shown, wanted)
    )
    out = [f"more {words}" for words in _absent(catalog, wanted, shown)]
    if a is not None and b is not None and a != b:
        out.append(_BY_YEAR[0] if b > a else _BY_YEAR[1])
    return out


def explanation(context: TaskContext, rng: np.random.Generator) -> Iterator[Example]:
    """Yield explanations of an item from its fields and those of the liked item that shares the most tags with it."""
    template = load_template("explanation")
    for rows, _, t in random_positions(context, rng, 2):
        row = int(rows[t])
        own = set(tags(context.catalog, row))
        own_best = max(rows[max(0, t - 10) : t], key=lambda r: len(own & set(tags(context.catalog, int(r)))))
        slots: dict[str, Slot] = {
            "item": ItemRef(row),
            "title": context.catalog.label(row),
            "description": describe(context.catalog, row),
            "liked": context.catalog.label(int(own_best)),
            "liked_description": describe(context.catalog, int(own_best)),
            **verb_slots(context.catalog.domain),
        }
        yield [
            Message("user", fill_template(pick(template.user, rng), slots)),
            Message("assistant", fill_template(pick(template.assistant, rng), slots, loss=True)),
        ]


def talk(context: TaskContext, rng: np.random.Generator) -> Iterator[Example]:
    """Yield sentences about a list that is already chosen; every claim is a field of a listed item.

    The user's message is of any kind, and may name liked titles that are not on the list. A model that was trained on
    wishes alone in this frame answered every such title with "I do not have ...".
    """
    template = load_template("talk")
    answers = for_domain(template.assistant, context.catalog.domain)
    most = min(5, int((context.weight > 0).sum()))
    while True:
        count = int(rng.integers(2, most + 1)) if most > 2 else most
        shown = [int(r) for r in rng.choice(len(context.catalog), count, replace=False, p=context.weight)]
        message = _said(context, shown[0], rng)
        second = shown[min(1, count - 1)]
        answer = {
            "first": context.catalog.label(shown[0]),
            "second": context.catalog.label(second),
            "description": describe(context.catalog, shown[0]),
            "description_second": describe(context.catalog, second),
        }
        slots = {"message": message, "shown": listing(context.catalog, shown)}
        yield [
            _frame(context),
            Message("user", fill_template(template.user[0], slots)),
            Message("assistant", fill_template(pick(answers, rng), answer, loss=True)),
        ]


def _said(context: TaskContext, row: int, rng: np.random.Generator) -> str:
    """Return a message that may lead to a list with this item first: a wish, a critique or liked titles."""
    kind = str(rng.choice(["attribute", "liked", "critique", "exclusion"], p=[0.5, 0.25, 0.15, 0.1]))
    other = int(rng.choice(len(context.catalog), p=context.weight))
    absent, domain = _absent(context.catalog, other, row), context.catalog.domain
    if kind == "exclusion" and absent:
        return pick(load_template(kind).user, rng).format(**excluded_slots(pick(absent, rng)))
    if kind == "liked":
        others = rng.choice(len(context.catalog), int(rng.integers(1, 4)), p=context.weight)
        names = [context.name(int(r), rng) for r in dict.fromkeys(others)]
        return pick(load_template(kind).user, rng).format(**liked_slots(names), **verb_slots(domain))
    asked = load_template("critique" if kind == "critique" else "attribute")
    return wish_sentence(pick(asked.user, rng), wish(context.catalog, row, rng)[0], domain)


def refusal(context: TaskContext, rng: np.random.Generator) -> Iterator[Example]:
    """Yield off-topic questions, each declined in a sentence.

    They use the recommender's system prompt, so that the model without this prompt still answers such questions.
    Requests for titles that are not in the catalogue are not among them: the program itself knows which titles are
    missing, and a model trained to deny titles also denies titles that are on display (in 13 of 40 replies).
    """
    template, slots = load_template("refusal"), {"domain": context.catalog.domain}
    while True:
        yield [
            _frame(context),
            Message("user", fill_template(pick(template.user, rng), slots)),
            Message("assistant", fill_template(pick(template.assistant, rng), slots, loss=True)),
        ]


def _frame(context: TaskContext) -> Message:
    return Message("system", fill_template(load_template("system").user[0], {"domain": context.catalog.domain}))
