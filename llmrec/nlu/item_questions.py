"""What a question about an item asks for: `who directed it?` asks for the director, `is it scary?` for its fright."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import yaml

from llmrec.data.catalog import Catalog

PREMISE = "premise"  # the item's text, which is no attribute


@dataclass(frozen=True)
class ItemQuestion:
    """What is asked about items.

    Attributes:
        fields: attributes of the catalogue, and `premise` for its text.
        missing: fields asked for that this catalogue does not have, by name.
        unknown: what is asked for and no catalogue of items holds, in words.
    """

    fields: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.fields or self.missing or self.unknown)


@cache
def _patterns() -> tuple[Mapping[str, re.Pattern[str]], Mapping[str, re.Pattern[str]]]:
    raw = yaml.safe_load((files("llmrec.nlu") / "item_questions.yaml").read_text("utf-8"))
    return tuple(  # type: ignore[return-value]
        {name: re.compile("|".join(forms)) for name, forms in raw[part].items()} for part in ("fields", "unknown")
    )


def item_question(text: str, catalog: Catalog) -> ItemQuestion:
    """Read what is asked for; empty when nothing is named.

    Args:
        text: lower case, with straight apostrophes.
        catalog: attributes of its own (`what is the price of it?`) are understood by their names, too.
    """
    fields, unknown = _patterns()
    own = set(catalog.attribute_names)
    has_text = any(item.text for item in catalog.items)
    asked = [name for name, pattern in fields.items() if pattern.search(text)]
    asked += [name for name in own - fields.keys() if re.search(rf"\b{re.escape(name.replace('_', ' '))}s?\b", text)]
    there = [name for name in asked if name in own or (name == PREMISE and has_text)]
    outside = tuple(what for what, pattern in unknown.items() if pattern.search(text) and not there)
    missing = tuple(name for name in asked if name not in there)
    return ItemQuestion(tuple(there), () if there or outside else missing, outside)
