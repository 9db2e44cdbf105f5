"""Compares residual k-means with an RQ-VAE for semantic IDs, on the item vectors of a trained model."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console

from llmrec.eval.chat_client import open_evaluated_model
from llmrec.eval.console_tables import print_columns
from llmrec.eval.result_file import Estimate, Row, Target, eval_command, provenance, write_result
from llmrec.recommender import Recommender
from llmrec.semantic_ids import residual_kmeans, rqvae
from llmrec.semantic_ids.diagnostics import diagnose
from llmrec.semantic_ids.residual_kmeans import SemanticIds

SEEDS = 3


class CodebookShape(NamedTuple):
    """Number of levels, and of codes per level."""

    depth: int
    size: int


CodeMaker = tuple[SemanticIds, np.ndarray]  # and the nearest codes, regardless of capacity


def run_semantic_ids(
    model: str | Path | None, data: str | Path | None, out: Path, seeds: int | None = None, seed: int = 0
) -> list[Row]:
    """Make the codes of a model's catalogue by both methods with several seeds; writes `semantic-ids-<dataset>.json`.

    Args:
        model: model directory, None for the shipped one; provides text and item vectors and the codebook's shape.
        data: its data, None for the data that the model names.
        out: directory of the result.
        seeds: number of seeds, `SEEDS` when None; the intervals are the minimum and the maximum.
        seed: the first seed.
    """
    started = time.monotonic()
    console = Console(stderr=True)
    recommender, _ = open_evaluated_model(model, data)
    vectors, shape = fused_vectors(recommender)
    rows = []
    for name, make in (("residual k-means", by_kmeans), ("rq-vae", by_rqvae)):
        console.print(f"{name}: {len(vectors)} items, {shape.depth} levels of {shape.size} codes")
        found = []
        for at in range(seed, seed + (seeds or SEEDS)):
            ids, nearest = make(vectors, *shape, at)
            found.append(by_level(asdict(diagnose(ids, vectors, nearest, seed=at))))
        rows.append(Row(name, _spread(found)))
    print_semantic_ids(rows)
    name = Path(str(recommender.data_name)).name
    protocol = {
        "vectors": "whitened text beside the encoder's item vectors, as the model's recipe fuses them",
        "shape": f"{shape.depth} levels of {shape.size} codes, {len(vectors)} items",
        "interval": f"least and greatest of {seeds or SEEDS} seeds",
        "rq-vae": asdict(rqvae.RqVaeConfig()),
    }
    command = eval_command("semantic-ids", model=model, data=data, limit=seeds)
    came = provenance(seed, command, time.monotonic() - started, len(vectors))
    write_result(out / f"semantic-ids-{name}.json", "semantic-ids", name, protocol, rows, targets(rows), came)
    return rows


def fused_vectors(recommender: Recommender) -> tuple[np.ndarray, CodebookShape]:
    """The vectors from which the model's codes are made, float32[n, d], and the shape of its codebook."""
    recipe, ids = recommender.model_card["recipe"]["semantic_ids"], recommender.model.vocab.ids
    text, items = recommender.scorer.text, recommender.model.encoder.item_vectors
    vectors = residual_kmeans.joint_vectors(text, items, int(recipe["text_dims"]), float(recipe["text_weight"]))
    return vectors, CodebookShape(ids.depth, ids.size)


def by_kmeans(vectors: np.ndarray, depth: int, size: int, seed: int) -> CodeMaker:
    """Codes by residual k-means."""
    ids = residual_kmeans.fit(vectors, depth, size, seed)
    return ids, residual_kmeans.nearest_codes(vectors, ids.codebook)


def by_rqvae(vectors: np.ndarray, depth: int, size: int, seed: int) -> CodeMaker:
    """Codes by an RQ-VAE."""
    found = rqvae.train_rqvae(vectors, depth, size, seed)
    return rqvae.assign_unique_codes(vectors, found, seed), residual_kmeans.nearest_codes(found.latent, found.codebook)


def targets(rows: Sequence[Row]) -> list[Target]:
    """The collisions of the method in use."""
    return [Target("kmeans_collisions", rows[0].metrics["collisions"].mean)]


def by_level(values: Mapping[str, object]) -> dict[str, float]:
    """Numbers by name, those of levels as `<name>_level_1` and so on; values that are not numbers are omitted."""
    out: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, list | tuple):
            out |= {f"{name}_level_{level}": float(one) for level, one in enumerate(value, start=1)}
        elif isinstance(value, int | float):
            out[name] = float(value)
    return out


def _spread(values: Sequence[dict[str, float]]) -> dict[str, Estimate]:
    lists = {name: [one[name] for one in values] for name in values[0]}
    return {name: Estimate(float(np.mean(own)), (min(own), max(own))) for name, own in lists.items()}


def print_semantic_ids(rows: Sequence[Row], console: Console | None = None) -> None:
    """Print one line per metric and one column per method."""
    shown = [[name.replace("_", " "), *(f"{row.metrics[name].mean:.4g}" for row in rows)] for name in rows[0].metrics]
    print_columns(["", *(row.name for row in rows)], shown, console)
