"""Stores the values of every item in Parquet, and reuses values of the same model and sample."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from llmrec.storage.artifacts import write_bytes_atomic

_KEY = b"llmrec"
Values = list[dict[str, float | str]]


@dataclass(frozen=True)
class Sample:
    """The identity of stored values: they are reused only if all fields are equal.

    Attributes:
        task: name of the task.
        version: version of its prompts, checks and scoring.
        files: sha256 of its data files.
        seed: random seed for the draw.
        items: number of items drawn.
        settings: lengths, limits and everything else that affects the values.
        model: fingerprints of the base and, for a tuned model, of the added weights.
    """

    task: str
    version: str
    files: tuple[str, ...]
    seed: int
    items: int
    settings: Mapping[str, int | str]
    model: tuple[str, ...]


@dataclass(frozen=True)
class Measured:
    """Values of the items of a sample: their numbers, one dict of values each, and the seconds taken."""

    numbers: Sequence[int]
    values: Values
    seconds: float


def save_values(path: Path, sample: Sample, measured: Measured) -> None:
    """Write one sample's values; the folder gets a `.gitignore`, since replies and numbers are rows of data."""
    path.parent.mkdir(parents=True, exist_ok=True)
    (path.parent / ".gitignore").write_text("*\n")
    names = list(measured.values[0]) if measured.values else []
    columns: dict[str, list[Any]] = {name: [one[name] for one in measured.values] for name in names}
    table = pa.table({"item": list(measured.numbers), **columns})
    described = {"sample": asdict(sample), "seconds": measured.seconds}
    table = table.replace_schema_metadata({_KEY: json.dumps(described, sort_keys=True).encode()})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    write_bytes_atomic(path, sink.getvalue().to_pybytes())


def find_values(path: Path, sample: Sample) -> Measured | None:
    """Return the stored values of exactly this sample; None if they are missing, unreadable or of another sample."""
    try:
        table = pq.read_table(path)
        described = json.loads((table.schema.metadata or {})[_KEY])
        if described["sample"] != json.loads(json.dumps(asdict(sample))):
            return None
        numbers = table.column("item").to_pylist()
        return Measured(numbers, table.drop_columns(["item"]).to_pylist(), float(described["seconds"]))
    except (OSError, KeyError, ValueError, pa.ArrowException):
        return None
