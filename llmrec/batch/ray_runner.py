"""Ranks the parts of a batch on many machines: a Ray Data job in which each actor holds one model.

The input, the output and the model must be on storage that all machines share. Ray Data distributes the part numbers:
actors get new parts as they finish (its streaming executor holds back the rest), and a part whose actor or machine died
is given to another actor. A part's file is put in place by a rename, so a part that was ranked twice exists only once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from llmrec.batch.job import Job, rank_part
from llmrec.batch.process_pool import Loader, load_ranker, load_recommender
from llmrec.errors import RequestError

if TYPE_CHECKING:
    from llmrec.batch.ranker import BatchRanker, IdLookup


class PartRanker:
    """A Ray actor that loads one model and ranks the parts it is given."""

    def __init__(self, job: Job, loader: Loader) -> None:
        self._job = job
        self._ready: tuple[BatchRanker, IdLookup] = load_ranker(job, loader)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Rank the parts int64[b] `part`; returns the number of requests in each as int64[b] `requests`."""
        counts = [rank_part(self._job, int(part), *self._ready) for part in batch["part"]]
        return {"requests": np.array(counts, np.int64)}


def run_on_ray(
    job: Job, parts: Sequence[int], workers: int, address: str | None = None, loader: Loader = load_recommender
) -> Iterator[int]:
    """Rank parts with `workers` actors; yields the number of requests of each finished part.

    Args:
        job: its files must be visible to all machines under the same names.
        parts: numbers of the parts to rank.
        workers: number of actors, with one core each.
        address: address of a running cluster; when None, one is started on this machine.
        loader: loads the model of an actor.

    Raises:
        RequestError: Ray is not installed, no cluster answers, or a part failed on every machine it was tried on.
    """
    ray = _ray()
    started = not ray.is_initialized()
    if started:
        _connect(ray, workers, address)
    try:
        yield from _stream(ray, job, parts, workers, loader)
    except ray.exceptions.RayError as error:
        raise RequestError(
            f"the Ray job failed: {(str(error).strip().splitlines() or ['no reason given'])[-1]}"
        ) from error
    finally:
        if started:
            ray.shutdown()


def _stream(ray: Any, job: Job, parts: Sequence[int], workers: int, loader: Loader) -> Iterator[int]:
    ray.data.DataContext.get_current().enable_progress_bars = False
    numbers = ray.data.from_items([{"part": part} for part in parts], override_num_blocks=len(parts))
    ranked = numbers.map_batches(
        PartRanker,
        fn_constructor_args=(job, loader),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=min(workers, len(parts))),
        num_cpus=1,
    )
    for row in ranked.iter_rows():
        yield int(row["requests"])


def _connect(ray: Any, workers: int, address: str | None) -> None:
    local = {"num_cpus": workers, "include_dashboard": False} if address is None else {"address": address}
    try:
        ray.init(log_to_driver=False, logging_level="ERROR", **local)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise RequestError(f"no Ray cluster at {address or 'this machine'}: {str(error).splitlines()[0]}") from None


def _ray() -> Any:
    try:
        import ray
        import ray.data
    except ImportError:
        raise RequestError("--ray needs Ray, which is not installed: pip install 'llmrec[ray]'") from None
    return ray
