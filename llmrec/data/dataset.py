"""Data sets: reads source files by format, and saves, loads and opens the prepared form that every later stage uses.

A prepared data set is an artifact of two Parquet files: the catalogue and the interactions. It is opened by directory
or by name; a known name is downloaded and prepared once below `cache_home()`.
"""

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
from llmrec.data.readers.assembly import DEFAULT_RULES, JoinRules
from llmrec.data.readers.common import Report
from llmrec.data.readers.movielens import convert_100k, read_movielens
from llmrec.data.readers.recbole import read_ml_100k, read_recbole
from llmrec.data.readers.s3rec import read_s3rec
from llmrec.errors import ArtifactError, DataError
from llmrec.storage.artifacts import (
    JSON,
    check_replaceable,
    expect_fingerprint,
    read_manifest,
    write_artifact,
)
from llmrec.storage.download import fetch
from llmrec.storage.registry import cache_home, cache_lock

Dataset = tuple[Catalog, Interactions, Report]

SOURCES: Mapping[str, Callable[[Path, JoinRules], Dataset]] = {
    "amazon": read_amazon,
    "ml-100k": read_ml_100k,
    "movielens": read_movielens,
    "recbole": read_recbole,
    "s3rec": read_s3rec,
}
DATASET_KIND = "data"
DOWNLOADABLE = ("ml-100k",)  # data sets that are downloaded when they are missing
# Columns of the two files, and the approximate memory of one row of each after reading, not counting its text.
_CATALOG = {name: pa.string() for name in ("id", "title", "text", "attributes")}
_INTERACTIONS = {"user": pa.string(), "row": pa.int64(), "time": pa.int64(), "value": pa.float32()}
_ITEM_BYTES, _INTERACTION_BYTES = 512, 128
_LARGEST = 10**300  # whole numbers up to here still fit into a float


def read_source(source: str, path: Path, rules: JoinRules = DEFAULT_RULES) -> Dataset:
    """Read a data set in one of the known formats.

    Raises:
        DataError: an unknown source, or a file with invalid contents; the message names file and line.
    """
    if source not in SOURCES:
        raise DataError(f"source {source!r} is unknown; choose from: {', '.join(sorted(SOURCES))}")
    return SOURCES[source](Path(path), rules)


def check_writable(path: Path) -> None:
    """Raise ArtifactError where `save_data` would refuse to write, so that callers can check before a long read."""
    check_replaceable(path, DATASET_KIND)


def save_data(path: Path, catalog: Catalog, interactions: Interactions, report: Report) -> None:
    """Write prepared data as an artifact of kind `data`: catalog.parquet and interactions.parquet."""
    prints = {"catalog": catalog.fingerprint, "interactions": interactions.fingerprint}
    meta: dict[str, JSON] = {
        "domain": catalog.domain,
        "counts": dict(report.counts),
        "dropped": dict(report.dropped),
        "notes": list(report.notes),
        "notes_by": catalog.notes_by,
    }
    with write_artifact(path, DATASET_KIND, prints, meta) as directory:
        pq.write_table(_catalog_table(catalog), directory / "catalog.parquet")
        pq.write_table(_interactions_table(interactions), directory / "interactions.parquet")


def load_data(path: Path) -> Dataset:
    """Read what `save_data` wrote.

    Raises:
        ArtifactError: the artifact is damaged, or its contents do not match the fingerprints in its manifest.
    """
    path = Path(path)
    manifest = read_manifest(path, DATASET_KIND)
    try:
        items = parquet.read_columns(path / "catalog.parquet", _CATALOG, _ITEM_BYTES)
        catalog = _catalog(items, str(manifest.meta["domain"]), str(manifest.meta.get("notes_by", "")))
        interactions = _interactions(_interaction_table(path, len(catalog)))
        counts, dropped = dict(manifest.meta["counts"]), dict(manifest.meta["dropped"])
        report = Report(counts, dropped, tuple(manifest.meta["notes"]))
    except (pa.ArrowException, ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0][:300]
        raise ArtifactError(f"{path} is not a readable data artifact: {why}") from None
    expect_fingerprint(manifest, "catalog", catalog.fingerprint, "catalogue")
    expect_fingerprint(manifest, "interactions", interactions.fingerprint, "interactions")
    return catalog, interactions, report


def dataset_directory(name_or_path: str | Path, progress: bool = True) -> Path:
    """Return the directory of prepared data; a known data set is downloaded and prepared when it is missing.

    Raises:
        DataError: neither a directory nor a known name.
    """
    path = Path(name_or_path)
    if path.is_dir():
        return path
    name = str(name_or_path)
    prepared = cache_home() / "data" / name
    if name not in DOWNLOADABLE:
        if "/" not in name and prepared.is_dir():
            return prepared
        raise DataError(
            f"no prepared data '{name}'; give a directory made by `llmrec data prepare`, or {', '.join(DOWNLOADABLE)}"
        )
    if not prepared.is_dir():
        files = movielens_files(progress)
        with cache_lock(f"prepare-{name}"):
            if not prepared.is_dir():
                save_data(prepared, *read_source(name, files))
    return prepared


def movielens_files(progress: bool = True) -> Path:
    """Return the directory of MovieLens-100k's files; they are downloaded when they are missing."""
    return fetch("ml-100k", progress, convert_ml_100k)


def convert_ml_100k(archive: bytes, directory: Path) -> Mapping[str, str]:
    """Convert GroupLens' MovieLens-100k archive to RecBole's atomic files; returns the fingerprints of the contents."""
    convert_100k(archive, directory)
    catalog, interactions, _ = read_ml_100k(directory)
    return {"catalog": catalog.fingerprint, "interactions": interactions.fingerprint}


def open_data(name_or_path: str | Path, progress: bool = True) -> tuple[Catalog, Interactions]:
    """Open prepared data and return its catalogue and interactions."""
    catalog, interactions, _ = load_data(dataset_directory(name_or_path, progress))
    return catalog, interactions


def dataset_reference(path: str | Path) -> str:
    """Return how a model refers to its data: by name if it lies below `cache_home()`, else by absolute path."""
    path = Path(path)
    if str(path) in DOWNLOADABLE:
        return str(path)
    return path.name if path.resolve().parent == (cache_home() / "data").resolve() else str(path.resolve())


def dataset_statistics(catalog: Catalog, interactions: Interactions) -> dict[str, Any]:
    """Return statistics to look at before training: sizes, density, history lengths, cold items, ties, gaps."""
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
        "duplicate_labels": catalog.repeated_labels,
        "time_range": [int(x.time.min()), int(x.time.max())] if len(x) else [],
        "ties_in_time": int(same_time.sum()),
        "items_without_text": sum(not item.text for item in catalog.items),
        "items_without_attributes": sum(not item.attributes for item in catalog.items),
        "attributes": {name: len(catalog.values(name)) for name in catalog.attribute_names},
        "catalog_fingerprint": catalog.fingerprint,
        "interactions_fingerprint": x.fingerprint,
    }


def _catalog_table(catalog: Catalog) -> pa.Table:
    """Return the catalogue as a table, with attributes as one JSON column: they vary by item and keep their types."""
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


def _catalog(table: pa.Table, domain: str, notes_by: str) -> Catalog:
    fields = (table.column(name).to_pylist() for name in _CATALOG)
    items = [Item(id, title, text, _attributes(id, values)) for id, title, text, values in zip(*fields, strict=True)]
    return Catalog(items, domain, notes_by)


def _attributes(id: str, text: str) -> dict[str, Value]:
    """Parse the attributes of an item from JSON; `Catalog` checks that their numbers are finite."""
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


def _interaction_table(path: Path, items: int) -> pa.Table:
    """Read the table of interactions; rows outside the catalogue are refused, because rows determine array lengths."""
    table = parquet.read_columns(path / "interactions.parquet", _INTERACTIONS, _INTERACTION_BYTES)
    row = table.column("row").to_numpy()
    outside = row[(row < 0) | (row >= items)]
    if len(outside):
        raise DataError(f"an interaction names row {outside[0]}; the catalogue has {items} items, from row 0")
    return table


def _interactions(table: pa.Table) -> Interactions:
    row, time, value = (table.column(name).to_numpy() for name in ("row", "time", "value"))
    return Interactions.build(table.column("user").to_pylist(), row, time, value)
