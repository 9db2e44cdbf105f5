"""What the way to make semantic IDs does to a trained model: two that differ in nothing else, on validation items."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from llmrec.errors import ArtifactError
from llmrec.eval import metrics
from llmrec.eval.accuracy_parts import PartsRanker
from llmrec.eval.accuracy_subject import open_model
from llmrec.eval.lists import Condition, not_seen, rank_each, sample, target_users, targets_of
from llmrec.eval.protocol import Estimate, Row, options, provenance, write_result
from llmrec.eval.requests import RememberingScorer, progress_bar
from llmrec.fusion import Fusion
from llmrec.interactions import Split, fusing_users
from llmrec.packed import Products
from llmrec.rank import Rows
from llmrec.recommend import Recommender

USERS = 2000  # a standard error of .002 of the difference in NDCG@10 on Amazon Beauty
BATCH = 8  # users whose searches share the language model's passes
METRICS = ("recall@10", "ndcg@10")
NAMES = {"kmeans": "residual k-means", "rqvae": "rq-vae"}

Values = Mapping[str, npt.NDArray[np.float64]]  # float64[u] by metric


def run_trained(
    model: str | Path | None,
    beside: str | Path,
    data: str | Path | None,
    out: Path,
    limit: int | None = None,
    products: Products = "float32",
    seed: int = 0,
) -> list[Row]:
    """Rank validation items with two models whose codes were made otherwise.

    Writes `semantic-ids-trained-<dataset>.json`.

    Args:
        model: model directory, None for the shipped one.
        beside: the other; its recipe differs in `semantic_ids` alone.
        data: their data, None for what the first one names.
        out: directory of the result.
        limit: users, drawn by the seed of those on whom no fusion was fitted; `USERS` when None.
        products: number format of the language model's matrix products.
        seed: of the users, the intervals and the test.

    Raises:
        ArtifactError: the models differ in data or in another part of the recipe, or do not differ.
    """
    started = time.monotonic()
    (one, split), (other, _) = (open_model(path, data, "loo", products) for path in (model, beside))
    names = told_apart(one, other)
    users = asked_users(split, limit or USERS, seed)
    found: dict[str, Values] = {}
    for name, recommender in zip(names, (one, other), strict=True):
        found |= {f"{name}: {row}": value for row, value in ranked(recommender, split, users, name).items()}
    rows = [Row(name, {m: _estimate(v[m], seed) for m in METRICS}) for name, v in found.items()]
    rows += differences(found, names, seed)
    _print(rows)
    protocol = {
        "users": f"{len(users)} drawn by seed {seed} of those on whose validation items no fusion was fitted",
        "target": "the validation item, in the whole catalogue but for the history",
        "differs": ", ".join(f"{k} {v}" for k, v in differing(one, other).items()),
        "products": products,
        "p_ndcg@10": {row: _p(found, names, row, seed) for row in ("llm", "hybrid")},
    }
    words = ["llmrec eval --suite semantic-ids", *options(model=model, beside=beside, data=data)]
    words += [f"--products {products}"] if products != "float32" else []
    words += [f"--limit {limit}"] if limit else []
    came = provenance(seed, " ".join(words), time.monotonic() - started, len(users))
    dataset = Path(str(one.data_name)).name
    path = out / f"semantic-ids-trained-{dataset}.json"
    write_result(path, "semantic-ids-trained", dataset, protocol, rows, [], came)
    return rows


def told_apart(one: Recommender, other: Recommender) -> tuple[str, str]:
    """What the codes of each were made by.

    Raises:
        ArtifactError: they may not be compared, see `run_trained`.
    """
    if one.catalog.fingerprint != other.catalog.fingerprint:
        raise ArtifactError("the two models are of different catalogues; compare models of the same data")
    methods = [str(_recipe(made)["semantic_ids"].get("method", "kmeans")) for made in (one, other)]
    if methods[0] == methods[1]:
        raise ArtifactError(f"the codes of both models were made by {methods[0]}; give one of each method")
    others = {key for key in differing(one, other) if not key.startswith("semantic_ids.")}
    if others:
        raise ArtifactError(f"the recipes differ in {', '.join(sorted(others))}, too; train both by the same recipe")
    return NAMES[methods[0]], NAMES[methods[1]]


def differing(one: Recommender, other: Recommender) -> dict[str, str]:
    """Settings of two recipes that are not the same, by dotted name, as `a and b`."""
    left, right = _flat(_recipe(one)), _flat(_recipe(other))
    keys = sorted(left.keys() | right.keys())
    return {key: f"{left.get(key)} and {right.get(key)}" for key in keys if left.get(key) != right.get(key)}


def asked_users(split: Split, limit: int, seed: int) -> Rows:
    """Users with a validation item on which no fusion was fitted, at most so many: int64[u], in order."""
    return sample(np.setdiff1d(target_users(split, "valid"), fusing_users(split)), limit, seed)


def ranked(recommender: Recommender, split: Split, users: Rows, name: str) -> dict[str, Values]:
    """Metrics of the language model alone and of the fused list, by row."""
    scorer = RememberingScorer.of(recommender.scorer)
    rankers = [
        PartsRanker("llm", scorer, Fusion({"llm": 1.0})),
        PartsRanker("hybrid", scorer, recommender.fusions["history"]),
    ]
    deep = max(metrics.KS) + 1  # one more than the largest cut-off: see ranks_of about ties
    with progress_bar(Console(stderr=True)) as bar:
        task = bar.add_task(name, total=len(users))
        lists = rank_each(
            rankers, split, "valid", len(recommender.catalog), {"": Condition(deep, not_seen)}, users, BATCH,
            lambda _, done, __: bar.update(task, completed=done),
        )  # fmt: skip
    targets = targets_of(split, "valid")[users]
    return {
        row: metrics.per_user(metrics.ranks_of(own[""].rows, targets, own[""].scores)) for row, own in lists.items()
    }


def differences(found: Mapping[str, Values], names: tuple[str, str], seed: int) -> list[Row]:
    """The second way minus the first, user by user."""
    return [
        Row(
            f"{names[1]} minus {names[0]}: {row}",
            {m: _estimate(found[f"{names[1]}: {row}"][m] - found[f"{names[0]}: {row}"][m], seed) for m in METRICS},
        )
        for row in ("llm", "hybrid")
    ]


def _p(found: Mapping[str, Values], names: tuple[str, str], row: str, seed: int) -> float:
    one, other = (found[f"{name}: {row}"][METRICS[1]] for name in names)
    return metrics.paired_p(one, other, seed)


def _estimate(values: npt.NDArray[np.float64], seed: int) -> Estimate:
    return Estimate(float(values.mean()), metrics.bootstrap_ci(values, seed))


def _recipe(recommender: Recommender) -> Mapping[str, Any]:
    recipe: Mapping[str, Any] = recommender.model_card["recipe"]
    return recipe


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in values.items():
        out |= _flat(value, f"{before}{key}.") if isinstance(value, Mapping) else {f"{before}{key}": value}
    return out


def _print(rows: Sequence[Row]) -> None:
    table = Table("", *METRICS)
    for row in rows:
        cells = (row.metrics[m] for m in METRICS)
        table.add_row(row.name, *(f"{one.mean:.4f} ({one.ci95[0]:.4f} to {one.ci95[1]:.4f})" for one in cells))
    Console().print(table)
