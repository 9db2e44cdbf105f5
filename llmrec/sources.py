"""Data files in, (Catalog, Interactions, Report) out; and the prepared form that every later stage reads."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from llmrec.amazon import read_amazon
from llmrec.artifacts import JSON, expect_fingerprint, read_manifest, writing
from llmrec.catalog import Catalog, Item
from llmrec.errors import ArtifactError, DataError
from llmrec.grouplens import read_movielens
from llmrec.interactions import Interactions
from llmrec.reading import Report
from llmrec.recbole import read_ml_100k, read_recbole
from llmrec.s3rec import read_s3rec

__all__ = ["SOURCES", "Report", "check", "load_data", "read", "save_data"]

Data = tuple[Catalog, Interactions, Report]

SOURCES: Mapping[str, Callable[[Path], Data]] = {
    "amazon": read_amazon,
    "ml-100k": read_ml_100k,
    "movielens": read_movielens,
    "recbole": read_recbole,
    "s3rec": read_s3rec,
}
KIND = "data"


def read(source: str, path: Path) -> Data:
    """Read a data set in one of the known forms.

    Raises:
        DataError: an unknown source, or a file that is not what it should be (names file and line).
    """
    if source not in SOURCES:
        raise DataError(f"source {source!r} is unknown; choose from: {', '.join(sorted(SOURCES))}")
    return SOURCES[source](Path(path))


def save_data(path: Path, catalog: Catalog, interactions: Interactions, report: Report) -> None:
    """Write an artifact of kind `data`: catalog.parquet and interactions.parquet."""
    prints = {"catalog": catalog.fingerprint, "interactions": interactions.fingerprint}
    meta: dict[str, JSON] = {
        "domain": catalog.domain,
        "counts": dict(report.counts),
        "dropped": dict(report.dropped),
        "notes": list(report.notes),
    }
    with writing(path, KIND, prints, meta) as directory:
        pq.write_table(_catalog_table(catalog), directory / "catalog.parquet")
        pq.write_table(_interactions_table(interactions), directory / "interactions.parquet")


def load_data(path: Path) -> Data:
    """Read what `save_data` wrote.

    Raises:
        ArtifactError: damaged, or the contents do not have the fingerprints of the manifest.
    """
    path = Path(path)
    manifest = read_manifest(path, KIND)
    try:
        catalog = _catalog(pq.read_table(path / "catalog.parquet"), str(manifest.meta["domain"]))
        interactions = _interactions(pq.read_table(path / "interactions.parquet"))
        counts, dropped = dict(manifest.meta["counts"]), dict(manifest.meta["dropped"])
        report = Report(counts, dropped, tuple(manifest.meta["notes"]))
    except (pa.ArrowException, DataError, KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"{path} is not a readable data artifact: {error}") from None
    expect_fingerprint(manifest, "catalog", catalog.fingerprint, "catalogue")
    expect_fingerprint(manifest, "interactions", interactions.fingerprint, "interactions")
    return catalog, interactions, report


def check(catalog: Catalog, interactions: Interactions) -> dict[str, Any]:
    """Return what to look at before training: sizes, density, history lengths, cold items, ties, gaps."""
    x = interactions
    lengths = np.diff(x.offsets)
    taken = np.bincount(x.row, minlength=len(catalog))
    pairs = len(np.unique(np.stack([x.user, x.row]), axis=1)[0]) if len(x) else 0
    same_time = (np.diff(x.user) == 0) & (np.diff(x.time) == 0)
    labels = [catalog.label(row).casefold() for row in range(len(catalog))]
    points = {"min": 0.0, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95, "max": 1.0}
    quantiles = {name: float(np.quantile(lengths, q)) if len(lengths) else 0.0 for name, q in points.items()}
    return {
        "domain": catalog.domain,
        "items": len(catalog),
        "users": len(x.users),
        "interactions": len(x),
        "density": pairs / max(1, len(catalog) * len(x.users)),
        "history_length": quantiles,
        "users_under_3": int((lengths < 3).sum()),
        "cold_items": int((taken == 0).sum()),
        "repeated_pairs": len(x) - pairs,
        "duplicate_labels": len(labels) - len(set(labels)),
        "time_range": [int(x.time.min()), int(x.time.max())] if len(x) else [],
        "ties_in_time": int(same_time.sum()),
        "items_without_text": sum(not item.text for item in catalog.items),
        "items_without_attributes": sum(not item.attributes for item in catalog.items),
        "attributes": {name: len(catalog.values(name)) for name in catalog.attribute_names},
        "catalog_fingerprint": catalog.fingerprint,
        "interactions_fingerprint": x.fingerprint,
    }


def _catalog_table(catalog: Catalog) -> pa.Table:
    """Attributes differ from item to item and keep their types, so they are one JSON column."""
    return pa.table(
        {
            "id": [item.id for item in catalog.items],
            "title": [item.title for item in catalog.items],
            "text": [item.text for item in catalog.items],
            "attributes": [json.dumps(dict(item.attributes), ensure_ascii=False) for item in catalog.items],
        }
    )


def _interactions_table(x: Interactions) -> pa.Table:
    users = pa.DictionaryArray.from_arrays(pa.array(x.user.astype(np.int32)), pa.array(x.users, pa.string()))
    return pa.table({"user": users, "row": x.row, "time": x.time, "value": x.value})


def _catalog(table: pa.Table, domain: str) -> Catalog:
    columns = (table.column(name).to_pylist() for name in ("id", "title", "text", "attributes"))
    items = []
    for id, title, text, attributes in zip(*columns, strict=True):
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(attributes).items()}
        items.append(Item(id, title, text, values))
    return Catalog(items, domain)


def _interactions(table: pa.Table) -> Interactions:
    row, time, value = (table.column(name).to_numpy() for name in ("row", "time", "value"))
    return Interactions.build(table.column("user").to_pylist(), row, time, value)
