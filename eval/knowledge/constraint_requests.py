"""Requests with one condition that only notes can satisfy, and the suite's own check of the lists."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from llmrec.data.catalog import Catalog, Item
from llmrec.eval.knowledge.wordings import wordings
from llmrec.nlu.attribute_phrases import clause

_WORDINGS = "knowledge-requests"
LEAST = 3  # minimum number of items with a drawn value
TARGET_KINDS = (
    "actor",
    "director",
    "country",
    "audience_small",
    "audience_family",
    "violence",
    "fright",
    "sex",
    "minutes_below",
    "minutes_above",
)
_DEMONYMS = {
    "France": "French", "Italy": "Italian", "Germany": "German", "Japan": "Japanese", "UK": "British",
    "Ireland": "Irish", "Spain": "Spanish", "Sweden": "Swedish", "Denmark": "Danish", "Russia": "Russian",
    "China": "Chinese", "Australia": "Australian", "Canada": "Canadian", "Mexico": "Mexican", "Iran": "Iranian",
    "Poland": "Polish", "Netherlands": "Dutch", "India": "Indian",
}  # fmt: skip
_HOURS = {90: "an hour and a half", 120: "two hours", 150: "two and a half hours"}
_GROUPS = {"audience_small": "small children", "audience_family": "family"}
_MILD = 1
Check = Callable[[Item], bool]


@dataclass(frozen=True)
class ConstraintRequest:
    """A request, and whether each item satisfies it."""

    kind: str
    text: str
    satisfied: Check


def draw_requests(catalog: Catalog, seed: int) -> list[ConstraintRequest]:
    """Draw one request for every wording whose attribute has a value that enough items have."""
    rng = np.random.default_rng(seed)
    drawn = []
    for kind, forms in wordings(_WORDINGS).items():
        for form in forms:
            found = _drawn(catalog, kind, form, rng)
            if found is not None:
                drawn.append(found)
    return drawn


def _drawn(catalog: Catalog, kind: str, form: str, rng: np.random.Generator) -> ConstraintRequest | None:
    name = kind.partition("_")[0]
    if name not in catalog.attribute_names:
        return None
    if kind in _GROUPS:
        return ConstraintRequest(kind, form, _having(name, _GROUPS[kind]))
    if name == "minutes":
        minutes = int(rng.choice(list(_HOURS)))
        text = form.replace("{minutes}", str(minutes)).replace("{hours}", _HOURS[minutes])
        below = kind.endswith("below")
        return ConstraintRequest(kind, text, _within(name, None if below else minutes, minutes if below else None))
    if name in ("violence", "fright", "sex"):
        return ConstraintRequest(kind, form, _within(name, None, _MILD))
    values = _values(catalog, name)
    if not values:
        return None
    value = str(rng.choice(values))
    slots = {
        "person": value,
        "country": _said(name, value),
        "demonym": _DEMONYMS.get(value, ""),
        name: _said(name, value),
    }
    text = form
    for slot, words in slots.items():
        text = text.replace(f"{{{slot}}}", words)
    return ConstraintRequest(kind, text, _having(name, value))


def _values(catalog: Catalog, name: str) -> list[str]:
    """Values that enough items have and that can be worded: countries by adjective, others by a plain clause."""
    counts: dict[str, int] = {}
    for item in catalog.items:
        value = item.attributes.get(name)
        for one in value if isinstance(value, tuple) else ():
            counts[one] = counts.get(one, 0) + 1
    enough = [one for one in catalog.values(name) if counts.get(one, 0) >= LEAST]
    if name == "country":
        return [one for one in enough if one in _DEMONYMS]
    heads = {"theme": "about ", "period": "set in ", "place": "set in ", "source": "based on "}
    return [one for one in enough if name not in heads or clause(name, (one,)).startswith(heads[name])]


def _said(name: str, value: str) -> str:
    said = clause(name, (value,))
    for head in ("about ", "set in ", "based on ", "from ", "with ", "directed by "):
        said = said.removeprefix(head)
    return said


def _having(name: str, value: str) -> Check:
    def check(item: Item) -> bool:
        own = item.attributes.get(name)
        return isinstance(own, tuple) and value in own

    return check


def _within(name: str, low: float | None, high: float | None) -> Check:
    def check(item: Item) -> bool:
        own = item.attributes.get(name)
        number = isinstance(own, int | float)
        return number and (low is None or float(str(own)) >= low) and (high is None or float(str(own)) <= high)

    return check
