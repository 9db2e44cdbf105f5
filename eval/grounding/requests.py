"""Generates requests with constraints from the catalogue by seed, and checks items against them independently.

The product's parser is not used: the meaning of a constraint is fixed when its words are generated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llmrec.data.catalog import Catalog, Item
from llmrec.data.interactions import Split
from llmrec.eval.kind_attribute import kind_attribute
from llmrec.eval.metrics import Rows
from llmrec.eval.stability import paraphrases
from llmrec.eval.stability.paraphrases import Nouns
from llmrec.eval.stability.request_variants import plain_titles
from llmrec.nlu.wording import lower_in_sentence, with_article

LEVELS = (1, 2, 3)
LIKE_EVERY = 4  # one request in this many has the form "like A but B"
LEFT_OUT = 0.2  # minimum share of the catalogue that a range of years excludes
OTHER_WORDS = 0.2  # share of constraints expressed in other words than the catalogue's
# Combinations of constraint kinds in one request, by the number of constraints.
SHAPES: dict[int, tuple[tuple[str, ...], ...]] = {
    1: (("tag",), ("year",), ("not",)),
    2: (("tag", "year"), ("tag", "not"), ("year", "not"), ("tag", "tag"), ("not", "not")),
    3: (("tag", "year", "not"), ("tag", "tag", "year"), ("tag", "tag", "not"), ("tag", "not", "not"),
        ("year", "not", "not")),
}  # fmt: skip


@dataclass(frozen=True)
class Constraint:
    """A constraint on an item's fields: `tag` requires the value, `not` excludes it, `year` requires low..high."""

    kind: str
    attribute: str
    value: str = ""
    low: float = -np.inf
    high: float = np.inf
    words: str = ""

    def holds(self, item: Item) -> bool:
        """True if the item's catalogue fields satisfy the constraint; an item without a year satisfies no range."""
        field = item.attributes.get(self.attribute)
        if self.kind == "year":
            return isinstance(field, int | float) and self.low <= field <= self.high
        values = field if isinstance(field, tuple) else () if field is None else (str(field),)
        return (self.value in values) == (self.kind == "tag")


@dataclass(frozen=True)
class Demand:
    """A request in natural language, and its constraints.

    Attributes:
        user: user number; the chat knows the user's history up to the held-out item.
        history: the rows of that history.
        text: the message.
        constraints: 1 to 3 constraints.
        like: the row named in "like A but B", or -1.
        fits: number of items unknown to the user that satisfy all constraints.
    """

    user: int
    history: tuple[int, ...]
    text: str
    constraints: tuple[Constraint, ...]
    like: int = -1
    fits: int = 0

    def satisfied(self, item: Item) -> bool:
        """True if an item satisfies every constraint."""
        return all(one.holds(item) for one in self.constraints)


def draw_demands(catalog: Catalog, split: Split, users: Rows, level: int, seed: int) -> list[Demand]:
    """Return one demand with `level` constraints for each user; none if the catalogue lacks such fields.

    Constraints are taken from an item that the user does not know, so that every demand can be met. A tag is drawn
    uniformly and then an item with that tag, so rare tags are requested as often as common ones. Exclusions are drawn
    by frequency, and a range of years excludes at least a fifth of the catalogue. A list that ignores the message then
    rarely satisfies the constraints by chance (that chance is measured as well).
    """
    plain = sorted(plain_titles(catalog))
    shapes = [shape for shape in SHAPES[level] if _possible(catalog, shape)]
    out = []
    for place, user in enumerate(users.tolist() if shapes else []):
        rng = np.random.default_rng([seed, level, user])
        history = tuple(int(row) for row in split.history(user, "test"))
        like = int(rng.choice(plain)) if place % LIKE_EVERY == LIKE_EVERY - 1 and plain else -1
        constraints = _constraints(catalog, {*history, like}, shapes[place % len(shapes)], rng)
        if constraints:
            fits = sum(
                all(one.holds(item) for one in constraints)
                for row, item in enumerate(catalog.items)
                if row not in history and row != like
            )
            text = _sentence(catalog, constraints, like, rng)
            out.append(Demand(user, history, text, constraints, like, fits))
    return out


def _possible(catalog: Catalog, shape: Sequence[str]) -> bool:
    tags = kind_attribute(catalog)
    most = max((len(_values(item, tags)) for item in catalog.items), default=0) if tags else 0
    spare = len(catalog.values(tags)) - 1 if tags else 0
    years = "year" in catalog.attribute_names
    return shape.count("tag") <= most and shape.count("not") <= spare and ("year" not in shape or years)


def _values(item: Item, name: str | None) -> tuple[str, ...]:
    value = item.attributes.get(name) if name else None
    return value if isinstance(value, tuple) else ()


def _constraints(
    catalog: Catalog, known: set[int], shape: Sequence[str], rng: np.random.Generator
) -> tuple[Constraint, ...] | None:
    """Return constraints of this shape that some unknown item satisfies; None if none is found in a hundred draws."""
    tags = kind_attribute(catalog)
    values = list(catalog.values(tags)) if tags else []
    having = {value: [r for r, i in enumerate(catalog.items) if value in _values(i, tags)] for value in values}
    for _ in range(100):
        pool = [row for row in (having[str(rng.choice(values))] if values else range(len(catalog))) if row not in known]
        item = catalog[int(rng.choice(pool))] if pool else catalog[0]
        own = list(_values(item, tags))
        foreign = [value for value in values if value not in own]
        year = item.attributes.get("year")
        unfit = shape.count("tag") > len(own) or shape.count("not") > len(foreign)
        if not pool or unfit or ("year" in shape and not isinstance(year, int)):
            continue
        wanted = rng.permutation(own)[: shape.count("tag")].tolist()
        common = np.array([len(having[value]) for value in foreign], np.float64)
        gone = rng.choice(foreign, shape.count("not"), False, common / common.sum()).tolist() if "not" in shape else []
        found = [Constraint("tag", str(tags), value) for value in wanted]
        found += [_years(catalog, int(year), rng)] if "year" in shape and isinstance(year, int) else []
        return (*found, *(Constraint("not", str(tags), value) for value in gone))
    return None


def _years(catalog: Catalog, year: int, rng: np.random.Generator) -> Constraint:
    """A decade, an open range or a closed range that contains the year, worded to state whether its ends count."""
    start, other = year // 10 * 10, bool(rng.random() < OTHER_WORDS)
    before, after = year + int(rng.integers(1, 11)), year - int(rng.integers(1, 11))
    low, high = year - int(rng.integers(0, 8)), year + int(rng.integers(1, 8))
    forms = (
        (low, high, f"{'from' if other else 'made between'} {low} {'to' if other else 'and'} {high}"),
        (start, start + 9, f"from {paraphrases.decade(start, other)}"),
        (-np.inf, before - 1, f"{'older than' if other else 'made before'} {before}"),
        (after + 1, np.inf, f"{'newer than' if other else 'released after'} {after}"),
        (low, np.inf, f"from {low} or later"),
    )
    found = [Constraint("year", "year", low=bottom, high=top, words=words) for bottom, top, words in forms]
    telling = [one for one in found if np.mean([one.holds(item) for item in catalog.items]) <= 1 - LEFT_OUT]
    return telling[int(rng.integers(len(telling)))] if telling else found[0]


def _sentence(catalog: Catalog, constraints: Sequence[Constraint], like: int, rng: np.random.Generator) -> str:
    nouns = Nouns.of(catalog)
    tags = [one.value for one in constraints if one.kind == "tag"]
    years = "".join(f" {one.words}" for one in constraints if one.kind == "year")
    out = [lower_in_sentence(one.value) for one in constraints if one.kind == "not"]
    if like >= 0:
        return _like(catalog[like].title, nouns, tags, years, out, rng)
    head = _head(nouns, tags, rng) + years
    heads = ("{}", "Show me {}", "I would like {}", "Do you know {}", "I want to {verb} {}", "Recommend {}")
    lead = str(rng.choice(heads)).replace("{verb}", nouns.verb).format(head)
    lead = lead[:1].upper() + lead[1:]
    if out and rng.integers(3) == 0:  # a separate sentence
        opening = str(rng.choice(["I don't want", "Please leave out", "I can't stand"]))
        return f"{lead}{'?' if lead.startswith('Do you') else '.'} {opening} {' or '.join(out)}."
    return lead + _exclusion(out, rng) + ("?" if lead.startswith("Do you") else ".")


def _head(nouns: Nouns, tags: Sequence[str], rng: np.random.Generator) -> str:
    if not tags:
        return nouns.things
    if len(tags) == 1:
        return nouns.of_value(tags[0], bool(rng.random() < OTHER_WORDS))
    first, second = (lower_in_sentence(tag) for tag in tags)
    forms = (f"{nouns.things} that are both {first} and {second}", f"{first} {nouns.things} with {second}")
    return str(rng.choice(forms))


def _exclusion(values: Sequence[str], rng: np.random.Generator) -> str:
    """`, but not horror`, `, no horror and no war`; '' for nothing."""
    if not values:
        return ""
    opening = str(rng.choice([", but not", ", no", " without", ", but no"]))
    link = " and no " if opening.endswith(" no") else " or "
    return f"{opening} {link.join(values)}"


def _like(
    title: str, nouns: Nouns, tags: Sequence[str], years: str, out: Sequence[str], rng: np.random.Generator
) -> str:
    """Return a text of the form `Something like A but comedy from the 1990s and not horror.`."""
    wanted = " and ".join(lower_in_sentence(tag) for tag in tags)
    parts = [f"{wanted}{years}"] if tags else [years.strip()] if years else []
    parts += [f"not {' or '.join(out)}"] if out else []
    opening = str(
        rng.choice(["Something like", f"{nouns.things.capitalize()} like", f"I want {with_article(nouns.thing)} like"])
    )
    return f"{opening} {title} but {' and '.join(parts)}."
