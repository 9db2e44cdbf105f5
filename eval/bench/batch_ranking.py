"""Benchmarks ranking a request file against transformers' `generate` in batches.

The shipped path is measured as it is used: files, processes, parts on disk. Rates cover the time in which all processes
are working; loading is reported separately. The reference gets whole batches and all cores. It makes lists from the
same prompts, weights and other score components, and is measured on fewer users, before and after the shipped path.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from rich.console import Console

from llmrec.batch import process_pool
from llmrec.batch.rank_file import Settings, rank_file, resolve_locations
from llmrec.batch.ranker import RankingTask
from llmrec.data.dataset import open_data
from llmrec.eval.bench.catalog_scaling import SIZES, scaling_rows
from llmrec.eval.bench.generate_ranking import GenerateRanker, generate_ranker
from llmrec.eval.result_file import publish
from llmrec.recommender import Recommender

Interval = tuple[float, float, float]
Rows = dict[str, dict[str, Interval]]
BEAMS = (10, 20, 50)
TARGET_BEAMS = 20
BATCH = 8  # requests per batch for `generate`
PART = 4
FILE = "bench-rank.json"
PROTOCOL = (
    "users/s: requests over seconds between the moment when every process has finished a part and the last one, top 10 "
    "for histories of known users, seen items left out. generate: float32, same weights, prompts, priors and fusion, "
    "batches of 8 with left padding, all cores, prefix_allowed_tokens_fn, as many sequences returned as beams; low and "
    "high are its batches. speedup_over_generate is at 20 beams. overlap10: share of this engine's lists, which are "
    "those of scoring every item. Memory: the most resident bytes of a ranking process over a small input and one of a "
    "hundred times as many requests. ray: one and two actors of one thread each. catalogue_n: a synthetic catalogue of "
    "n items on the layers of the model; see the page on scaling."
)


@dataclass(frozen=True)
class BenchmarkSizes:
    """How many users and requests are measured."""

    users: int
    few: int
    reference: int
    memory: int
    catalogues: tuple[int, ...]


FULL = BenchmarkSizes(400, 96, 16, 200, SIZES)
QUICK = BenchmarkSizes(24, 16, 2, 3, SIZES[:1])


def benchmark_ranking(
    model: Path | None,
    out: Path,
    quick: bool = False,
    seed: int = 0,
    loader: process_pool.Loader = process_pool.load_recommender,
) -> None:
    """Measure, print, and write `bench-rank.json` to `out` after each part; `quick` measures little and writes nothing.

    Raises:
        UserError: the model does not exist, or `generate` does not support item tokens for its architecture.
    """
    started, sizes = time.monotonic(), QUICK if quick else FULL
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="llmrec-bench-") as name:
        bench = _Bench(model, Path(name), loader, seed, console)
        command = f"llmrec bench --rank --seed {seed} --out {out}"
        protocol = {"how": PROTOCOL, "users": sizes.users, "reference_users": sizes.reference}
        for rows, targets in bench.measure(sizes):  # results so far are saved: the largest catalogue takes long
            if not quick:
                seconds = time.monotonic() - started
                publish(out / FILE, "ml-100k", protocol, rows, targets, seed, command, seconds, sizes.users)
    if quick:
        for target, value in targets.items():
            print(f"{target}: {value}")


@dataclass(frozen=True, eq=False)
class _Bench:
    model: Path | None
    folder: Path
    loader: process_pool.Loader
    seed: int
    console: Console

    def measure(self, sizes: BenchmarkSizes) -> Iterator[tuple[Rows, dict[str, float | None]]]:
        """Yield rows and targets: first all but the catalogues, then again after each catalogue, with its row."""
        recommender = self.loader(*map(str, resolve_locations(self.model, None)))
        users = [str(user) for user in np.random.default_rng(self.seed).permutation(recommender.users)]
        cores = os.cpu_count() or 1
        rows: Rows = {}
        self.console.print("generate, first time")
        reference = generate_ranker(recommender)
        shown = self._tasks(recommender, users[: sizes.reference])
        spent: dict[int, list[float]] = {beams: [] for beams in BEAMS}
        found = {beams: _time_generate(reference, shown, beams, spent[beams]) for beams in BEAMS}
        rates = {}
        for workers, many in ((1, sizes.few), (cores, sizes.users)):
            self.console.print(f"ranking, {workers} processes")
            runner = partial(process_pool.run_local, workers=workers, loader=self.loader)
            rates[workers], rows[f"rank_{workers}_processes"], ranked = self._rank(users[:many], runner, workers)
        self.console.print("generate, second time")
        for beams in BEAMS:
            _time_generate(reference, shown, beams, spent[beams])
            rows[f"generate_beams{beams}"] = _generate_row(spent[beams], rates[cores])
            rows[f"generate_beams{beams}"]["overlap10"] = _number(_overlap(recommender, shown, found[beams], ranked))
        memory, rows["memory"] = self._memory(sizes.memory)
        ray, more = self._ray(users[: sizes.few])
        rows |= more
        speedup = rows[f"generate_beams{TARGET_BEAMS}"]["speedup"][0]
        targets = {"speedup_over_generate": speedup, "memory_ratio_100x_input": memory, "ray_two_workers_speedup": ray}
        yield rows, targets
        for name, values in scaling_rows(recommender, sizes.catalogues, self.seed, self.console):
            rows[name] = values
            yield rows, targets

    def _tasks(self, recommender: Recommender, users: Sequence[str]) -> list[RankingTask]:
        return [RankingTask(tuple(dict.fromkeys(recommender.history_of(str(user))))) for user in users]

    def _rank(
        self, users: Sequence[str], runner: Callable[..., Iterator[int]], workers: int
    ) -> tuple[float, dict[str, Interval], dict[str, list[str]]]:
        """Return requests per second with all processes working, the result row, and the lists of item ids by user."""
        source, target = self.folder / "requests.jsonl", self.folder / "ranked.parquet"
        source.write_text("".join(json.dumps({"request_id": str(u), "user_id": str(u)}) + "\n" for u in users))
        log: list[tuple[float, int]] = []
        start = time.perf_counter()
        settings = Settings(model=self.model, part=PART, restart=True)
        rank_file(source, target, settings, runner, lambda done, _: log.append((time.perf_counter(), done)))
        whole = time.perf_counter() - start
        rate = steady_rate(log, workers * PART)
        lists: dict[str, list[str]] = {}
        for row in pq.read_table(target).to_pylist():
            lists.setdefault(row["request_id"], []).append(row["item_id"])
        row = {"users_per_s": rate, "users_per_s_with_loading": len(users) / whole, "users": len(users)}
        return rate, {name: _number(value) for name, value in row.items()}, lists

    def _memory(self, few: int) -> tuple[float, dict[str, Interval]]:
        self.console.print("memory")
        small, large = (self._peak(count) for count in (few, 100 * few))
        values = {"peak_bytes": small, "peak_bytes_100x_input": large, "requests": few}
        return large / small, {name: _number(value) for name, value in values.items()}

    def _peak(self, requests: int) -> float:
        """Peak resident bytes of a process that answers similar-item requests, which do not use the language model."""
        source = self.folder / "similar.jsonl"
        items = [item.id for item in open_data(resolve_locations(self.model, None)[1])[0].items]
        with source.open("w") as handle:
            for number in range(requests):
                handle.write(json.dumps({"request_id": number, "similar_to": items[number % len(items)]}) + "\n")
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        arguments = (theirs, source, self.folder / "similar.parquet", self.model, self.loader)
        process = context.Process(target=_rank_and_tell, args=arguments)
        process.start()
        theirs.close()
        peak = float(ours.recv())
        process.join()
        return peak

    def _ray(self, users: Sequence[str]) -> tuple[float | None, Rows]:
        if find_spec("ray") is None:
            self.console.print("Ray is not installed: its speed-up is not measured")
            return None, {}
        from llmrec.batch import ray_runner

        rates, rows = [], {}
        for workers in (1, 2):
            self.console.print(f"Ray, {workers} actors")
            runner = partial(ray_runner.run_on_ray, workers=workers, loader=self.loader)
            rate, rows[f"ray_{workers}_actors"], _ = self._rank(users, runner, workers)
            rates.append(rate)
        return rates[1] / rates[0], rows


def steady_rate(log: Sequence[tuple[float, int]], warm: int) -> float:
    """Requests per second from a log of (seconds, requests done), without the first and last `warm` requests."""
    end = log[-1][1]
    kept = [(at, done) for at, done in log if warm <= done <= max(end - warm, 2 * warm)]
    if len(kept) < 2:
        kept = [log[0], log[-1]]
    return (kept[-1][1] - kept[0][1]) / (kept[-1][0] - kept[0][0])


def _rank_and_tell(
    pipe: Connection, source: Path, target: Path, model: Path | None, loader: process_pool.Loader
) -> None:
    settings = Settings(model=model, part=50, restart=True)
    rank_file(source, target, settings, partial(process_pool.run_local, workers=1, loader=loader))
    pipe.send(peak_resident())


def peak_resident() -> int:
    """Peak resident memory of this process in bytes."""
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage would include what the parent held when it started this process
        return int(next(x for x in status.read_text().splitlines() if x.startswith("VmHWM")).split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _time_generate(
    side: GenerateRanker, tasks: Sequence[RankingTask], beams: int, spent: list[float]
) -> list[list[int]]:
    """Return the lists of `generate`; the seconds per request of each batch are appended to `spent`."""
    before = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)
    lists = []
    try:
        for start in range(0, len(tasks), BATCH):
            shown = tasks[start : start + BATCH]
            begin = time.perf_counter()
            lists += side.lists(shown, beams)
            spent.append((time.perf_counter() - begin) / len(shown))
    finally:
        torch.set_num_threads(before)
    return lists


def _generate_row(spent: Sequence[float], rate: float) -> dict[str, Interval]:
    seconds = np.array([float(np.median(spent)), max(spent), min(spent)])
    return {"users_per_s": _interval(1 / seconds), "speedup": _interval(rate * seconds)}


def _overlap(
    recommender: Recommender,
    tasks: Sequence[RankingTask],
    found: Sequence[Sequence[int]],
    ranked: Mapping[str, Sequence[str]],
) -> float:
    """Share of the ranked items that `generate` found as well, over the users ranked by both."""
    histories = {tuple(dict.fromkeys(recommender.history_of(user))): user for user in ranked}
    shares = []
    for task, rows in zip(tasks, found, strict=True):
        if task.history in histories:
            ours = ranked[histories[task.history]]
            shares.append(len({recommender.catalog[row].id for row in rows} & set(ours)) / len(ours))
    return float(np.mean(shares))


def _interval(values: np.ndarray) -> Interval:
    return float(values[0]), float(values.min()), float(values.max())


def _number(value: float) -> Interval:
    return float(value), float(value), float(value)
