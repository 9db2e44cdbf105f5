"""Ranks a file of requests into a file of items: resumable, the same bytes however the work is divided.

What comes out of a request depends on the request and the model alone. So the output is the same whatever the number of
processes, the size of parts, and how often the work was killed and taken up again; and shards of an input, one after
the other, hold the rows that the whole would.
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
    """How a file is ranked.

    Attributes:
        model: the model directory, the shipped one when None.
        data: prepared data, the model's own when None.
        k: items for requests that do not say.
        shard: (i, n): the i-th of n equal stretches of the input, i from 1.
        strict: refuse unknown ids instead of leaving them out and counting them.
        part: requests of a part, by the size of the input when None; changes no byte of the output.
        restart: discard finished parts and an output that is there.
        products: number format of the language model's matrix products: float32, bfloat16, or auto for the faster one
            here; another one is another job, for scores differ in the third digit.
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
    """What was done.

    Attributes:
        requests: in the input, or in its shard.
        resumed: of these, ranked by an earlier run.
        answers: rows of the output.
        counts: ids that are unknown and requests that were skipped for it.
        formulas: rows of a CSV output with an id that a spreadsheet takes for a formula.
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
        input: requests, see `request_files`; every row is checked before the first is ranked.
        output: Parquet, CSV or JSON lines by its name; takes the place of what is there when all is done.
        settings: how.
        runner: ranks parts of a job and yields the requests of each that is done; in this process when None.
        progress: is told requests done and requests in all.

    Raises:
        DataError: the input, in one line with file and place.
        RequestError: a setting out of bounds, or with `strict` an unknown id.
        ArtifactError: no such model, or an output that is being written by another process or belongs to another job.
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
    """Check the whole input against the model's data; the job, and what unknown ids will be counted in it.

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
    """The model directory (the shipped one if None, fetched if `org/name`) and its data; directories as whole paths.

    Raises:
        ArtifactError: no such model.
    """
    model = SHIPPED if model is None else hub.resolve_model(model)
    if not model.is_dir():
        raise ArtifactError(f"no model directory {str(model)!r}; --model is a directory made by `llmrec train`")
    data = hub.data_of(model) if data is None else data
    # processes on other machines stand in other directories
    return model.resolve(), str(Path(data).resolve()) if Path(data).is_dir() else data
