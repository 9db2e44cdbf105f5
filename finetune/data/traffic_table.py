"""Training traffic as a table that `datasets.load_dataset` reads: for other trainers, and to see all of it."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from llmrec.data import prepared
from llmrec.data.catalog import Catalog
from llmrec.data.interactions import Interactions
from llmrec.errors import RequestError
from llmrec.finetune.base_model_info import BaseModelInfo, find_base_model
from llmrec.finetune.data.preview import Sample, task_samples
from llmrec.finetune.recipe import Recipe, load_recipe
from llmrec.storage.artifacts import write_bytes_atomic

IGNORED = -100  # the label that transformers' loss leaves out
_PILOT = 8  # samples of a task that tell how long its documents are
_SCHEMA = pa.schema(
    [
        ("task", pa.string()),
        ("text", pa.string()),
        ("input_ids", pa.list_(pa.int32())),
        ("labels", pa.list_(pa.int32())),
        ("users", pa.int32()),
    ]
)


def write_task_table(
    data: str, recipe: str | Path, out: Path, tokens: int = 100_000, seed: int = 0, work: Path | None = None
) -> dict[str, Any]:
    """Write a sample of a recipe's traffic, each task with its share of the tokens, as `.jsonl` or `.parquet`.

    Item ids follow the words as in `export(items=True)`; `users` counts the user vectors of a row, whose soft tokens
    have the id one past the last item token: a trainer without them takes the rows where it is 0.

    Args:
        data: prepared data.
        recipe: name or file.
        out: file to write.
        tokens: about how many.
        seed: of the samples.
        work: stages of a run, for its own semantic IDs and replay text; provisional ones otherwise.

    Raises:
        RequestError: another ending, or fewer than one token.
        UserError: data, recipe or base model that cannot be used.
    """
    if out.suffix not in (".jsonl", ".parquet"):
        raise RequestError(f"{out} should end in .jsonl or .parquet")
    if tokens < 1:
        raise RequestError(f"--tokens is {tokens}; it must be at least 1")
    settings = load_recipe(recipe)
    catalog, interactions = prepared.open_data(data)
    found = task_table_rows(settings, catalog, interactions, find_base_model(settings.base), tokens, seed, work)
    table, notes = _shuffled(found[0], seed), found[1]
    write_bytes_atomic(out, _bytes(table, out.suffix))
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
    """Rows of all tasks, and what in them is provisional; arguments as `show.samples` takes them."""
    shares = recipe.traffic.shares
    found: list[dict[str, Any]] = []
    notes: dict[str, None] = {}
    for task, share in shares.items():
        budget = tokens * share / sum(shares.values())
        pilot = task_samples(task, _PILOT, recipe, catalog, interactions, base, seed, work)
        length = np.mean([len(one.rendered.ids) for one in pilot.samples])
        shown = task_samples(task, max(1, round(budget / length)), recipe, catalog, interactions, base, seed, work)
        found += [_row(task, one) for one in shown.samples]
        notes |= dict.fromkeys(part for part in shown.provisional.split("; ") if part)
    return found, list(notes)


def _row(task: str, sample: Sample) -> dict[str, Any]:
    ids, loss = sample.rendered.ids, sample.rendered.loss
    return {
        "task": task,
        "text": "".join(text for text, _ in sample.pieces),
        "input_ids": ids.tolist(),
        "labels": np.where(loss, ids, IGNORED).tolist(),
        "users": len(sample.rendered.users),
    }


def _shuffled(found: list[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
    return [found[i] for i in np.random.default_rng([seed, 1]).permutation(len(found))]


def _bytes(table: list[dict[str, Any]], suffix: str) -> bytes:
    if suffix == ".jsonl":
        return "".join(_json_lines(table)).encode()
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(table, _SCHEMA), buffer)
    return buffer.getvalue()


def _json_lines(table: list[dict[str, Any]]) -> Iterator[str]:
    for row in table:
        yield json.dumps(row, ensure_ascii=False) + "\n"
