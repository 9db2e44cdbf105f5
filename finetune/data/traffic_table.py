"""Exports training traffic for other trainers, as a file of tokens or as a data set with messages."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from llmrec.data.catalog import Catalog
from llmrec.data.dataset import open_data
from llmrec.data.interactions import Interactions
from llmrec.errors import RequestError
from llmrec.finetune.base_model_info import BaseModelInfo, find_base_model
from llmrec.finetune.data import traffic_dataset
from llmrec.finetune.data.preview import Sample, task_samples
from llmrec.finetune.data.traffic_dataset import IGNORED, TOKENS, Origin, messages_of, save
from llmrec.finetune.model_card import licence_of
from llmrec.finetune.recipe import Recipe, load_recipe
from llmrec.storage.artifacts import check_replaceable, write_bytes_atomic

_PILOT = 8  # samples per task to estimate the length of its documents
_VALIDATION = 0.05
_TABLES = (".jsonl", ".parquet", ".csv", ".tsv", ".json", ".arrow", ".txt", ".gz")  # not for directories


def write_task_table(
    data: str,
    recipe: str | Path,
    out: Path,
    tokens: int = 100_000,
    seed: int = 0,
    work: Path | None = None,
    validation: float | None = None,
) -> dict[str, Any]:
    """Write a sample of a recipe's traffic, with each task's share of the tokens.

    An `out` that ends in `.jsonl` or `.parquet` becomes a file of tokens. Any other `out` becomes a directory that
    `datasets.load_dataset` reads, with splits and messages (`traffic_dataset`).

    The ids of item tokens follow those of the words, as in `export_weights` with `items`. The column `users` counts the
    user vectors of a row. Their soft tokens have the id after the last item token; a trainer without user vectors can
    keep only rows where `users` is 0.

    Args:
        data: prepared data.
        recipe: name or file of a recipe.
        out: file or directory to write.
        tokens: approximate number of tokens.
        seed: seed of the samples.
        work: work directory of a run, for its semantic IDs and replay text; None uses provisional ones.
        validation: share of the rows in the split `validation` of a directory; None means 0.05.

    Raises:
        RequestError: the file ending is not supported, `tokens` is less than 1, `validation` is given for a file, or
            the share leaves a split empty.
        UserError: the data, recipe or base model cannot be used.
    """
    is_file = out.suffix in (".jsonl", ".parquet")
    if out.suffix in _TABLES and not is_file:
        raise RequestError(f"{out} should end in .jsonl or .parquet, or be a directory")
    if is_file and validation is not None:
        raise RequestError("--validation belongs to a directory; a file has no splits")
    if not is_file:
        check_replaceable(out, traffic_dataset.KIND)
    if tokens < 1:
        raise RequestError(f"--tokens is {tokens}; it must be at least 1")
    settings = load_recipe(recipe)
    catalog, interactions = open_data(data)
    found = task_table_rows(settings, catalog, interactions, find_base_model(settings.base), tokens, seed, work)
    table, notes = _shuffled(found[0], seed), found[1]
    if is_file:
        write_bytes_atomic(out, _bytes(table, out.suffix))
    else:
        name, base = Path(data).name, settings.base
        origin = Origin(name, licence_of(name), Path(recipe).stem, base, licence_of(base), seed, notes)
        save(out, table, _VALIDATION if validation is None else validation, origin, catalog)
    return {"out": str(out), "rows": len(table), "tokens": sum(len(row["input_ids"]) for row in table), "notes": notes}


def task_table_rows(
    recipe: Recipe,
    catalog: Catalog,
    interactions: Interactions,
    base: BaseModelInfo,
    tokens: int,
    seed: int,
    work: Path | None,
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the rows of all tasks and notes on what is provisional; arguments are as in `preview.task_samples`."""
    shares = recipe.traffic.shares
    found: list[dict[str, Any]] = []
    notes: dict[str, None] = {}
    for task, share in shares.items():
        budget = tokens * share / sum(shares.values())
        pilot = task_samples(task, _PILOT, recipe, catalog, interactions, base, seed, work)
        length = np.mean([len(one.rendered.ids) for one in pilot.samples])
        shown = task_samples(task, max(1, round(budget / length)), recipe, catalog, interactions, base, seed, work)
        found += [_row(one, catalog) for one in shown.samples]
        notes |= dict.fromkeys(part for part in shown.provisional.split("; ") if part)
    return found, list(notes)


def _row(sample: Sample, catalog: Catalog) -> dict[str, Any]:
    ids, loss = sample.rendered.ids, sample.rendered.loss
    return {
        "task": sample.task,
        "text": "".join(text for text, _ in sample.pieces),
        "input_ids": ids.tolist(),
        "labels": np.where(loss, ids, IGNORED).tolist(),
        "users": len(sample.rendered.users),
        "messages": messages_of(sample.example, catalog),
    }


def _shuffled(found: list[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
    return [found[i] for i in np.random.default_rng([seed, 1]).permutation(len(found))]


def _bytes(table: list[dict[str, Any]], suffix: str) -> bytes:
    if suffix == ".jsonl":
        return "".join(_json_lines(table)).encode()
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(table, TOKENS), buffer)
    return buffer.getvalue()


def _json_lines(table: list[dict[str, Any]]) -> Iterator[str]:
    for row in table:
        yield json.dumps({name: row[name] for name in TOKENS.names}, ensure_ascii=False) + "\n"
