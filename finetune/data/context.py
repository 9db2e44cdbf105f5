"""The context that training tasks draw their examples from, and the helpers that they share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np

from llmrec.data.catalog import Catalog
from llmrec.lm.prompts import Slot, fill_template
from llmrec.lm.rendering import ItemRef, Message, Rendered
from llmrec.nlu.wording import domain_verbs, fits_domain, is_plural, join_words

Example = list[Message] | Rendered


@dataclass(frozen=True, eq=False)
class TaskContext:
    """The data that training tasks draw their examples from.

    Attributes:
        catalog: the items.
        histories: item rows of each user's train part, oldest first.
        vectors: float32[t, d] for each history, the user vector after each of its items (causal).
        window: largest number of items that a prompt shows.
        user_share: probability that a user vector follows an item of a packed history.
        passages: int64[m, length], token ids of ordinary text from the base model, for replay.
    """

    catalog: Catalog
    histories: Sequence[np.ndarray]
    vectors: Sequence[np.ndarray]
    window: int
    user_share: float
    passages: np.ndarray

    @cached_property
    def weight(self) -> np.ndarray:
        """float64[n], proportional to the square root of each item's train interactions; sums to 1."""
        counts = np.bincount(np.concatenate(self.histories), minlength=len(self.catalog)).astype(np.float64)
        out: np.ndarray = np.sqrt(counts) / np.sqrt(counts).sum()
        return out

    def name(self, row: int, rng: np.random.Generator) -> str:
        """Return an item's title as people write it: mostly with its year, sometimes without or in lower case."""
        title = self.catalog[row].title if rng.random() < 0.4 else self.catalog.label(row)
        return title.lower() if rng.random() < 0.15 else title


def pick(options: Sequence[str], rng: np.random.Generator) -> str:
    """Return a random one of several phrasings."""
    return options[int(rng.integers(len(options)))]


def for_domain(phrases: Sequence[str], domain: str) -> tuple[str, ...]:
    """Return the phrasings that fit the catalogue's kind of item: nobody has `seen` a book."""
    return tuple(phrase for phrase in phrases if fits_domain(phrase, domain))


def verb_slots(domain: str) -> dict[str, Slot]:
    """Return slots for the verb that fits the catalogue's items: do, does, did, done."""
    return {**asdict(domain_verbs(domain))}


def liked_slots(names: Sequence[str]) -> dict[str, Slot]:
    """Return slots for liked titles, and for the words that agree with them in number."""
    one = len(names) == 1
    return {
        "liked": join_words(names),
        "were": "was" if one else "were",
        "my_favourites": "My favourite is" if one else "My favourites are",
    }


def excluded_slots(tag: str) -> dict[str, Slot]:
    """Return slots for a tag that the user wants less of."""
    return {"tag": tag, "less": "Fewer" if is_plural(tag) else "Less"}


def wish_sentence(phrase: str, wished: str, domain: str) -> str:
    """Return a wish as a sentence."""
    sentence = phrase.format(wish=wished, **verb_slots(domain))
    return sentence[:1].upper() + sentence[1:]


def item_question(phrase: str, slots: Mapping[str, Slot], row: int) -> list[Message]:
    """Return a question and its answer, which is one item."""
    return [Message("user", fill_template(phrase, slots)), Message("assistant", (ItemRef(row, loss=True),))]


def random_positions(
    context: TaskContext, rng: np.random.Generator, least: int
) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """Yield endlessly the rows and vectors of a random user and a random position in them.

    Users have at least `least` items, or at least 2 if there is no such user.
    """
    users = np.flatnonzero([len(rows) >= least for rows in context.histories])
    users = users if len(users) else np.flatnonzero([len(rows) >= 2 for rows in context.histories])
    while True:
        user = int(rng.choice(users))
        rows = context.histories[user]
        yield rows, context.vectors[user], int(rng.integers(1, len(rows)))
