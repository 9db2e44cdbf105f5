"""Ranks the parts of a batch in a pool of processes that each hold one model and use one thread.

A process takes a part number, reads the part's rows, ranks them and writes the part's file. Only numbers are passed
between processes, so memory does not grow with the input.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import connection

from llmrec.batch.job import Job, rank_part
from llmrec.batch.ranker import BatchRanker, IdLookup
from llmrec.errors import RequestError
from llmrec.lm.runtime.onednn import parse_matmul_dtype
from llmrec.recommender import Recommender

Loader = Callable[[str, str | None], Recommender]  # (model directory, prepared data or None for the model's own)
_AHEAD = 2  # parts submitted per process

_loaded: tuple[BatchRanker, IdLookup] | None = None  # this process's model, loaded with its first part


def load_recommender(model: str, data: str | None) -> Recommender:
    """Load a recommender; the default loader."""
    return Recommender.from_pretrained(model, data)


def run_local(job: Job, parts: Sequence[int], workers: int, loader: Loader = load_recommender) -> Iterator[int]:
    """Rank parts with `workers` processes; yields the number of requests of each finished part.

    With one worker, the parts are ranked in this process.

    Raises:
        RequestError: the system killed a process, most likely for lack of memory.
    """
    if workers == 1:
        ranker, ids = load_ranker(job, loader)
        yield from (rank_part(job, part, ranker, ids) for part in parts)
        return
    with worker_pool(min(workers, len(parts))) as pool:
        yield from _hand_out(pool, job, parts, workers * _AHEAD, loader)


@contextmanager
def worker_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Open a pool of processes that end when this process ends; tasks still queued at exit are cancelled.

    Raises:
        RequestError: the system killed a process, most likely for lack of memory.
    """
    context = multiprocessing.get_context("spawn")  # a fork would inherit the locks of torch's threads
    pool = ProcessPoolExecutor(workers, context, _start)
    try:
        yield pool
    except BrokenProcessPool:
        raise RequestError(
            "the system ended a ranking process, most likely for want of memory; what is finished is kept: "
            "run the same command again with fewer --workers"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _hand_out(pool: ProcessPoolExecutor, job: Job, parts: Sequence[int], most: int, loader: Loader) -> Iterator[int]:
    running: set[Future[int]] = set()
    for part in parts:
        running.add(pool.submit(_rank, job, part, loader))
        if len(running) >= most:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            yield from (one.result() for one in done)
    while running:
        done, running = wait(running, return_when=FIRST_COMPLETED)
        yield from (one.result() for one in done)


def _start() -> None:
    """Watch the parent process and exit when it ends, since a killed parent cannot stop its workers."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            connection.wait([parent.sentinel])
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _rank(job: Job, part: int, loader: Loader) -> int:
    global _loaded
    if _loaded is None:
        _loaded = load_ranker(job, loader)
    return rank_part(job, part, *_loaded)


def load_ranker(job: Job, loader: Loader) -> tuple[BatchRanker, IdLookup]:
    """Load the model of a job, and its ids.

    Raises:
        RequestError: this machine does not support the job's number format for matrix products.
    """
    recommender = loader(job.model, job.data)
    recommender.model.matmul_dtype = parse_matmul_dtype(job.products)
    return BatchRanker(recommender), IdLookup(recommender.catalog, recommender.interactions)
