"""`llmrec data`: prepares, checks and extends data, and shows or exports training examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmrec.app.cli.printing import Json, echo, print_values
from llmrec.errors import RequestError
from llmrec.storage.locks import output_lock

if TYPE_CHECKING:
    from llmrec.data.catalog import Catalog
    from llmrec.data.interactions import Interactions
    from llmrec.data.readers.common import Report
    from llmrec.data.readers.table_mapping import TableMapping
    from llmrec.data.validation import Finding

data_app = typer.Typer(help="Prepare, check and export data.", no_args_is_help=True)

_TABLE = "Tables of your own"
_HUB = "Data sets of the Hugging Face Hub"
_PATH = "Where the files are (ml-100k is fetched when left out); for hub OWNER/NAME, or a directory of such a data set."
_ITEMS = (
    "CSV, JSONL, Parquet, a directory of them, or hf:OWNER/NAME:CONFIG@SPLIT; for hub CONFIG, CONFIG@SPLIT or @SPLIT."
)
_EMPTY = "Word that means no value in a column of numbers, days or flags; may be given again."
AcceptLoss = Annotated[
    bool, typer.Option(help="Leave out interactions with unknown items, though they are over 5 % of all.")
]
ExactIds = Annotated[bool, typer.Option(help="Take ids as written: 1.0 and 1, 007 and 7 are different ones.")]
_VALUE = "Column of ratings; kept with the data, training does not read it."
_WEIGHT = "Weight of an event type, view=1: 0 leaves it out, any other is only kept with the data."


@data_app.command(epilog="Example: llmrec data prepare --source recbole --path my-files --out my-data")
def prepare(
    source: Annotated[str, typer.Option(help="ml-100k, movielens, amazon, s3rec, recbole, table (your own) or hub.")],
    out: Annotated[Path, typer.Option(help="Directory to write.")],
    path: Annotated[Path | None, typer.Option(help=_PATH)] = None,
    config: Annotated[str | None, typer.Option(help="Configuration of the data set.", rich_help_panel=_HUB)] = None,
    split: Annotated[str | None, typer.Option(help="Its split (train).", rich_help_panel=_HUB)] = None,
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit; the commit is kept in the notes.", rich_help_panel=_HUB)
    ] = None,
    items: Annotated[str | None, typer.Option(help=_ITEMS, rich_help_panel=_TABLE)] = None,
    interactions: Annotated[str | None, typer.Option(help="In the same forms.", rich_help_panel=_TABLE)] = None,
    mapping: Annotated[
        Path | None, typer.Option(help="TOML file that says all of this; flags win.", rich_help_panel=_TABLE)
    ] = None,
    domain: Annotated[str | None, typer.Option(help="Plural noun for the items.", rich_help_panel=_TABLE)] = None,
    item_id: Annotated[
        str | None, typer.Option(help="Column of item ids (item_id).", rich_help_panel=_TABLE, show_default=False)
    ] = None,
    title: Annotated[str | None, typer.Option(help="Column of titles (title).", rich_help_panel=_TABLE)] = None,
    text: Annotated[str | None, typer.Option(help="Columns of description, a,b.", rich_help_panel=_TABLE)] = None,
    category: Annotated[
        str | None, typer.Option(help="Columns of words, a,b or name=column.", rich_help_panel=_TABLE)
    ] = None,
    number: Annotated[str | None, typer.Option(help="Columns of numbers.", rich_help_panel=_TABLE)] = None,
    date: Annotated[str | None, typer.Option(help="Columns of days.", rich_help_panel=_TABLE)] = None,
    flag: Annotated[str | None, typer.Option(help="Columns of true and false.", rich_help_panel=_TABLE)] = None,
    separator: Annotated[
        str | None, typer.Option(help="Between words of a category in a text cell (|).", rich_help_panel=_TABLE)
    ] = None,
    user: Annotated[str | None, typer.Option(help="Column of user ids (user_id).", rich_help_panel=_TABLE)] = None,
    item: Annotated[
        str | None, typer.Option(help="Column of item ids, or lists of them (item_id).", rich_help_panel=_TABLE)
    ] = None,
    time: Annotated[str | None, typer.Option(help="Column of times.", rich_help_panel=_TABLE)] = None,
    value: Annotated[str | None, typer.Option(help=_VALUE, rich_help_panel=_TABLE)] = None,
    event: Annotated[str | None, typer.Option(help="Column of event types.", rich_help_panel=_TABLE)] = None,
    weight: Annotated[list[str] | None, typer.Option(help=_WEIGHT, rich_help_panel=_TABLE)] = None,
    empty: Annotated[list[str] | None, typer.Option(help=_EMPTY, rich_help_panel=_TABLE)] = None,
    strict: Annotated[bool, typer.Option(help="Refuse what would be left out.", rich_help_panel=_TABLE)] = False,
    accept_loss: AcceptLoss = False,
    exact_ids: ExactIds = False,
    as_json: Json = False,
) -> None:
    """Read data files into the one prepared form that all other verbs take."""
    item_columns = {
        "file": items, "id": item_id, "title": title, "text": text, "category": category, "number": number,
        "date": date, "flag": flag, "separator": separator, "empty": empty or None,
    }  # fmt: skip
    log_columns = {
        "file": interactions, "user": user, "item": item, "time": time, "value": value, "event": event,
        "empty": empty or None,
    }  # fmt: skip
    flags = {"domain": domain, "items": item_columns, "interactions": log_columns, "events": _weights(weight or [])}
    from llmrec.data.dataset import check_writable, read_source, save_data
    from llmrec.data.readers.assembly import JoinRules
    from llmrec.data.readers.table import read_table
    from llmrec.data.readers.table_mapping import load_mapping

    check_writable(out)
    rules = JoinRules(accept_loss, exact_ids)
    if source != "hub" and (config or split or revision):
        raise RequestError("--config, --split and --revision belong to --source hub")
    files, meaning = Path(), None
    if source == "hub":
        meaning = _of_the_hub(path, config or "", split or "", revision or "", flags, mapping)
    elif source == "table":
        if path is not None:
            raise RequestError("--path is for other sources; a table source takes --items and --interactions")
        meaning = load_mapping(mapping, flags)
    else:
        _no_table_flags(source, flags, mapping, strict)
        files = _files(source, path)
    with output_lock(out, "preparing"):
        found = read_table(meaning, strict, rules) if meaning else read_source(source, files, rules)
        save_data(out, *found)
    _print_report(out, *found, {}, as_json)


def _of_the_hub(
    path: Path | None, config: str, split: str, revision: str, flags: Mapping[str, Any], mapping: Path | None
) -> TableMapping:
    """Return the mapping for a Hub data set; its tables are named by flags or the mapping file, or else by --path."""
    from llmrec.data.readers.hub_tables import HubTable, resolve_part
    from llmrec.data.readers.table_mapping import load_mapping, with_default_table

    whole = HubTable(path.as_posix(), config, split, revision) if path is not None else None
    named: dict[str, Any] = dict(flags)
    for part in ("items", "interactions"):
        if whole is not None and (given := flags[part]["file"]):
            named[part] = {**flags[part], "file": resolve_part(whole, given)}
    return with_default_table(load_mapping(mapping, named), whole)


def _print_report(
    out: Path, catalog: Catalog, log: Interactions, report: Report, more: Mapping[str, int], as_json: bool
) -> None:
    """Print what was read, what was left out, and the findings of `data check`."""
    from llmrec.data.validation import validate_dataset

    findings = validate_dataset(catalog, log, report.notes).findings
    said = {"counts": {**report.counts, **more}, "dropped": dict(report.dropped), "notes": list(report.notes)}
    if as_json:
        print_values({"out": str(out), **said, "findings": [asdict(one) for one in findings]}, True)
        return
    print_values({"out": str(out), **said}, False)
    _print_findings(findings)


def _print_findings(findings: Sequence[Finding]) -> None:
    for one in findings:
        echo(f"{one.level}: {one.text} [{one.name}]")


def _files(source: str, path: Path | None) -> Path:
    """Return the path of the files of a known source."""
    from llmrec.data.dataset import SOURCES

    if source not in SOURCES:
        raise RequestError(
            f"source {source!r} is unknown; choose from: {', '.join(sorted([*SOURCES, 'hub', 'table']))}"
        )
    if path is None and source == "ml-100k":
        from llmrec.data.dataset import movielens_files

        path = movielens_files()
    if path is None:
        raise RequestError(f"--path is missing: say where the {source} files are")
    if not path.exists():
        raise RequestError(f"no file or directory {str(path)!r}; --path is where the {source} files are")
    return path


def _no_table_flags(source: str, flags: Mapping[str, Any], mapping: Path | None, strict: bool) -> None:
    inner = (value for part in flags.values() for value in (part.values() if isinstance(part, Mapping) else [part]))
    if mapping is not None or strict or any(value is not None for value in inner):
        raise RequestError(f"column options belong to --source table and hub; the columns of {source} are known")


def _weights(pairs: list[str]) -> dict[str, float]:
    found = {}
    for pair in pairs:
        name, _, number = pair.partition("=")
        try:
            found[name.strip()] = float(number)
        except ValueError:
            raise RequestError(f"--weight {pair!r} should be an event type and a number, e.g. buy=3") from None
    return found


@data_app.command(epilog="Example: llmrec data append my-data --interactions new.csv --time at --out my-data-2")
def append(
    directory: Annotated[str, typer.Argument(help="Prepared data, or ml-100k.", metavar="DATA")],
    out: Annotated[Path, typer.Option(help="Directory to write; DATA itself is replaced in one step.")],
    interactions: Annotated[str | None, typer.Option(help="Table of new interactions.")] = None,
    mapping: Annotated[Path | None, typer.Option(help="TOML file that says what its columns mean; flags win.")] = None,
    user: Annotated[str | None, typer.Option(help="Column of user ids (user_id).")] = None,
    item: Annotated[str | None, typer.Option(help="Column of item ids (item_id).")] = None,
    time: Annotated[str | None, typer.Option(help="Column of times.")] = None,
    value: Annotated[str | None, typer.Option(help=_VALUE)] = None,
    event: Annotated[str | None, typer.Option(help="Column of event types.")] = None,
    weight: Annotated[list[str] | None, typer.Option(help=_WEIGHT)] = None,
    empty: Annotated[list[str] | None, typer.Option(help=_EMPTY)] = None,
    strict: Annotated[bool, typer.Option(help="Refuse what would be left out.")] = False,
    accept_loss: AcceptLoss = False,
    exact_ids: ExactIds = False,
    as_json: Json = False,
) -> None:
    """Add new interactions to prepared data; the catalogue stays as it is."""
    from llmrec.data.dataset import check_writable, dataset_directory, load_data, save_data
    from llmrec.data.readers.assembly import JoinRules
    from llmrec.data.readers.common import carry_notes
    from llmrec.data.readers.table import append_table
    from llmrec.data.readers.table_mapping import load_mapping

    check_writable(out)
    columns = {
        "file": interactions, "user": user, "item": item, "time": time, "value": value, "event": event,
        "empty": empty or None,
    }  # fmt: skip
    meaning = load_mapping(mapping, {"interactions": columns, "events": _weights(weight or [])})
    with output_lock(out, "appending to"):
        catalog, known, before = load_data(dataset_directory(directory))
        _, log, report = append_table(catalog, known, meaning, strict, JoinRules(accept_loss, exact_ids))
        report = replace(report, notes=carry_notes(before.notes, report.notes))
        save_data(out, catalog, log, report)
    _print_report(out, catalog, log, report, {"new": len(log) - len(known)}, as_json)


@data_app.command(epilog="Example: llmrec data check my-data")
def check(
    directory: Annotated[str, typer.Argument(help="Prepared data, or ml-100k.", metavar="DATA")],
    strict: Annotated[bool, typer.Option(help="Exit with code 1 for warnings, too.")] = False,
    as_json: Json = False,
) -> None:
    """Show sizes, duplicates, cold items, missing text, hints of leakage; exit code 1 when training is refused."""
    from llmrec.data.dataset import dataset_directory, load_data
    from llmrec.data.validation import validate_dataset

    catalog, log, report = load_data(dataset_directory(directory))
    found = validate_dataset(catalog, log, report.notes)
    if as_json:
        print_values({**found.numbers, "findings": [asdict(one) for one in found.findings]}, True)
    else:
        print_values(found.numbers, False)
        _print_findings(found.findings)
    if found.errors or (strict and found.findings):
        raise typer.Exit(1)


@data_app.command(name="show-traffic", epilog="Example: llmrec data show-traffic --task wish_item -n 2")
def show_traffic(
    task: Annotated[str | None, typer.Option(help="Name of a training task, as in a recipe's traffic.shares.")] = None,
    n: Annotated[int, typer.Option("-n", help="How many samples.")] = 3,
    directory: Annotated[str, typer.Option("--data", help="Prepared data, or ml-100k.")] = "ml-100k",
    recipe: Annotated[str, typer.Option(help="YAML file, or the name of a shipped recipe.")] = "ml-100k",
    seed: Annotated[int, typer.Option(help="Of the samples.")] = 0,
    work: Annotated[Path | None, typer.Option(help="Stages of a run, for its own item codes.")] = None,
    saved: Annotated[Path | None, typer.Option("--from", help="Directory of export-traffic to show instead.")] = None,
    split: Annotated[str | None, typer.Option(help="Of that directory: train or validation (train).")] = None,
    as_json: Json = False,
) -> None:
    """Show what a training task gives the model to read, and which tokens of it are trained on."""
    if task is None and saved is None:
        raise RequestError("--task is missing: name a training task, or an exported directory with --from")
    if split is not None and saved is None:
        raise RequestError("--split belongs to --from")
    from llmrec.finetune.data import preview

    if saved is not None:
        shown = preview.show_saved(saved, split or "train", task, n, directory, recipe, work)
    else:
        shown = preview.preview_task(task or "", n, directory, recipe, seed, work)
    if as_json:
        samples = [one.values() for one in shown.samples]
        print_values({"task": shown.task, "provisional": shown.provisional, "samples": samples}, True)
    else:
        preview.print_preview(shown)
