"""What the training tasks draw their examples from, and the helpers that they share."""

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
    """What the training tasks draw their examples from.

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

    @cached_property
    def weight(self) -> np.ndarray:
        """float64[n], sums to 1: the square root of every item's train interactions."""
        counts = np.bincount(np.concatenate(self.histories), minlength=len(self.catalog)).astype(np.float64)
        out: np.ndarray = np.sqrt(counts) / np.sqrt(counts).sum()
        return out

    def name(self, row: int, rng: np.random.Generator) -> str:
        """The title of an item as people write it: mostly with its year, sometimes without, sometimes in lower case."""
        title = self.catalog[row].title if rng.random() < 0.4 else self.catalog.label(row)
        return title.lower() if rng.random() < 0.15 else title


def pick(options: Sequence[str], rng: np.random.Generator) -> str:
    """One of several phrasings."""
    return options[int(rng.integers(len(options)))]


def for_domain(phrases: Sequence[str], domain: str) -> tuple[str, ...]:
    """The phrasings that speak of the catalogue's kind of item: nobody has `seen` a book."""
    return tuple(phrase for phrase in phrases if fits_domain(phrase, domain))


def verb_slots(domain: str) -> dict[str, Slot]:
    """Slots for what one does with the catalogue's items: do, does, did, done."""
    return {**asdict(domain_verbs(domain))}


def liked_slots(names: Sequence[str]) -> dict[str, Slot]:
    """Slots for titles that are liked, and for the words whose number they set."""
    one = len(names) == 1
    return {
        "liked": join_words(names),
        "were": "was" if one else "were",
        "my_favourites": "My favourite is" if one else "My favourites are",
    }


def excluded_slots(tag: str) -> dict[str, Slot]:
    """Slots for a tag of which there should be less."""
    return {"tag": tag, "less": "Fewer" if is_plural(tag) else "Less"}


def wish_sentence(phrase: str, wished: str, domain: str) -> str:
    """A wish as a sentence."""
    sentence = phrase.format(wish=wished, **verb_slots(domain))
    return sentence[:1].upper() + sentence[1:]


def item_question(phrase: str, slots: Mapping[str, Slot], row: int) -> list[Message]:
    """A question whose answer is one item."""
    return [Message("user", fill_template(phrase, slots)), Message("assistant", (ItemRef(row, loss=True),))]


def random_positions(
    context: TaskContext, rng: np.random.Generator, least: int
) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """For ever: a random user's rows and vectors and a random place in them, of users with at least `least` items."""
    users = np.flatnonzero([len(rows) >= least for rows in context.histories])
    users = users if len(users) else np.flatnonzero([len(rows) >= 2 for rows in context.histories])
    while True:
        user = int(rng.choice(users))
        rows = context.histories[user]
        yield rows, context.vectors[user], int(rng.integers(1, len(rows)))
