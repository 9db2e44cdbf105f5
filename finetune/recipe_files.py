"""Lists the shipped recipe files by name and purpose, without the slow parsing of their settings."""

from __future__ import annotations

import re
from pathlib import Path

RECIPES = Path(__file__).parent / "recipes"


def recipe_names() -> list[str]:
    """Return the names of the shipped recipes."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def recipe_purpose(text: str) -> str:
    """Return the purpose of a recipe: the first sentence of the comment at the top of its file, or "" without one."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# ").strip())
    return re.split(r"(?<=\.)\s", " ".join(lines), maxsplit=1)[0]


def recipe_purposes() -> dict[str, str]:
    """Return a mapping from the name of each shipped recipe to its purpose."""
    return {name: recipe_purpose((RECIPES / f"{name}.yaml").read_text(encoding="utf-8")) for name in recipe_names()}
