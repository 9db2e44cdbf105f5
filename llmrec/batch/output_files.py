"""Writes ranked lists as Parquet, CSV or JSON lines, one item a row, in one atomic step.

A Parquet file carries the id of its job in its metadata. Beside a text file, `ranked.csv`, stands `.ranked.csv.job`
with that id and the hash of the text: a file that was edited since, or made by other work, is not taken for finished.
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
ROW_GROUP = 2**16  # rows of a row group of Parquet
_KINDS = {".parquet": "parquet", ".pq": "parquet", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
FORMULA = "=+-@\t\r"  # what a cell begins with that spreadsheets calculate


@dataclass(frozen=True)
class OutputSummary:
    """A finished output.

    Attributes:
        rows: how many.
        formulas: of a CSV file, rows with an id that a spreadsheet takes for a formula.
    """

    rows: int
    formulas: int = 0


def output_format(output: Path) -> str:
    """The kind of an output by its name: parquet, csv or jsonl.

    Raises:
        RequestError: another name.
    """
    kind = _KINDS.get(output.suffix.lower())
    if kind is None:
        raise RequestError(f"--output is {str(output)!r}; its name must end in .parquet, .csv or .jsonl")
    return kind


def existing_output(output: Path, job: str) -> OutputSummary | None:
    """Return the finished output of exactly this job; None for none, another job's, or a file changed since."""
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
        pass  # nothing there, or nothing that can be trusted
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
    """Write tables to `temporary` in the kind that `output` asks for, and rename it to `output`.

    Args:
        output: takes the place of what is there.
        temporary: a file on the same disk; gone afterwards, whatever happens.
        job: the id of the job.
        schema: of the tables.
        tables: of `ROW_GROUP` rows, but for the last one; each is a row group of Parquet.
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


# A writer is open while its context lasts; it is given tables and says how many rows have a formula.
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
    """UTF-8, commas, every text in quotation marks; ids stand as they are, so that they can be joined on."""
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
    """Columns as Python values; scores with as few digits as tell a float32 from its neighbours."""
    columns = {name: table[name].to_pylist() for name in table.schema.names}
    scores = np.asarray(columns["score"], np.float32)
    return {**columns, "score": [float(digits) for digits in scores.astype(str)]}


def _is_formula(*cells: object) -> bool:
    """Whether a spreadsheet would calculate one of these cells: a text that begins so and is no number."""
    return any(isinstance(cell, str) and cell[:1] in FORMULA and cell != "" and not _is_number(cell) for cell in cells)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


_WRITERS = {"parquet": _parquet, "csv": _csv, "jsonl": _jsonl}
