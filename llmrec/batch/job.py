"""A resumable batch job: its parts on disk survive a kill at any moment.

While a job runs, the directory `.ranked.parquet.parts/` exists beside the output `ranked.parquet`. Its `job.json`
identifies the job (content of the input, model, settings), and every finished part of the requests is one Parquet file,
put in place by a rename. A rename is atomic, so an existing part is complete, and missing parts are ranked again: no
row is lost or duplicated. At the end the parts are merged in order into the output, again by a rename. The rows of the
output and their row groups do not depend on how the requests were divided into parts.
"""

from __future__ import annotations

import json
import secrets
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from llmrec.batch import output_files, request_files
from llmrec.batch.output_files import JOB_KEY, OutputSummary
from llmrec.batch.ranker import BatchRanker, IdLookup, one_thread, resolve_ids
from llmrec.errors import ArtifactError, DataError, RequestError
from llmrec.lm.runtime.onednn import MatmulDtype
from llmrec.storage.artifacts import fingerprint_bytes, write_bytes_atomic, write_json_atomic
from llmrec.storage.locks import output_lock

FORMAT = 1
_COUNTS = b"llmrec.counts"


@dataclass(frozen=True)
class Job:
    """A batch job: the input rows, the model, and the output file.

    Attributes:
        input: the file of requests.
        output: the file to write, in a format of `output_files`.
        model: the model directory.
        data: prepared data; the model's own when None.
        k: list length for requests without a `k`.
        start: first row.
        stop: one past the last row.
        part: requests per part.
        numbers: whether request ids are numbers.
        id: hash of everything that determines the output.
        products: number format of the language model's matrix products.
    """

    input: str
    output: str
    model: str
    data: str | None
    k: int
    start: int
    stop: int
    part: int
    numbers: bool
    id: str
    products: MatmulDtype = "float32"

    @property
    def work(self) -> Path:
        """The directory of the parts."""
        output = Path(self.output)
        return output.parent / f".{output.name}.parts"

    @property
    def parts(self) -> int:
        """The number of parts."""
        return -(-(self.stop - self.start) // self.part)

    def bounds(self, part: int) -> tuple[int, int]:
        """Return the rows of a part: first, and one past the last."""
        first = self.start + part * self.part
        return first, min(first + self.part, self.stop)

    def path(self, part: int) -> Path:
        """Return the file of a part."""
        return self.work / f"part-{part:07d}.parquet"

    @property
    def schema(self) -> pa.Schema:
        """The schema of the output."""
        request = pa.int64() if self.numbers else pa.string()
        columns = [("request_id", request), ("item_id", pa.string()), ("rank", pa.int32())]
        return pa.schema([*columns, ("score", pa.float32()), ("source", pa.string())])


def job_id(*parts: str | int) -> str:
    """Return the id of a job: a hash of everything that determines its output."""
    return fingerprint_bytes(json.dumps([FORMAT, *parts]).encode())


def with_resumed_parts(job: Job) -> Job:
    """Return the job with the part size of an earlier, unfinished run of it, if there is one."""
    found = _read_description(job)
    return replace(job, part=int(found["part"])) if found and found.get("id") == job.id else job


def _read_description(job: Job) -> dict[str, Any] | None:
    """Return the content of `job.json`; None if there is no such file, an empty dict if it cannot be read."""
    path = job.work / "job.json"
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


@contextmanager
def open_job(job: Job, restart: bool = False) -> Iterator[None]:
    """Lock the job's output, and create or resume its directory of parts.

    Raises:
        ArtifactError: another process holds it, or its parts belong to another job.
    """
    with output_lock(Path(job.output), "ranking into", "--output"):
        job.work.mkdir(exist_ok=True)
        _resume(job, restart)
        yield


def _resume(job: Job, restart: bool) -> None:
    found = (
        _read_description(job) if any(job.work.glob("part-*.parquet")) else None
    )  # without a finished part, nothing is lost by starting anew
    if found is not None and (found.get("id"), found.get("part")) != (job.id, job.part) and not restart:
        raise ArtifactError(
            f"{job.work} holds parts of another job (other input, model, settings or size of parts); "
            "--restart discards them, or give another --output"
        )
    for entry in job.work.iterdir():
        # parts without a description cannot be trusted; hidden temporary files are left by a writer that was killed
        if restart or found is None or entry.name.startswith("."):
            entry.unlink()
    if restart or found is None:
        write_json_atomic(job.work / "job.json", asdict(job))


def finished_output(job: Job) -> OutputSummary | None:
    """Return the existing output if it is of exactly this job, else None."""
    return output_files.existing_output(Path(job.output), job.id)


def unfinished_parts(job: Job) -> list[int]:
    """Return the parts that are still to be ranked."""
    return [
        part
        for part in range(job.parts)
        if output_files.parquet_metadata(job.path(part)).get(JOB_KEY) != job.id.encode()
    ]


def rank_part(job: Job, part: int, ranker: BatchRanker, ids: IdLookup) -> int:
    """Rank one part and write its file; returns its number of requests."""
    counts: Counter[str] = Counter()
    lines: list[tuple[str | int, str, int, float, str]] = []
    first, last = job.bounds(part)
    found = 0
    with one_thread():
        for row in request_files.read_requests(Path(job.input), first, last):
            found += 1
            task, unknown = resolve_ids(row, ids, job.k)
            counts += unknown
            for rank, one in enumerate(ranker.rank(task) if task else (), 1):
                lines.append((row.request_id, ids.catalog[one.row].id, rank, one.score, one.source))
    if found != last - first:
        raise DataError(f"{job.input} has changed: rows {first + 1} to {last} are not all there any more")
    columns = [list(column) for column in zip(*lines, strict=True)] or [[] for _ in job.schema.names]
    told = {JOB_KEY: job.id.encode(), _COUNTS: json.dumps(counts, sort_keys=True).encode()}
    table = pa.table([pa.array(c, t) for c, t in zip(columns, job.schema.types, strict=True)], job.schema)
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(told), sink, compression="zstd")
    write_bytes_atomic(job.path(part), sink.getvalue().to_pybytes())
    return found


def merge_parts(job: Job) -> tuple[OutputSummary, Counter[str]]:
    """Merge the parts in order into the output and remove them; returns a summary of the output and the counts.

    The output is renamed before the parts are removed: a kill in between leaves a finished output, which
    `finished_output` recognises, or parts from which it can be merged again.
    """
    counts: Counter[str] = Counter()
    temporary = job.work / f".{secrets.token_hex(6)}.output"
    written = output_files.write_output(Path(job.output), temporary, job.id, job.schema, _row_groups(job, counts))
    shutil.rmtree(job.work)
    return written, counts


def remove_parts(job: Job) -> None:
    """Remove parts left behind by a kill after the output was renamed."""
    with output_lock(Path(job.output), "ranking into", "--output"):
        shutil.rmtree(job.work, ignore_errors=True)


def _row_groups(job: Job, counts: Counter[str]) -> Iterator[pa.Table]:
    """Yield the rows of all parts in tables of `ROW_GROUP` rows; the last table holds the remaining rows."""
    waiting: list[pa.Table] = []
    held = 0
    for part in range(job.parts):
        table = pq.read_table(job.path(part))
        counts += Counter(json.loads(table.schema.metadata[_COUNTS]))
        waiting.append(table.replace_schema_metadata(None))
        held += len(table)
        while held >= output_files.ROW_GROUP:
            whole = pa.concat_tables(waiting)
            yield whole.slice(0, output_files.ROW_GROUP).combine_chunks()
            waiting, held = [whole.slice(output_files.ROW_GROUP)], held - output_files.ROW_GROUP
    if held:
        yield pa.concat_tables(waiting).combine_chunks()


def shard_bounds(rows: int, shard: tuple[int, int]) -> tuple[int, int]:
    """Return the rows of shard (i, n), i from 1: first, and one past the last.

    Raises:
        RequestError: i does not lie between 1 and n.
    """
    i, n = shard
    if not 1 <= i <= n:
        raise RequestError(f"shard {i}/{n}: the first number must lie between 1 and the second")
    return rows * (i - 1) // n, rows * i // n


def part_size(rows: int) -> int:
    """Return the number of requests per part: small, so that a kill loses little, but at most a few thousand files."""
    return min(max(64, -(-rows // 4096)), 4096)
