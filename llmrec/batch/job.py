"""A resumable batch job: its parts on disk survive a kill at any moment.

Beside the output `ranked.parquet` stands `.ranked.parquet.parts/` while work goes on: `job.json` says which work it is
(content of the input, model, settings), and every part of the requests becomes one Parquet file, put there by a rename.
A rename cannot be half done, so a part that is there is whole, and what is missing is ranked again: no row is lost or
doubled. At the end the parts become the output in order, by one more rename. Rows and their grouping in the output do
not depend on how the requests were cut.
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
        output: the file to write, of a kind of `output_files`.
        model: the model directory.
        data: prepared data, the model's own when None.
        k: items for requests that do not say.
        start: first row.
        stop: one past the last row.
        part: requests of a part.
        numbers: whether request ids are numbers.
        id: hash of all that decides what comes out.
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
        """Where the parts are."""
        output = Path(self.output)
        return output.parent / f".{output.name}.parts"

    @property
    def parts(self) -> int:
        """How many parts there are."""
        return -(-(self.stop - self.start) // self.part)

    def bounds(self, part: int) -> tuple[int, int]:
        """The rows of a part: first, and one past the last."""
        first = self.start + part * self.part
        return first, min(first + self.part, self.stop)

    def path(self, part: int) -> Path:
        """The file of a part."""
        return self.work / f"part-{part:07d}.parquet"

    @property
    def schema(self) -> pa.Schema:
        """What an answer row looks like."""
        request = pa.int64() if self.numbers else pa.string()
        columns = [("request_id", request), ("item_id", pa.string()), ("rank", pa.int32())]
        return pa.schema([*columns, ("score", pa.float32()), ("source", pa.string())])


def job_id(*parts: str | int) -> str:
    """The id of a job from all that decides what comes out."""
    return fingerprint_bytes(json.dumps([FORMAT, *parts]).encode())


def with_resumed_parts(job: Job) -> Job:
    """Return the same job with the part size of an earlier, unfinished run."""
    found = _read_description(job)
    return replace(job, part=int(found["part"])) if found and found.get("id") == job.id else job


def _read_description(job: Job) -> dict[str, Any] | None:
    """What `job.json` says; None where there is none, nothing where it cannot be read."""
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
    """Lock the job's directory of parts and create or resume it.

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
    )  # nothing was finished: nothing is lost
    if found is not None and (found.get("id"), found.get("part")) != (job.id, job.part) and not restart:
        raise ArtifactError(
            f"{job.work} holds parts of another job (other input, model, settings or size of parts); "
            "--restart discards them, or give another --output"
        )
    for entry in job.work.iterdir():
        # without a description nothing can be trusted; a writer that was killed leaves a hidden temporary file
        if restart or found is None or entry.name.startswith("."):
            entry.unlink()
    if restart or found is None:
        write_json_atomic(job.work / "job.json", asdict(job))


def finished_output(job: Job) -> OutputSummary | None:
    """The output that is there already, if it is from exactly this job."""
    return output_files.existing_output(Path(job.output), job.id)


def unfinished_parts(job: Job) -> list[int]:
    """The parts that are still to be ranked."""
    return [
        part
        for part in range(job.parts)
        if output_files.parquet_metadata(job.path(part)).get(JOB_KEY) != job.id.encode()
    ]


def rank_part(job: Job, part: int, ranker: BatchRanker, ids: IdLookup) -> int:
    """Rank one part and put its file in place; returns how many requests it had."""
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
    """Make the output of the parts, in order, and remove them; returns what was written and what was counted.

    The rename comes before the removal: a kill between the two leaves a finished output, which `finished_output`
    recognises, or parts from which it is made again.
    """
    counts: Counter[str] = Counter()
    temporary = job.work / f".{secrets.token_hex(6)}.output"
    written = output_files.write_output(Path(job.output), temporary, job.id, job.schema, _row_groups(job, counts))
    shutil.rmtree(job.work)
    return written, counts


def remove_parts(job: Job) -> None:
    """Remove parts that a kill after the output's rename has left behind."""
    with output_lock(Path(job.output), "ranking into", "--output"):
        shutil.rmtree(job.work, ignore_errors=True)


def _row_groups(job: Job, counts: Counter[str]) -> Iterator[pa.Table]:
    """The rows of all parts in tables of `GROUP` rows, the last one of what is left."""
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
    """The rows of shard (i, n), i from 1: first, and one past the last.

    Raises:
        RequestError: i does not lie between 1 and n.
    """
    i, n = shard
    if not 1 <= i <= n:
        raise RequestError(f"shard {i}/{n}: the first number must lie between 1 and the second")
    return rows * (i - 1) // n, rows * i // n


def part_size(rows: int) -> int:
    """Requests of a part: few, so that little is lost, but no more than some thousand files."""
    return min(max(64, -(-rows // 4096)), 4096)
