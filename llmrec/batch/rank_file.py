"""Ranks a file of requests into a file of items: resumable, and byte-identical however the work is divided.

The result for a request depends on the request and the model alone. So the output does not depend on the number of
processes, the size of parts, or how often the job was killed and resumed. The outputs of all shards of an input,
concatenated, hold the same rows as the output of the whole input.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path

from llmrec.batch import output_files, process_pool, request_files
from llmrec.batch.job import (
    Job,
    finished_output,
    job_id,
    merge_parts,
    open_job,
    part_size,
    remove_parts,
    shard_bounds,
    unfinished_parts,
    with_resumed_parts,
)
from llmrec.batch.ranker import IdLookup, resolve_ids
from llmrec.checkpoint import hub
from llmrec.checkpoint.pretrained import MODEL_KIND
from llmrec.data.dataset import open_data
from llmrec.errors import ArtifactError, RequestError
from llmrec.lm.runtime.onednn import parse_matmul_dtype
from llmrec.recommender import MAX_K, SHIPPED
from llmrec.storage.artifacts import expect_fingerprint, read_manifest, sha256_file

Progress = Callable[[int, int], None]
Runner = Callable[[Job, Sequence[int]], Iterator[int]]


@dataclass(frozen=True)
class Settings:
    """Settings for ranking a file.

    Attributes:
        model: the model directory; the shipped one when None.
        data: prepared data; the model's own when None.
        k: list length for requests without a `k`.
        shard: (i, n): the i-th of n equal slices of the input, i from 1.
        strict: refuse unknown ids instead of leaving them out and counting them.
        part: requests per part; chosen by the size of the input when None. Does not change the output.
        restart: discard finished parts and an existing output.
        products: number format of the language model's matrix products: float32, bfloat16, or auto for the faster one
            on this machine. Another format makes another job, since scores differ in the third digit.
    """

    model: Path | None = None
    data: str | None = None
    k: int = 10
    shard: tuple[int, int] = (1, 1)
    strict: bool = False
    part: int | None = None
    restart: bool = False
    products: str = "float32"


@dataclass(frozen=True)
class Report:
    """The result of ranking a file.

    Attributes:
        requests: number of requests in the input, or in the shard.
        resumed: number of these that an earlier run had ranked.
        answers: number of output rows.
        counts: numbers of unknown ids, and of requests skipped because of them.
        formulas: number of rows of a CSV output with an id that a spreadsheet would treat as a formula.
    """

    requests: int
    resumed: int
    answers: int
    counts: Counter[str] = field(default_factory=Counter)
    formulas: int = 0


def rank_file(
    input: Path, output: Path, settings: Settings, runner: Runner | None = None, progress: Progress | None = None
) -> Report:
    """Rank the requests of a file into a file with the columns `request_id, item_id, rank, score, source`.

    Args:
        input: requests, see `request_files`; every row is validated before the first is ranked.
        output: file to write: Parquet, CSV or JSON lines, by its extension; replaced when all is done.
        settings: the settings.
        runner: ranks parts of a job and yields the number of requests of each finished part; this process when None.
        progress: called with the number of requests done and the total.

    Raises:
        DataError: the input is not valid; one line with file and place.
        RequestError: a setting out of bounds, or an unknown id with `strict`.
        ArtifactError: no such model, or another process is writing the output, or it belongs to another job.
    """
    if not 1 <= settings.k <= MAX_K:
        raise RequestError(f"-k is {settings.k}; it must lie between 1 and {MAX_K}")
    if settings.part is not None and settings.part < 1:
        raise RequestError(f"a part of {settings.part} requests; it must have at least 1")
    job, counts = plan_job(input, output, settings)
    requests = job.stop - job.start
    if not settings.restart and (there := finished_output(job)):
        remove_parts(job)
        return Report(requests, requests, there.rows, counts, there.formulas)
    if settings.part is None and not settings.restart:
        job = with_resumed_parts(job)
    with open_job(job, settings.restart):
        todo = unfinished_parts(job)
        done = resumed = requests - sum(last - first for first, last in map(job.bounds, todo))
        tell = progress or (lambda done, total: None)
        tell(done, requests)
        if todo:
            for count in (runner or partial(process_pool.run_local, workers=1))(job, todo):
                done += count
                tell(done, requests)
        written, counts = merge_parts(job)
    return Report(requests, resumed, written.rows, counts, written.formulas)


def plan_job(input: Path, output: Path, settings: Settings) -> tuple[Job, Counter[str]]:
    """Check the whole input against the model's data; returns the job and the counts of unknown ids.

    Raises:
        DataError, RequestError, ArtifactError: see `rank_file`.
    """
    if output.is_dir():
        raise ArtifactError(f"{output} is a directory; --output is a file to write")
    output_files.output_format(output)
    if input.resolve() == output.resolve():
        raise RequestError(f"--output {str(output)!r} is the input; give another file")
    products = parse_matmul_dtype(settings.products)
    model, data = resolve_locations(settings.model, settings.data)
    catalog, interactions = open_data(data)
    expect_fingerprint(read_manifest(model, MODEL_KIND, verify=False), "catalog", catalog.fingerprint, "catalogue")
    survey = request_files.scan_requests(input)
    ids = IdLookup(catalog, interactions)
    start, stop = shard_bounds(survey.rows, settings.shard)
    counts: Counter[str] = Counter()
    for row in request_files.read_requests(input, start, stop):
        counts += resolve_ids(row, ids, settings.k, settings.strict)[1]
    content = (survey.sha256, sha256_file(model / "manifest.json"), catalog.fingerprint, interactions.fingerprint)
    versions = (version("llmrec"), version("torch"))
    id = job_id(*content, *versions, settings.k, start, stop, *({products} - {"float32"}))
    part = settings.part or part_size(stop - start)
    where = (str(input.resolve()), str(output.resolve()), str(model))
    return Job(*where, data, settings.k, start, stop, part, survey.numbers, id, products), counts


def resolve_locations(model: Path | None, data: str | None) -> tuple[Path, str]:
    """Return the model directory (the shipped one if None, downloaded if `org/name`) and its data, as absolute paths.

    Data that is not a directory is returned by name.

    Raises:
        ArtifactError: no such model.
    """
    model = SHIPPED if model is None else hub.resolve_model(model)
    if not model.is_dir():
        raise ArtifactError(f"no model directory {str(model)!r}; --model is a directory made by `llmrec train`")
    data = hub.data_of(model) if data is None else data
    # processes on other machines have other working directories
    return model.resolve(), str(Path(data).resolve()) if Path(data).is_dir() else data
