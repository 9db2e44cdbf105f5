"""`llmrec feedback`: counts the reactions of visitors or exports them as preference pairs."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from llmrec.app.cli.printing import Json, echo, print_values
from llmrec.errors import UserError

feedback_app = typer.Typer(help="Show or export the reactions of visitors.", no_args_is_help=True)
File = Annotated[Path | None, typer.Option("--file", help="Feedback file; the one of the server by default.")]


@feedback_app.command(epilog="Example: llmrec feedback export --out pairs.jsonl --data ml-100k")
def export(
    out: Annotated[Path, typer.Option(help="JSON Lines file to write: prompt, chosen, rejected and the item ids.")],
    file: File = None,
    data: Annotated[str | None, typer.Option(help="Prepared data, or ml-100k, to write titles instead of ids.")] = None,
) -> None:
    """Export preference pairs: a liked item over a disliked one, and over items above it that were passed over."""
    from llmrec.app.server.feedback import read_reactions
    from llmrec.app.server.preferences import preference_pairs, why_no_pairs
    from llmrec.data.dataset import open_data
    from llmrec.storage.artifacts import write_bytes_atomic

    catalog = open_data(data)[0] if data else None
    path = _path(file)
    found = list(read_reactions(path))
    rows = [one.values() for one in preference_pairs(found, catalog)]
    write_bytes_atomic(out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
    echo(f"{len(rows)} preference pairs in {out}" + ("" if rows else f": {why_no_pairs(found)} (read from {path})"))


@feedback_app.command(epilog="Example: llmrec feedback show")
def show(
    file: File = None,
    as_json: Json = False,
) -> None:
    """Count reactions, visitors and lists, and the reactions that come with text."""
    from llmrec.app.server.feedback import read_reactions

    found = list(read_reactions(_path(file)))
    counts: dict[str, int] = {
        "reactions": len(found),
        "visitors": len({one.visitor for one in found}),
        "lists": len({(one.visitor, one.shown) for one in found}),
        "with_words": sum(one.words is not None for one in found),
        **dict(sorted(Counter(one.reaction for one in found).items())),
    }
    print_values(counts, as_json)


def _path(given: Path | None) -> Path:
    from llmrec.app.server.settings import load_settings

    path = given or load_settings().feedback
    if path == "off":
        raise UserError(
            "feedback is off in the settings (LLMREC_FEEDBACK or feedback in the configuration file), so nothing was "
            "kept: name an earlier file with --file"
        )
    return Path(path)
