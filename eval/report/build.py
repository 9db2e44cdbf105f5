"""Builds the report on a results directory, as Markdown and as one HTML page."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from llmrec.checkpoint.pretrained import MODEL_KIND, read_settings
from llmrec.data.dataset import load_data
from llmrec.errors import ArtifactError, UserError
from llmrec.eval.report import sections
from llmrec.eval.report.conversation import conversation
from llmrec.eval.report.gallery import failure_gallery
from llmrec.eval.report.page import Block, Paragraph, Section, Table, html, markdown
from llmrec.eval.report.results import UNKNOWN, Result, check_one_catalogue, load_results, models
from llmrec.eval.retention.instruction_following import own_instructions
from llmrec.storage.artifacts import read_manifest, write_bytes_atomic
from llmrec.storage.registry import cache_home

TITLE = "llmrec: what was measured"
PLOTS = "plots"
JOURNAL = "metrics.jsonl"

Make = Callable[[Sequence[Result], Path], list[Section]]
KNOWN: Mapping[str, Make] = {
    "accuracy": sections.accuracy,
    "accuracy-time": sections.accuracy,
    "stability": sections.stability,
    "retention": sections.retention,
    "grounding": sections.grounding,
    "conversation": conversation,
}
# The command that makes each file. A bench describes a machine rather than a data set, so its file names no data set.
COMMANDS: Mapping[str, str] = {
    "accuracy": "llmrec eval --suite accuracy",
    "accuracy-time": "llmrec eval --suite accuracy --split time",
    "stability": "llmrec eval --suite stability",
    "retention": "llmrec eval --suite retention --data-dir DIR",
    "grounding": "llmrec eval --suite grounding",
    "conversation": "llmrec eval --suite conversation",
    "bench-decode": "llmrec bench",
    "bench-train": "llmrec bench --train",
}


def run_report(out: Path, model: Path | None = None, console: Console | None = None) -> Path:
    """Write `report.md`, `report.html` and `plots/*.svg` to `out` from the result files in it.

    Args:
        out: directory of the results.
        model: the model directory, for its learning curves and the name of its data; they are omitted if it is None or
            does not exist.
        console: prints what was written.

    Returns:
        The path of the HTML page.

    Raises:
        DataError: a file is not a result, or results have different catalogues or protocols.
        RequestError: matplotlib is not installed.
    """
    results = load_results(out)
    check_one_catalogue(results)
    dataset = _dataset(model)
    names = list(dict.fromkeys([*([dataset] if dataset else []), *(result.dataset for result in results)]))
    parts = [
        *_head(results, out),
        *(section for name in names for section in _of_one(results, name, out)),
        *(sections.generic_section(result) for result in results if result.suite not in KNOWN),
        _curves(model, out),
        *(_gallery(results, name, out) for name in names),
        _missing(results, names, out),
    ]
    write_bytes_atomic(out / "report.md", markdown(TITLE, parts, out).encode())
    page = out / "report.html"
    write_bytes_atomic(page, html(TITLE, parts).encode())
    (console or Console(stderr=True)).print(f"wrote {out / 'report.md'} and {page}", highlight=False)
    return page


def _dataset(model: Path | None) -> str | None:
    """The name of the model's data; None if the model does not exist."""
    try:
        return Path(str(read_settings(model)["data"])).name if model is not None else None
    except UserError:
        return None


def _head(results: Sequence[Result], out: Path) -> list[Section]:
    """The targets, and a warning if results on one data set come from several models."""
    mixed = models(results)
    warning = "; ".join(f"{name[:16]}: {', '.join(files)}" for name, files in mixed.items())
    known = (
        [Section("Results of several models", [Paragraph(f"These files are not of one model. {warning}.")])]
        if mixed
        else []
    )
    return [*known, sections.target_tables(results)] if results else known


def _of_one(results: Sequence[Result], dataset: str, out: Path) -> list[Section]:
    found: list[Section] = []
    for suite, make in KNOWN.items():
        own = [result for result in results if (result.suite, result.dataset) == (suite, dataset)]
        if own:
            found += make(own, out / PLOTS)
    return found


def _curves(model: Path | None, out: Path) -> Section:
    """Learning curves from the journal that a training run leaves beside its model."""
    path = None if model is None else model / JOURNAL
    lines = _journal(path) if path is not None and path.is_file() else []
    if not lines or model is None:
        return Section("Learning curves", [Paragraph(f"No {JOURNAL} stands beside the model.")])
    source = f"{JOURNAL} of {model.name}: {len(lines)} lines to step {lines[-1].get('step')}; {_trained(model)}"
    return Section("Learning curves", sections.curves(lines, out / PLOTS / f"training-{model.name}", source))


def _trained(model: Path) -> str:
    """Origin of a model, as stated in its manifest."""
    try:
        manifest = read_manifest(model, MODEL_KIND, verify=False)
    except ArtifactError:
        return "the model has no manifest"
    meta, recipe = manifest.meta, dict(manifest.meta.get("recipe", {}))
    versions = ", ".join(f"{name} {version}" for name, version in manifest.versions.items())
    told = f"llmrec train, seed {recipe.get('seed')}, {meta.get('tokens')} tokens, {meta.get('seconds')} s"
    return f"{told}, train part {str(meta.get('train_fingerprint'))[:16]}, commit not recorded, {versions}"


def _journal(path: Path) -> list[dict[str, Any]]:
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue  # incomplete last line of a killed run
        if isinstance(value, dict) and "tokens" in value:
            lines.append(value)
    return lines


def _gallery(results: Sequence[Result], dataset: str, out: Path) -> Section:
    prompts = [one.prompt for one in own_instructions()[1]]
    cases = failure_gallery(out, dataset, _titles(results, dataset), prompts)
    words = (
        "Chosen by rule from the values of single users and requests that the suites leave in per_user and per_item."
    )
    blocks: list[Block] = [
        Paragraph(words if cases else "The suites left no values of single users and requests here.")
    ]
    return Section(f"Failures, {dataset}", [*blocks, *cases])


def _titles(results: Sequence[Result], dataset: str) -> list[str]:
    """Labels of the catalogue's rows, if the measured catalogue is available locally; nothing is downloaded."""
    measured = {result.fingerprint("catalog") for result in results if result.dataset == dataset} - {UNKNOWN}
    try:
        catalog, _, _ = load_data(cache_home() / "data" / dataset)
    except (UserError, OSError):
        return []
    return [catalog.label(row) for row in range(len(catalog))] if measured == {catalog.fingerprint} else []


def _missing(results: Sequence[Result], names: Sequence[str], out: Path) -> Section:
    """Suites without a result, with the command that produces each."""
    there = {(result.suite, result.dataset) for result in results}
    stems = {result.path.stem for result in results}
    where = out.name if out.is_absolute() else out
    lacking = []
    for suite, command in COMMANDS.items():
        absent = [suite] if suite.startswith("bench") and suite not in stems else []
        if not suite.startswith("bench"):
            absent = [f"{suite}-{name}" for name in names or ["data"] if (suite, name) not in there]
        lacking += [[f"{stem}.json", f"{command} --out {where}"] for stem in absent]
    if not lacking:
        return Section("Missing", [Paragraph("Nothing: every suite has its result.")])
    return Section("Missing", [Table(["file", "made by"], lacking, "Not measured yet, or not kept in this directory.")])
