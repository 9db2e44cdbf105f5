"""Words attribute values in English: as clauses after a noun, and as sentences about an item."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files

import yaml
from pydantic import BaseModel, ConfigDict

from llmrec.data.attribute_types import format_number
from llmrec.data.catalog import Item
from llmrec.data.filters import Value
from llmrec.nlu.wording import join_words


class Phrase(BaseModel):
    """How one attribute is worded; see `attribute_phrases.yaml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    clause: str = ""
    says: str = ""
    adjective: bool = False
    first: bool = False
    values: Mapping[str, str] = {}
    spelt: Mapping[str, str] = {}
    levels: tuple[str, ...] = ()


@cache
def phrases() -> Mapping[str, Phrase]:
    """Return the wording of each attribute, by attribute name."""
    source = files("llmrec.nlu") / "attribute_phrases.yaml"
    return {name: Phrase.model_validate(raw) for name, raw in yaml.safe_load(source.read_text("utf-8")).items()}


def says_kind(name: str) -> bool:
    """True for an attribute whose values say what kind of thing an item is: genre, category, tags."""
    return name not in phrases()


def kinds_of(item: Item) -> list[tuple[str, str]]:
    """Return (attribute, value) for all values that say what kind of thing an item is, in catalogue order."""
    fields = item.attributes.items()
    return [(name, one) for name, many in fields if isinstance(many, tuple) and says_kind(name) for one in many]


def adjectives_of(item: Item) -> list[str]:
    """Return the values that stand before the noun, such as moods."""
    found = (many for name, many in item.attributes.items() if isinstance(many, tuple) and is_adjective(name))
    return [one for many in found for one in many]


def is_adjective(name: str) -> bool:
    """True for an attribute whose values stand before the noun: a `funny` film."""
    return name in phrases() and phrases()[name].adjective


def clause(name: str, value: Value) -> str:
    """Return one or more values as a clause after the noun: `directed by John Ford`; "" if there is no wording."""
    phrase = phrases().get(name)
    if phrase is None:
        return f"with {name.replace('_', ' ')} {join_words(_texts(value))}"
    if phrase.levels:
        return _level(phrase, value)
    plain, own = _parted(phrase, value)
    return join_words([*([phrase.clause.format(join_words(plain))] if plain else []), *own])


def statement(name: str, value: Value) -> str:
    """Return one or more values as a predicate after the title: `was directed by John Ford`, `is not frightening`."""
    phrase = phrases().get(name)
    if phrase is None:
        return f"has {name.replace('_', ' ')} {join_words(_texts(value))}"
    if phrase.levels:
        return _verbal(_level(phrase, value))
    plain, own = _parted(phrase, value)
    return join_words([*([phrase.says.format(join_words(plain))] if plain else []), *map(_verbal, own)])


def _level(phrase: Phrase, value: Value) -> str:
    return phrase.levels[value] if isinstance(value, int) and 0 <= value < len(phrase.levels) else ""


def _parted(phrase: Phrase, value: Value) -> tuple[list[str], list[str]]:
    """Return the values as they are spelt in the attribute's phrase, and the clauses of values that have their own."""
    shown = _texts(value)[:1] if phrase.first else _texts(value)
    plain = [phrase.spelt.get(one, one) for one in shown if one not in phrase.values]
    return plain, [phrase.values[one] for one in shown if one in phrase.values]


def _texts(value: Value) -> list[str]:
    if isinstance(value, tuple):
        return list(value)
    return [value if isinstance(value, str) else format_number(value)]


def _verbal(said: str) -> str:
    """Turn a clause after a noun into a predicate after a title: `that is a remake` becomes `is a remake`."""
    for head, verb in (("that ", ""), ("without ", "has no "), ("with ", "has ")):
        if said.startswith(head):
            return f"{verb}{said.removeprefix(head)}"
    return f"is {said}" if said else ""
