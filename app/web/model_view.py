"""Data of the Model tab: facts, a map of the semantic IDs, learning curves and result tables."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llmrec.ranking.explanations import tags
from llmrec.recommender import SHIPPED

if TYPE_CHECKING:
    from llmrec.data.catalog import Catalog
    from llmrec.recommender import Recommender
    from llmrec.semantic_ids.residual_kmeans import SemanticIds

RESULTS = SHIPPED.parents[1] / "eval" / "results"
MOST_POINTS = 2_000
JOURNAL = "metrics.jsonl"
_MOST_LINES, _MOST_BYTES = 400, 8 * 2**20
# the metrics that a suite's table shows, if present; other metrics are in the file only
_METRICS: Mapping[str, tuple[str, ...]] = {"accuracy": ("recall@10", "ndcg@10", "mrr@10", "coverage@10")}
_COLUMNS = 5


@dataclass(frozen=True)
class MapPoint:
    """An item on the map: its row, first code, and position with both coordinates from 0 to 1."""

    row: int
    code: int
    x: float
    y: float


@dataclass(frozen=True)
class CodeGroup:
    """Items that share a first code: their number, most common tags with shares, and some of their rows."""

    code: int
    size: int
    tags: tuple[tuple[str, float], ...]
    rows: tuple[int, ...]


@dataclass(frozen=True)
class ResultTable:
    """A result file: its name, data set, provenance, metrics, rows of (mean, low, high), and targets."""

    name: str
    dataset: str
    source: str
    metrics: tuple[str, ...]
    rows: tuple[tuple[str, tuple[tuple[float, float, float] | None, ...]], ...]
    targets: tuple[tuple[str, float | None], ...]


def model_facts(recommender: Recommender) -> list[tuple[str, str]]:
    """Return a summary of the model as (name, value) pairs, from its record and from what is loaded."""
    card, ids = recommender.model_card, recommender.model.vocab.ids
    recipe = card.get("recipe", {})
    statistics = ids.statistics()
    usage = ", ".join(f"{share:.0%}" for share in _floats(statistics["usage"]))
    added = sum(p.numel() for p in recommender.model.added().values())
    lines = [
        ("Base model", str(recipe.get("base", "not recorded")) if isinstance(recipe, dict) else "not recorded"),
        ("Catalogue", f"{len(recommender.catalog):,} {recommender.catalog.domain} ({recommender.data_name})"),
        ("Known users", f"{len(recommender.users):,}"),
        ("Added parameters", f"{added:,}"),
        ("Semantic IDs", f"{ids.depth} levels of {ids.size} codes; codes in use by level: {usage}"),
    ]
    for name, key in (("Training tokens", "tokens"), ("Training steps", "steps")):
        if isinstance(card.get(key), int):
            lines.append((name, f"{card[key]:,}"))
    if isinstance(card.get("seconds"), int | float):
        lines.append(("Training time", f"{card['seconds'] / 60:.0f} minutes"))
    for kind, fusion in recommender.fusions.items():
        weights = ", ".join(f"{name} {weight:.2f}" for name, weight in fusion.weights.items())
        lines.append((f"Fusion weights, {kind}", weights))
    return lines


def project_semantic_ids(ids: SemanticIds) -> list[MapPoint]:
    """Return an evenly spaced sample of items on the first two principal components of their code vectors.

    The code vector of an item is the sum of its codes' centroids.
    """
    vectors = sum(ids.codebook[level][ids.codes[:, level]].astype(np.float64) for level in range(ids.depth))
    centred = np.asarray(vectors) - np.mean(vectors, axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    for axis in axes[:2]:  # the sign of a component is arbitrary: fix it, so that the picture is always the same
        axis *= np.sign(axis[np.argmax(np.abs(axis))])
    flat = centred @ axes[:2].T
    if flat.shape[1] < 2:
        flat = np.column_stack([flat, np.zeros(len(flat))])
    low, high = flat.min(axis=0), flat.max(axis=0)
    flat = (flat - low) / np.maximum(high - low, 1e-9)
    step = max(1, -(-len(flat) // MOST_POINTS))
    return [MapPoint(r, int(ids.codes[r, 0]), float(flat[r, 0]), float(flat[r, 1])) for r in range(0, len(flat), step)]


def code_groups(catalog: Catalog, ids: SemanticIds, most: int = 24) -> list[CodeGroup]:
    """Return the groups of the largest first codes, with the tags that their items have in common."""
    codes = ids.codes[:, 0]
    sizes = Counter(int(code) for code in codes).most_common(most)
    out = []
    for code, size in sizes:
        rows = np.flatnonzero(codes == code)
        common = Counter(tag for row in rows for tag in tags(catalog, int(row))).most_common(3)
        shares = tuple((tag, count / size) for tag, count in common if count * 4 >= size)
        out.append(CodeGroup(code, size, shares, tuple(int(r) for r in rows[:4])))
    return out


def training_curves(model: Path) -> dict[str, list[tuple[float, float]]]:
    """Return the series of (tokens, value) in a training run's metrics file, by name; empty without a file."""
    beside = (model / JOURNAL, model.with_name(model.name + ".work") / JOURNAL)
    path = next((one for one in beside if one.is_file() and one.stat().st_size <= _MOST_BYTES), None)
    out: dict[str, list[tuple[float, float]]] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path else ():
        try:
            values = json.loads(line)
            tokens = float(values["tokens"])
            numbers = {n: float(v) for n, v in values.items() if n not in ("step", "tokens", "seconds")}
        except (ValueError, KeyError, TypeError, AttributeError):
            continue  # the incomplete last line of a run in progress
        for name, value in numbers.items():
            if not name.startswith("task/") and np.isfinite([tokens, value]).all():
                out.setdefault(name, []).append((tokens, value))
    return {name: _thinned(points) for name, points in out.items() if len(points) > 1}


def load_result_tables(folder: Path | None) -> tuple[list[ResultTable], list[str]]:
    """Return the tables of a folder of result files, and a message for each file that is not a result file."""
    folder = folder or RESULTS
    found, wrong = [], []
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
        try:
            if path.stat().st_size > _MOST_BYTES:
                raise ValueError("it is too large")
            found.append(_result(path.stem, json.loads(path.read_text(encoding="utf-8"))))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            wrong.append(f"{path.name} is not a result file ({type(error).__name__})")
    return found, wrong


def _result(name: str, value: Mapping[str, Any]) -> ResultTable:
    came, suite = value["provenance"], str(value["suite"])
    there = {metric for row in value["rows"] for metric in row["metrics"]}
    wanted = next((some for start, some in _METRICS.items() if suite.startswith(start)), ())
    metrics = tuple(m for m in wanted if m in there) or tuple(sorted(there))[:_COLUMNS]
    rows = tuple((str(row["name"]), tuple(_estimate(row["metrics"].get(m)) for m in metrics)) for row in value["rows"])
    targets = tuple((str(t["name"]), None if t["value"] is None else float(t["value"])) for t in value["targets"])
    commit = str(came["commit"] or "no commit")[:12]
    source = f"n = {came['n']}, seed {came['seed']}, commit {commit}, {came['command']}"
    return ResultTable(name, str(value["dataset"]), source, metrics, rows, targets)


def _estimate(value: Mapping[str, Any] | None) -> tuple[float, float, float] | None:
    if value is None or value["mean"] is None:
        return None
    low, high = value["ci95"]
    return float(value["mean"]), float(low), float(high)


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    step = max(1, -(-len(points) // _MOST_LINES))
    return [*points[:-1:step], points[-1]]


def _floats(values: object) -> list[float]:
    return [float(value) for value in values] if isinstance(values, list) else []
