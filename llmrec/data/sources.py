"""Data files in, (Catalog, Interactions, Report) out; and the prepared form that every later stage reads."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from llmrec.data.catalog import Catalog, Item, Value
from llmrec.data.interactions import Interactions
from llmrec.data.readers import parquet
from llmrec.data.readers.amazon import read_amazon
from llmrec.data.readers.common import Report
from llmrec.data.readers.joining import RULES, Rules
from llmrec.data.readers.movielens import read_movielens
from llmrec.data.readers.recbole import read_ml_100k, read_recbole
from llmrec.data.readers.s3rec import read_s3rec
from llmrec.errors import ArtifactError, DataError
from llmrec.storage.artifacts import JSON, check_replaceable, expect_fingerprint, read_manifest, writing

__all__ = ["SOURCES", "Report", "check", "load_data", "read", "save_data"]

Data = tuple[Catalog, Interactions, Report]

SOURCES: Mapping[str, Callable[[Path, Rules], Data]] = {
    "amazon": read_amazon,
    "ml-100k": read_ml_100k,
    "movielens": read_movielens,
    "recbole": read_recbole,
    "s3rec": read_s3rec,
}
KIND = "data"
# Columns of the two files, and about what a row of each takes in memory once it is read, with no text in it.
_CATALOG = {name: pa.string() for name in ("id", "title", "text", "attributes")}
_INTERACTIONS = {"user": pa.string(), "row": pa.int64(), "time": pa.int64(), "value": pa.float32()}
_ITEM_BYTES, _INTERACTION_BYTES = 512, 128
_LARGEST = 10**300  # a whole number that is still a float


def read(source: str, path: Path, rules: Rules = RULES) -> Data:
    """Read a data set in one of the known forms.

    Raises:
        DataError: an unknown source, or a file that is not what it should be (names file and line).
    """
    if source not in SOURCES:
        raise DataError(f"source {source!r} is unknown; choose from: {', '.join(sorted(SOURCES))}")
    return SOURCES[source](Path(path), rules)


def check_place(path: Path) -> None:
    """Raise ArtifactError where `save_data` would refuse to write; asked before anything large is read."""
    check_replaceable(path, KIND)


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
        items = parquet.read(path / "catalog.parquet", _CATALOG, _ITEM_BYTES)
        catalog = _catalog(items, str(manifest.meta["domain"]))
        interactions = _interactions(_log(path, len(catalog)))
        counts, dropped = dict(manifest.meta["counts"]), dict(manifest.meta["dropped"])
        report = Report(counts, dropped, tuple(manifest.meta["notes"]))
    except (pa.ArrowException, ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0][:300]
        raise ArtifactError(f"{path} is not a readable data artifact: {why}") from None
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
        "duplicate_labels": catalog.repeated,
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
    fields = (table.column(name).to_pylist() for name in _CATALOG)
    items = [Item(id, title, text, _attributes(id, values)) for id, title, text, values in zip(*fields, strict=True)]
    return Catalog(items, domain)


def _attributes(id: str, text: str) -> dict[str, Value]:
    """Attributes of an item out of their JSON; that numbers are finite is for `Catalog` to check."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"item {id[:60]!r}: its attributes are not JSON: {str(error)[:100]}") from None
    if not isinstance(found, dict):
        raise DataError(f"item {id[:60]!r}: its attributes are {text[:60]!r}; they must be a JSON object")
    values = {name: tuple(one) if isinstance(one, list) else one for name, one in found.items()}
    for name, one in values.items():
        words = isinstance(one, tuple) and all(isinstance(word, str) for word in one)
        large = isinstance(one, int) and abs(one) > _LARGEST
        if large or not (words or isinstance(one, str | int | float)):
            short = f"{str(one)[:60]}; use a word, words or a finite number"
            raise DataError(f"item {id[:60]!r}: attribute {name[:60]!r} is {short}")
    return values


def _log(path: Path, items: int) -> pa.Table:
    """The table of interactions; no array may be as long as a row that is not there says."""
    table = parquet.read(path / "interactions.parquet", _INTERACTIONS, _INTERACTION_BYTES)
    row = table.column("row").to_numpy()
    outside = row[(row < 0) | (row >= items)]
    if len(outside):
        raise DataError(f"an interaction names row {outside[0]}; the catalogue has {items} items, from row 0")
    return table


def _interactions(table: pa.Table) -> Interactions:
    row, time, value = (table.column(name).to_numpy() for name in ("row", "time", "value"))
    return Interactions.build(table.column("user").to_pylist(), row, time, value)
