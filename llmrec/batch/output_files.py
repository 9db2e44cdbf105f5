"""Writes ranked lists atomically as Parquet, CSV or JSON lines, one item per row.

A Parquet file holds the id of its job in its metadata. A text file such as `ranked.csv` has a sidecar `.ranked.csv.job`
with that id and the hash of the text. So a file that was edited later, or written by another job, is not mistaken for
the finished output.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from llmrec.errors import RequestError
from llmrec.storage.artifacts import JSON, sha256_file, write_json_atomic

JOB_KEY = b"llmrec.job"
ROW_GROUP = 2**16  # rows per Parquet row group
_KINDS = {".parquet": "parquet", ".pq": "parquet", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
FORMULA = "=+-@\t\r"  # first characters of a cell that spreadsheets evaluate as a formula


@dataclass(frozen=True)
class OutputSummary:
    """Summary of a finished output.

    Attributes:
        rows: number of rows.
        formulas: number of rows of a CSV file with an id that a spreadsheet would treat as a formula.
    """

    rows: int
    formulas: int = 0


def output_format(output: Path) -> str:
    """Return the format of an output by its extension: parquet, csv or jsonl.

    Raises:
        RequestError: any other extension.
    """
    kind = _KINDS.get(output.suffix.lower())
    if kind is None:
        raise RequestError(f"--output is {str(output)!r}; its name must end in .parquet, .csv or .jsonl")
    return kind


def existing_output(output: Path, job: str) -> OutputSummary | None:
    """Return the finished output of exactly this job; None if there is none, or it is another job's or was changed."""
    if output_format(output) == "parquet":
        return (
            OutputSummary(pq.read_metadata(output).num_rows)
            if parquet_metadata(output).get(JOB_KEY) == job.encode()
            else None
        )
    try:
        told = json.loads(_sidecar(output).read_bytes())
        if told["job"] == job and told["bytes"] == output.stat().st_size and told["sha256"] == sha256_file(output):
            return OutputSummary(int(told["rows"]), int(told["formulas"]))
    except (OSError, ValueError, TypeError, KeyError):
        pass  # no sidecar, or one that cannot be trusted
    return None


def parquet_metadata(path: Path) -> dict[bytes, bytes]:
    """Return the metadata of a Parquet file; empty when it cannot be read."""
    try:
        return dict(pq.read_schema(path).metadata or {})
    except (OSError, pa.ArrowException):
        return {}


def write_output(
    output: Path, temporary: Path, job: str, schema: pa.Schema, tables: Iterable[pa.Table]
) -> OutputSummary:
    """Write tables to `temporary` in the format of `output`, and rename it to `output`.

    Args:
        output: file to write; an existing one is replaced.
        temporary: a file on the same disk; always removed afterwards.
        job: the id of the job.
        schema: schema of the tables.
        tables: tables of `ROW_GROUP` rows, except the last; each becomes one Parquet row group.
    """
    kind = output_format(output)
    try:
        with _WRITERS[kind](temporary, schema.with_metadata({JOB_KEY: job.encode()})) as put:
            done = [(len(table), put(table)) for table in tables]
        written = OutputSummary(sum(rows for rows, _ in done), sum(formulas for _, formulas in done))
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        told: dict[str, JSON] = (
            {} if kind == "parquet" else {"bytes": temporary.stat().st_size, "sha256": sha256_file(temporary)}
        )
        os.replace(temporary, output)
    finally:
        temporary.unlink(missing_ok=True)
    directory = os.open(output.parent, os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)
    if told:
        write_json_atomic(_sidecar(output), {"job": job, **told, **asdict(written)})
    return written


def _sidecar(output: Path) -> Path:
    return output.parent / f".{output.name}.job"


# A writer is a context that yields a function, which writes one table and returns its number of rows with a formula.
_Put = Callable[[pa.Table], int]


@contextmanager
def _parquet(path: Path, schema: pa.Schema) -> Iterator[_Put]:
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:

        def put(table: pa.Table) -> int:
            writer.write_table(table.replace_schema_metadata(schema.metadata), row_group_size=ROW_GROUP)
            return 0

        yield put


@contextmanager
def _csv(path: Path, schema: pa.Schema) -> Iterator[_Put]:
    """Write CSV in UTF-8, with commas and all text quoted; ids are not escaped, so that they can be joined on."""
    with _text(path) as handle:
        writer = csv.writer(handle, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
        writer.writerow(schema.names)

        def put(table: pa.Table) -> int:
            columns = _columns(table)
            writer.writerows(zip(*columns.values(), strict=True))
            return sum(map(_is_formula, columns["request_id"], columns["item_id"]))

        yield put


@contextmanager
def _jsonl(path: Path, schema: pa.Schema) -> Iterator[_Put]:
    with _text(path) as handle:

        def put(table: pa.Table) -> int:
            columns = _columns(table)
            for row in zip(*columns.values(), strict=True):
                handle.write(json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False) + "\n")
            return 0

        yield put


def _text(path: Path) -> IO[str]:
    return path.open("w", encoding="utf-8", newline="")


def _columns(table: pa.Table) -> Mapping[str, Sequence[object]]:
    """Return columns as Python values; scores with the fewest digits that identify a float32."""
    columns = {name: table[name].to_pylist() for name in table.schema.names}
    scores = np.asarray(columns["score"], np.float32)
    return {**columns, "score": [float(digits) for digits in scores.astype(str)]}


def _is_formula(*cells: object) -> bool:
    """Return whether a spreadsheet would evaluate one of these cells: a text that begins with `FORMULA`, no number."""
    return any(isinstance(cell, str) and cell[:1] in FORMULA and cell != "" and not _is_number(cell) for cell in cells)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


_WRITERS = {"parquet": _parquet, "csv": _csv, "jsonl": _jsonl}
