"""Prompt templates: one YAML file per purpose in `llmrec.prompts`, with several phrasings and named slots each."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from string import Formatter

import yaml

from llmrec.errors import RecipeError
from llmrec.lm.rendering import ItemRef, Part, Text, UserRef

Slot = str | Part | tuple[Part, ...]


@dataclass(frozen=True)
class Template:
    """The phrasings of one purpose; `assistant[i % len(assistant)]` is the answer to `user[i]`."""

    name: str
    user: tuple[str, ...]
    assistant: tuple[str, ...]


@cache
def load_template(name: str) -> Template:
    """Read `prompts/<name>.yaml`.

    Raises:
        RecipeError: there is no such template, or one of its slots is not a plain name.
    """
    source = files("llmrec.prompts") / f"{name}.yaml"
    if not name.isidentifier() or not source.is_file():
        raise RecipeError(f"no prompt template '{name}'; there are: {', '.join(template_names())}")
    data = yaml.safe_load(source.read_text(encoding="utf-8"))
    template = Template(name, tuple(data["user"]), tuple(data.get("assistant", ())))
    for phrase in (*template.user, *template.assistant):
        for _, slot, spec, conversion in Formatter().parse(phrase):
            if slot is not None and (not slot.isidentifier() or spec or conversion):
                raise RecipeError(f"prompt template '{name}': slot '{{{slot}}}' must be a plain name")
    return template


def template_names() -> list[str]:
    """Names of all templates."""
    return sorted(p.name.removesuffix(".yaml") for p in files("llmrec.prompts").iterdir() if p.name.endswith(".yaml"))


# Templates used when a model is served. The others only make training data, and are part of a training run's
# fingerprint.
SERVED = ("next_item", "system", "talk", "wish")


@cache
def templates_hash(of: tuple[str, ...] = SERVED) -> str:
    """Return a hash of templates. It is part of a model's fingerprints, because models learn their exact wording."""
    digest = hashlib.sha256()
    for name in of:
        digest.update(name.encode() + b"\0" + (files("llmrec.prompts") / f"{name}.yaml").read_bytes() + b"\0")
    return digest.hexdigest()


def fill_template(phrase: str, slots: Mapping[str, Slot], loss: bool = False) -> tuple[Part, ...]:
    """Fill the named slots of one phrasing. Slot values are never parsed for slots.

    `loss` applies to the literal text and to values that are strings; values that are parts keep their own `loss`.

    Raises:
        RecipeError: a slot has no value.
    """
    parts: list[Part] = []
    for literal, slot, _, _ in Formatter().parse(phrase):
        if literal:
            parts.append(Text(literal, loss))
        if slot is None:
            continue
        if slot not in slots:
            raise RecipeError(f"prompt slot '{{{slot}}}' has no value; given: {', '.join(sorted(slots))}")
        value = slots[slot]
        if isinstance(value, str):
            parts.append(Text(value, loss))
        elif isinstance(value, Text | ItemRef | UserRef):
            parts.append(value)
        else:
            parts.extend(value)
    return _join(parts)


def _join(parts: list[Part]) -> tuple[Part, ...]:
    """Join adjacent texts, so that a phrase is tokenised the same with and without slots."""
    out: list[Part] = []
    for part in parts:
        last = out[-1] if out else None
        if isinstance(part, Text) and isinstance(last, Text) and part.loss == last.loss:
            out[-1] = Text(last.text + part.text, part.loss)
        else:
            out.append(part)
    return tuple(out)


def without_control_tokens(text: str) -> str:
    """Return a text for another model without anything that its chat template could read as a control token.

    These differ between templates: `<|im_end|>`, `<s>`, `<start_of_turn>`, `[INST]`.
    """
    return re.sub(r"\[(?=/?[A-Z_]+\])", "(", text.replace("<", "\u2039"))
