"""Compares two trained models that differ only in how their semantic IDs were made, on validation items."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console

from llmrec.data.interactions import Split, fusion_users
from llmrec.errors import ArtifactError
from llmrec.eval import metrics
from llmrec.eval.accuracy.ablation import ComponentRanker
from llmrec.eval.accuracy.measurement import conditions
from llmrec.eval.accuracy.parallel_ranking import BATCH
from llmrec.eval.accuracy.setup import open_model
from llmrec.eval.chat_client import CachingScorer
from llmrec.eval.console_tables import print_columns
from llmrec.eval.ranked_lists import rank_each, sample_users, target_users
from llmrec.eval.result_file import Estimate, Row, eval_command, provenance, write_result
from llmrec.lm.runtime.onednn import MatmulDtype
from llmrec.progress import progress_bar
from llmrec.ranker import Rows
from llmrec.ranking.fusion import Fusion
from llmrec.recommender import Recommender

USERS = 2000  # gives a standard error of .002 of the difference in NDCG@10 on Amazon Beauty
METRICS = ("recall@10", "ndcg@10")
NAMES = {"kmeans": "residual k-means", "rqvae": "rq-vae"}

Values = Mapping[str, npt.NDArray[np.float64]]  # float64[u] by metric


def run_model_comparison(
    model: str | Path | None,
    beside: str | Path,
    data: str | Path | None,
    out: Path,
    limit: int | None = None,
    matmul_dtype: MatmulDtype = "float32",
    seed: int = 0,
) -> list[Row]:
    """Rank validation items with two models whose codes were made by different methods.

    Writes `semantic-ids-trained-<dataset>.json`.

    Args:
        model: model directory, None for the shipped one.
        beside: the other model; its recipe differs in `semantic_ids` only.
        data: their data, None for the data that the first one names.
        out: directory of the result.
        limit: number of users, drawn by the seed from those on whom no fusion was fitted; `USERS` when None.
        matmul_dtype: number format of the language model's matrix products.
        seed: random seed for the users, the intervals and the test.

    Raises:
        ArtifactError: the models differ in their data or in another part of the recipe, or do not differ at all.
    """
    started = time.monotonic()
    (one, split), (other, _) = (open_model(path, data, "loo", matmul_dtype) for path in (model, beside))
    names = code_methods(one, other)
    users = comparison_users(split, limit or USERS, seed)
    first, second = (
        rank_validation_items(made, split, users, name) for made, name in zip((one, other), names, strict=True)
    )
    rows = [
        *_rows(names[0], first, seed),
        *_rows(names[1], second, seed),
        *_rows(f"{names[1]} minus {names[0]}", difference(first, second), seed),
    ]
    print_model_comparison(rows)
    main = METRICS[1]
    protocol = {
        "users": f"{len(users)} drawn by seed {seed} of those on whose validation items no fusion was fitted",
        "target": "the validation item, in the whole catalogue but for the history",
        "differs": ", ".join(f"{k} {v}" for k, v in recipe_differences(one, other).items()),
        "products": matmul_dtype,
        f"p_{main}": {row: metrics.paired_p(first[row][main], second[row][main], seed) for row in first},
    }
    command = eval_command("semantic-ids", model=model, beside=beside, data=data, products=matmul_dtype, limit=limit)
    came = provenance(seed, command, time.monotonic() - started, len(users))
    dataset = Path(str(one.data_name)).name
    path = out / f"semantic-ids-trained-{dataset}.json"
    write_result(path, "semantic-ids-trained", dataset, protocol, rows, [], came)
    return rows


def code_methods(one: Recommender, other: Recommender) -> tuple[str, str]:
    """Return the methods that made the codes of the two models.

    Raises:
        ArtifactError: the models may not be compared, see `run_model_comparison`.
    """
    if one.catalog.fingerprint != other.catalog.fingerprint:
        raise ArtifactError("the two models are of different catalogues; compare models of the same data")
    methods = [str(_recipe(made)["semantic_ids"].get("method", "kmeans")) for made in (one, other)]
    if methods[0] == methods[1]:
        raise ArtifactError(f"the codes of both models were made by {methods[0]}; give one of each method")
    others = {key for key in recipe_differences(one, other) if not key.startswith("semantic_ids.")}
    if others:
        raise ArtifactError(f"the recipes differ in {', '.join(sorted(others))}, too; train both by the same recipe")
    return NAMES[methods[0]], NAMES[methods[1]]


def recipe_differences(one: Recommender, other: Recommender) -> dict[str, str]:
    """Settings that differ between two recipes, by dotted name, as `a and b`."""
    left, right = _flat(_recipe(one)), _flat(_recipe(other))
    keys = sorted(left.keys() | right.keys())
    return {key: f"{left.get(key)} and {right.get(key)}" for key in keys if left.get(key) != right.get(key)}


def comparison_users(split: Split, limit: int, seed: int) -> Rows:
    """Users with a validation item on whom no fusion was fitted, at most `limit`: int64[u], in order."""
    return sample_users(np.setdiff1d(target_users(split, "valid"), fusion_users(split)), limit, seed)


def rank_validation_items(recommender: Recommender, split: Split, users: Rows, name: str) -> dict[str, Values]:
    """Metrics of the language model alone and of the fused list, by row."""
    scorer = CachingScorer.of(recommender.scorer)
    rankers = [
        ComponentRanker("llm", scorer, Fusion({"llm": 1.0})),
        ComponentRanker("hybrid", scorer, recommender.fusions["history"]),
    ]
    full = {"": conditions(0)[""]}  # this condition draws nothing
    with progress_bar() as bar:
        task = bar.add_task(name, total=len(users))
        lists = rank_each(
            rankers, split, "valid", len(recommender.catalog), full, users, BATCH,
            lambda _, done, __: bar.update(task, completed=done),
        )  # fmt: skip
    return {row: metrics.per_user(own[""].ranks()) for row, own in lists.items()}


def difference(first: Mapping[str, Values], second: Mapping[str, Values]) -> dict[str, Values]:
    """The second minus the first, per user, by row."""
    return {row: {m: second[row][m] - values[m] for m in METRICS} for row, values in first.items()}


def _rows(name: str, values: Mapping[str, Values], seed: int) -> list[Row]:
    return [Row(f"{name}: {row}", {m: Estimate.over(own[m], seed) for m in METRICS}) for row, own in values.items()]


def _recipe(recommender: Recommender) -> Mapping[str, Any]:
    recipe: Mapping[str, Any] = recommender.model_card["recipe"]
    return recipe


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in values.items():
        out |= _flat(value, f"{before}{key}.") if isinstance(value, Mapping) else {f"{before}{key}": value}
    return out


def print_model_comparison(rows: Sequence[Row], console: Console | None = None) -> None:
    """Print the metrics of both models and their difference, with intervals."""
    shown = []
    for row in rows:
        cells = (row.metrics[m] for m in METRICS)
        shown.append([row.name, *(f"{one.mean:.4f} ({one.ci95[0]:.4f} to {one.ci95[1]:.4f})" for one in cells)])
    print_columns(["", *METRICS], shown, console)
