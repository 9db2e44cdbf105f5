"""Parses recipe overrides from the command line (`--set schedule.tokens=120000`): dotted keys, typed by the recipe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from difflib import get_close_matches
from typing import Any

import yaml

from llmrec.errors import RecipeError

Schema = Mapping[str, Any]  # JSON schema
_SCALARS = {"integer", "number", "string", "boolean"}


def parse_overrides(changes: Sequence[str], schema: Schema, tasks: Sequence[str]) -> dict[str, Any]:
    """Parse `key=value` strings into a mapping from dotted key to value; the last value of a key wins.

    Scalar values stay strings, which the recipe's validation converts. Lists and mappings are parsed as YAML.

    Args:
        changes: the strings given to `--set`.
        schema: JSON schema of a recipe.
        tasks: task names allowed below `traffic.shares`.

    Raises:
        RecipeError: a string has no `=`, a key is unknown (the message names the closest ones) or is a section, or a
            list is not valid YAML.
    """
    keys = dict(_keys(schema, schema.get("$defs", {}))) | {f"traffic.shares.{task}": True for task in tasks}
    found: dict[str, Any] = {}
    for change in changes:
        key, equals, text = change.partition("=")
        key = key.strip()
        if not equals:
            raise RecipeError(f"--set {change[:80]!r} should be key=value, such as schedule.tokens=120000")
        if key not in keys:
            raise RecipeError(f"--set {change[:80]}: {_unknown(key, keys)}")
        try:
            found[key] = text.strip() if keys[key] else yaml.safe_load(text)
        except (yaml.YAMLError, ValueError, RecursionError):
            raise RecipeError(f"--set {key}: {text[:80]!r} is not YAML; a list is written [a, b]") from None
    return found


def apply_overrides(data: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a recipe's plain values with these dotted keys replaced."""
    out = deepcopy(dict(data))
    for key, value in changes.items():
        *sections, last = key.split(".")
        place = out
        for section in sections:
            inner = place.get(section)
            place[section] = inner if isinstance(inner, dict) else {}
            place = place[section]
        place[last] = value
    return out


def _keys(schema: Schema, defs: Schema, before: str = "") -> Iterator[tuple[str, bool]]:
    """Yield (dotted key, whether its value is a scalar) for everything that can be set."""
    for name, inner in schema.get("properties", {}).items():
        whole = _resolved(inner, defs)
        if "properties" in whole:
            yield from _keys(whole, defs, f"{before}{name}.")
        else:
            yield f"{before}{name}", whole.get("type") in _SCALARS or "enum" in whole or "const" in whole


def _resolved(schema: Schema, defs: Schema) -> Schema:
    reference = schema.get("$ref") or next((one["$ref"] for one in schema.get("allOf", ()) if "$ref" in one), None)
    return defs[reference.rsplit("/", 1)[-1]] if reference else schema


def _unknown(key: str, keys: Mapping[str, bool]) -> str:
    if inside := [one for one in keys if one.startswith(f"{key}.")]:
        return f"{key} is a section; set one of its keys: {', '.join(inside)}"
    close = get_close_matches(key, keys, 3, 0.6)
    # a key without its section, or in the wrong one
    close += [one for one in keys if one.rsplit(".", 1)[-1] == key.rsplit(".", 1)[-1] and one not in close]
    return f"a recipe has no key {key!r}; " + (
        f"the closest: {', '.join(close[:3])}" if close else "llmrec recipe show NAME prints them all"
    )
