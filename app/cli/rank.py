"""`llmrec rank`: ranks items for a file of requests."""

from __future__ import annotations

import os
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmrec.app.cli.options import MATMUL_DTYPES, Data, Model
from llmrec.app.cli.printing import Json, echo, print_json
from llmrec.errors import Interrupted, RequestError

if TYPE_CHECKING:
    from llmrec.batch.rank_file import Report, Runner, Settings

_MEMORY = 1.5 * 2**30  # most bytes that a process with the shipped model takes


def rank(
    input: Annotated[Path, typer.Option(help="File with requests: .parquet, .csv or .jsonl.")],
    output: Annotated[Path, typer.Option(help="File to write: .parquet, .csv or .jsonl.")],
    model: Model = None,
    data: Data = None,
    k: Annotated[int, typer.Option("-k", help="Items per request, 1 to 100, unless its row says otherwise.")] = 10,
    shard: Annotated[str, typer.Option(help="i/n: rank the i-th of n parts of the input, counted from 1.")] = "1/1",
    strict: Annotated[bool, typer.Option("--strict", help="Refuse unknown ids instead of skipping them.")] = False,
    workers: Annotated[
        int | None, typer.Option(help="Number of processes, one core each; all cores by default.")
    ] = None,
    part: Annotated[
        int | None, typer.Option(help="Requests per part; a killed run loses at most the parts in progress.")
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Discard the finished parts of earlier runs.")] = False,
    matmul_dtype: Annotated[
        str, typer.Option("--products", help=f"Number format of matrix products: {MATMUL_DTYPES}")
    ] = "float32",
    ray: Annotated[bool, typer.Option("--ray", help="Run as a Ray Data job.")] = False,
    address: Annotated[str | None, typer.Option(help="Address of a running Ray cluster.")] = None,
    as_json: Json = False,
) -> None:
    """Rank items for a file of requests: users, histories, plain-language requests, candidates, similar items.

    A request has request_id and one of user_id, items (ids, oldest first; separated by | in CSV), message or similar_to
    (an id). It may have candidates and k. The output has one row per item: request_id, item_id, rank, score and source.
    The same command continues a run that was killed.
    """
    if address is not None and not ray:
        raise RequestError("--address belongs to --ray")
    if workers is not None and workers < 1:
        raise RequestError(f"--workers is {workers}; it must be at least 1")
    numbers = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", shard)
    if numbers is None:
        raise RequestError(f"--shard is {shard!r}; it must be i/n, such as 1/4")
    from llmrec.batch.rank_file import Settings

    settings = Settings(model, data, k, (int(numbers[1]), int(numbers[2])), strict, part, restart, matmul_dtype)
    report = _watched(input, output, settings, _runner(workers, ray, address))
    if as_json:
        print_json(_values(report, output))
    else:
        echo(_words(report, output))


def _runner(workers: int | None, ray: bool, address: str | None) -> Runner:
    if ray:
        from llmrec.batch import ray_runner

        return partial(ray_runner.run_on_ray, workers=workers or _cores(), address=address)
    from llmrec.batch import process_pool

    return partial(process_pool.run_local, workers=workers or min(_cores(), _room()))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _room() -> int:
    import psutil

    return max(1, int(psutil.virtual_memory().available // _MEMORY))


def _watched(input: Path, output: Path, settings: Settings, runner: Runner) -> Report:
    from rich.progress import TextColumn

    from llmrec.batch.rank_file import rank_file
    from llmrec.progress import progress_bar

    bar = progress_bar(None, TextColumn("{task.fields[rate]}"), estimate_seconds=600)
    task = bar.add_task("ranking", total=None, rate="")

    def tell(done: int, total: int) -> None:
        bar.start()  # only after the input was checked, so that an error is a single line
        bar.update(task, completed=done, total=total)
        speed = bar.tasks[0].finished_speed or bar.tasks[0].speed
        bar.update(task, rate=f"{speed:.2f} requests/s" if speed else "")

    try:
        return rank_file(input, output, settings, runner, tell)
    except KeyboardInterrupt:
        raise Interrupted("stopped; what is finished is kept: the same command goes on from there") from None
    finally:
        bar.stop()


def _words(report: Report, output: Path) -> str:
    counted = [f"{count} {name.replace('_', ' ')}" for name, count in sorted(report.counts.items())]
    again = f" ({report.resumed} were ranked before)" if report.resumed else ""
    lines = [f"{output}: {report.answers} rows for {report.requests} requests{again}"]
    if counted:
        lines.append("left out: " + ", ".join(counted))
    if report.formulas:
        lines.append(
            f"note: ids of {report.formulas} rows begin as formulas do and stand as they are: import these columns "
            "into a spreadsheet as text"
        )
    return "\n".join(lines)


def _values(report: Report, output: Path) -> dict[str, object]:
    values = {"output": str(output), "requests": report.requests, "resumed": report.resumed, "rows": report.answers}
    return {**values, "left_out": dict(sorted(report.counts.items())), "formulas": report.formulas}
