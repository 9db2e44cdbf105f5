"""Writes dialogues of two to six turns for a simulated user, from a catalogue and a seed.

Every dialogue has a goal: one item that the visitor would accept. All requests are true of the goal, so that each of
them can be met. Rare values are requested as often as common ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from rapidfuzz import process
from rapidfuzz.distance import OSA

from llmrec.data.catalog import Catalog
from llmrec.data.titles import title_key
from llmrec.errors import RequestError
from llmrec.eval.conversation.phrasings import ASIDE, ENDINGS, LAST, PAIRS, PLACES, POLITE, is_held_out, phrasings_of
from llmrec.eval.conversation.user_state import Step, UserState
from llmrec.eval.grounding.requests import Constraint
from llmrec.eval.kind_attribute import kind_attribute
from llmrec.eval.stability import paraphrases
from llmrec.eval.stability.paraphrases import Nouns
from llmrec.nlu.wording import fits_domain, lower_in_sentence, with_article

MISSPELT = 0.3  # share of long titles typed with a misspelling
DATED = 0.25  # share of titles typed with their year
LOWER, SHOUTED, POLITELY, BARE, ENDED = 0.25, 0.03, 0.15, 0.15, 0.12
OTHER_WORDS = 0.3  # share of values and decades expressed in other words than the catalogue's
FAR = 3  # minimum edit distance between a misspelt title and any other title
LONG = 8  # minimum length in letters of a title that may be misspelt


@dataclass(frozen=True)
class Dialogue:
    """The messages of one visitor.

    Attributes:
        number: its index in the suite.
        user: number of a user of the log whose history is known, or -1 for a new visitor.
        history: that user's rows.
        steps: in order.
    """

    number: int
    user: int
    history: tuple[int, ...]
    steps: tuple[Step, ...]


@dataclass
class DialogueWorld:
    """What the writer needs to know of a catalogue, computed once."""

    catalog: Catalog
    nouns: Nouns
    tag: str
    having: dict[str, list[int]]
    keys: list[str]
    titled: list[int]
    twins: list[tuple[int, int]]
    goals: dict[int, set[str]] = field(default_factory=dict)

    @staticmethod
    def of(catalog: Catalog) -> DialogueWorld:
        """Request values of the attribute that says what kind an item is; collect titles that can be typed."""
        tag = kind_attribute(catalog)
        if tag is None:
            raise RequestError(
                f"no attribute of these {catalog.domain} says what kind they are, so none can be asked for"
            )
        having: dict[str, list[int]] = {value: [] for value in catalog.values(tag)}
        for row in range(len(catalog)):
            for value in _values(catalog, tag, row):
                having[value].append(row)
        keys = [title_key(item.title) for item in catalog.items]
        titled = [row for row, item in enumerate(catalog.items) if _typed(item.title) and keys.count(keys[row]) == 1]
        return DialogueWorld(catalog, Nouns.of(catalog), tag, having, keys, titled, _twins(catalog, keys))

    def values(self, row: int) -> tuple[str, ...]:
        """Values of an item."""
        return _values(self.catalog, self.tag, row)

    def year(self, row: int) -> int | None:
        """Year of an item."""
        year = self.catalog[row].attributes.get("year")
        return int(year) if isinstance(year, int | float) else None


def _values(catalog: Catalog, name: str, row: int) -> tuple[str, ...]:
    value = catalog[row].attributes.get(name)
    return value if isinstance(value, tuple) else ()


def _typed(title: str) -> bool:
    """True for a title that people would type in full: short, without brackets, and not a number alone."""
    return len(title) > 2 and len(title.split()) <= 6 and not set(title) & set("()[]") and not title.isdigit()


def _twins(catalog: Catalog, keys: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs of items that share a title and differ in year."""
    rows: dict[str, list[int]] = {}
    for row, key in enumerate(keys):
        rows.setdefault(key, []).append(row)
    pairs = [(own[0], own[1]) for own in rows.values() if len(own) == 2]
    years = [[catalog[row].attributes.get("year") for row in pair] for pair in pairs]
    return [
        pair for pair, (a, b) in zip(pairs, years, strict=True) if isinstance(a, int) and isinstance(b, int) and a != b
    ]


@dataclass
class DialogueWriter:
    """Writes one dialogue; `state` is kept up to date except for the shown items, which are known only when playing."""

    world: DialogueWorld
    rng: np.random.Generator
    goal: int
    state: UserState
    aside: bool = False  # use held-out wordings wherever an act has some
    steps: list[Step] = field(default_factory=list)
    passes: int = 0

    # -- wording

    def pick(self, options: Sequence[str]) -> str:
        """Draw one of several options."""
        return str(options[int(self.rng.integers(len(options)))])

    def chance(self, share: float) -> bool:
        """True with that probability."""
        return bool(self.rng.random() < share)

    def say(self, act: str, meant: Step, **slots: str) -> Step:
        """Fill a wording of an act, typed in the visitor's own style."""
        said = phrasings_of(act)
        there = [i for i in range(len(said)) if is_held_out(act, i) == (self.aside and act in ASIDE)]
        there = [i for i in there if fits_domain(said[i], self.world.nouns.things)]
        usable = [i for i in there if all(f"{{{s}}}" not in said[i] or s in slots for s in _SLOTS)]
        wording = int(usable[int(self.rng.integers(len(usable)))])
        text = self.world.nouns.fill(said[wording], **{**dict.fromkeys(_SLOTS, ""), **slots})
        own = said[wording][0] != "{" or said[wording].startswith("{a_thing}")
        return replace(meant, act=act, wording=wording, text=self.manner(" ".join(text.split()), own))

    def manner(self, text: str, own: bool = True) -> str:
        """Apply case, politeness and punctuation as people type them.

        `own` is false if the text begins with the content of a slot.
        """
        text = text.replace(" .", ".").replace(" ?", "?").replace(" ,", ",")
        if self.chance(POLITELY) and text[0] != "#":
            lead = self.pick(POLITE)
            first = text.split()[0]
            text = lead + (text if first in {"I", "I'm", "I'd", "I've"} or not own else text[0].lower() + text[1:])
        if self.chance(BARE) and text[-1] in ".!":
            text = text[:-1]
        elif self.chance(ENDED) and text[-1] in ".":
            text = text[:-1] + self.pick(ENDINGS)
        if self.chance(LOWER):
            return text.lower()
        return text.upper() if self.chance(SHOUTED) else text

    def title(self, row: int, plain: bool = False) -> tuple[str, bool]:
        """Return a title as typed, and whether it is misspelt; with its year if another item has the same title."""
        title, year = self.world.catalog[row].title, self.world.year(row)
        if self.world.keys.count(self.world.keys[row]) > 1:
            return f"{title} ({year})", False
        if not plain and len(title) >= LONG and self.chance(MISSPELT) and self._alone(row):
            slipped = paraphrases.typos(title, self.rng)
            return slipped, slipped != title
        return (f"{title} ({year})", False) if year and not plain and self.chance(DATED) else (title, False)

    def _alone(self, row: int) -> bool:
        """True if no other title is close enough to be meant by a misspelling of this one."""
        key = self.world.keys[row]
        near = process.extract(key, self.world.keys, scorer=OSA.distance, limit=2, score_cutoff=FAR + 1)
        return len(near) == 1 and not any(char.isdigit() for char in key)

    def tagged(self, value: str) -> dict[str, str]:
        """Slots for a value: `tagged` and `tag`."""
        other = self.chance(OTHER_WORDS)
        word = lower_in_sentence(value)
        return {"tagged": self.world.nouns.of_value(value, other), "tag": word, "a_tag": with_article(word)}

    def place(self, position: int) -> str:
        """Express a position in words."""
        forms = LAST if position < 0 else PLACES[position - 1]
        return self.pick(forms).format(thing=self.world.nouns.thing)

    # -- what is possible now

    def room(self) -> int:
        """Minimum number of items on the displayed list."""
        left = int(self.state.available(self.world.catalog).sum()) - self.passes * self.state.count
        return max(0, min(left - 3, self.state.count))

    def wanted(self) -> list[str]:
        """Values requested."""
        return [one.value for one in self.state.constraints if one.kind == "tag"]

    def unwanted(self) -> list[str]:
        """Values excluded."""
        return [one.value for one in self.state.constraints if one.kind == "not"]

    def ranged(self) -> bool:
        """True if some years are excluded already, including by reference to an item."""
        return bool(self.dated()) or any(step.side for step in self.steps)

    def dated(self) -> list[Constraint]:
        """Ranges of years requested."""
        return [one for one in self.state.constraints if one.kind == "year"]

    def took(self, step: Step) -> None:
        """Append a step; references to the list change the state only when they are played."""
        self.steps.append(step)
        self.state = self.state.after(replace(step, places=(), fresh=False), self.world.catalog)
        self.passes += step.fresh


_SLOTS = ("tagged", "tag", "a_tag", "years", "title", "titles", "place", "n", "but", "year", "age")


def year_range(writer: DialogueWriter, year: int) -> Constraint:
    """A range that contains the year, worded to follow a noun and to state whether its ends count."""
    rng, start = writer.rng, year // 10 * 10
    before, after = year + int(rng.integers(1, 9)), year - int(rng.integers(1, 9))
    low, high = year - int(rng.integers(0, 7)), year + int(rng.integers(1, 7))
    decade = paraphrases.decade(start, writer.chance(OTHER_WORDS))
    forms = (
        (start, start + 9, f"from {decade}"), (start, start + 9, f"made in {decade}"),
        (-np.inf, before - 1, f"made before {before}"), (-np.inf, before - 1, f"older than {before}"),
        (-np.inf, before, f"no later than {before}"), (-np.inf, before, f"up to {before}"),
        (after + 1, np.inf, f"released after {after}"), (after + 1, np.inf, f"newer than {after}"),
        (low, np.inf, f"from {low} or later"), (low, np.inf, f"no older than {low}"), (low, np.inf, f"since {low}"),
        (low, high, f"between {low} and {high}"), (low, high, f"from {low} to {high}"),
    )  # fmt: skip
    bottom, top, words = forms[int(rng.integers(len(forms)))]
    return Constraint("year", "year", low=bottom, high=top, words=words)


def list_positions(writer: DialogueWriter, most: int) -> tuple[str, tuple[int, ...]]:
    """One position on the list, sometimes two, with its wording."""
    if most >= 2 and writer.chance(0.2):
        first, second = sorted(int(p) for p in writer.rng.choice(most, 2, replace=False) + 1)
        return writer.pick(PAIRS).format(writer.place(first), writer.place(second)), (first, second)
    if writer.chance(0.12):
        return writer.place(-1), (-1,)
    position = int(writer.rng.integers(1, most + 1))
    return writer.place(position), (position,)
