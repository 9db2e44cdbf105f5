"""Held-out wordings of the knowledge suite's questions and requests; their author had not seen the program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files

import yaml


@cache
def wordings(name: str) -> Mapping[str, Sequence[str]]:
    """Read `eval/tasks/<name>.yaml`, which maps each field or kind to wordings with slots."""
    source = files("llmrec.eval") / "tasks" / f"{name}.yaml"
    found: Mapping[str, Sequence[str]] = yaml.safe_load(source.read_text("utf-8"))
    return found
