"""`llmrec items enrich` and `llmrec items annotate`: have a language model write notes, and merge notes into data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmrec.app.cli.printing import Json, echo, print_values
from llmrec.errors import RequestError

if TYPE_CHECKING:
    from llmrec.lifecycle.enrich import Enriched

_SAMPLE = 5

Data = Annotated[str, typer.Option(help="Prepared data whose items are meant.")]


def enrich(
    data: Data,
    out: Annotated[Path, typer.Option(help="Notes file to write, as JSON lines.")],
    backend_url: Annotated[str, typer.Option(help="OpenAI-compatible server, such as http://127.0.0.1:8000/v1.")] = "",
    backend_model: Annotated[str, typer.Option(help="Name that the server knows the model by.")] = "",
    schema: Annotated[str, typer.Option(help="What a note may say: film, or a YAML file.")] = "film",
    limit: Annotated[int | None, typer.Option(min=1, help="Most items to ask about in this run.")] = None,
    seconds: Annotated[float, typer.Option(min=1, max=600, help="Longest wait for one answer.")] = 60,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Ask nothing: say how many tokens it would take.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Write all notes, not a sample for review.")] = False,
    as_json: Json = False,
) -> None:
    """Have a language model write a note on every item: typed attributes and a sentence, as far as it knows.

    Without --yes a few notes are written and shown. Look at them before you pay for the rest. A run that was stopped
    goes on where it was. The server's key, if it needs one, is read from LLMREC_BACKEND_KEY.
    """
    from llmrec.app.llm_backend.completion import completer
    from llmrec.app.llm_backend.stream import Endpoint
    from llmrec.app.server.settings import load_settings
    from llmrec.data.dataset import open_data
    from llmrec.data.item_notes import load_schema
    from llmrec.lifecycle import enrich as notes
    from llmrec.progress import Screen

    catalog, _ = open_data(data)
    fields = load_schema(schema)
    if dry_run:
        print_values(notes.estimate(catalog, fields, notes.missing(catalog, out, fields)[:limit]), as_json)
        return
    if not yes:
        limit = _SAMPLE if limit is None else min(limit, _SAMPLE)
    settings = load_settings(backend_url=backend_url or None, backend_model=backend_model or None)
    if not settings.backend_url:
        raise RequestError("say with --backend-url where the server is, and with --backend-model which model to ask")
    key = settings.backend_key.get_secret_value() if settings.backend_key else ""
    complete = completer(Endpoint(settings.backend_url, settings.backend_model, key, seconds))
    with Screen() as say:
        done = notes.enrich(catalog, fields, schema, settings.backend_model, complete, out, limit, say)
    _tell(done, out, as_json)


def _tell(done: Enriched, out: Path, as_json: bool) -> None:
    from llmrec.lifecycle.enrich import draft_of

    if not as_json:
        for id, note in done.seen[:_SAMPLE]:
            echo(json.dumps({"id": id, **note}, ensure_ascii=False))
    place = draft_of(out) if done.left else out
    counts = {"written": done.written, "empty": done.empty, "failed": done.failed, "left": done.left}
    print_values({"notes": str(place), **counts, "refused": dict(done.refused)}, as_json)
    if done.left:
        echo(f"{done.left} items have no note yet: look at the ones above, then run again with --yes", err=True)


def annotate(
    data: Data,
    notes: Annotated[Path, typer.Option(help="Notes file, as `llmrec items enrich` writes it.")],
    out: Annotated[Path, typer.Option(help="Prepared data to write.")],
    as_json: Json = False,
) -> None:
    """Merge a notes file into prepared data; its own text and attributes go before the notes."""
    from dataclasses import replace

    from llmrec.data.dataset import check_writable, dataset_directory, load_data, save_data
    from llmrec.data.item_notes import read_notes, with_notes

    check_writable(out)
    catalog, interactions, report = load_data(dataset_directory(data))
    found = read_notes(notes)
    noted = with_notes(catalog, found)
    said = f"{sum(map(bool, found.notes.values()))} items have notes, written by {found.by}"
    save_data(out, noted, interactions, replace(report, notes=(*report.notes, said)))
    new = sorted({*noted.attribute_names} - {*catalog.attribute_names})
    print_values({"out": str(out), "noted": said, "new_attributes": new}, as_json)
