"""Tunes baselines on validation targets by grid search, with a log of trials so that none is repeated."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, TypedDict, TypeVar, Unpack

import numpy as np
from scipy import sparse

from llmrec.data.interactions import Split
from llmrec.encoders.item_knn import cooccurrence, ease_matrix, item_counts, neighbour_matrix
from llmrec.errors import RequestError
from llmrec.eval.baselines.rankers import EncoderRanker, ItemKNN, RecentPopularity, Scorer, TextLookup
from llmrec.eval.metrics import per_user, target_ranks
from llmrec.progress import Say, counted, silent
from llmrec.ranker import Ranker, Rows, Scores, unseen
from llmrec.storage.artifacts import fingerprint_arrays, fingerprint_bytes, write_bytes_atomic

Params = Mapping[str, float]
Grid = Mapping[str, Sequence[float]]

KNN_GRID: Grid = {
    "window": (0, 5, 20, 50),
    "shrink": (0.0, 3.0, 10.0),
    "alpha": (0.4, 0.5),
    "neighbours": (100, 500),
    "decay": (0.75, 1.0, 1.25, 1.5),
    "recent": (10, 50),
}
EASE_GRID: Grid = {"window": (20, 50), "ridge": (300.0, 1000.0, 3000.0), "fade": (0.85, 0.93, 1.0)}
# one matrix inverse for a catalogue of ten thousand items takes half a minute
LARGE_EASE_GRID: Grid = {"window": (10, 20), "ridge": (30.0, 300.0), "fade": (0.8,)}
TEXT_GRID: Grid = {"whiten": (False, True), "recent": (1, 2, 3, 5, 10, 20, 50)}
RECENT_GRID: Grid = {"half_life": (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)}
LARGE = 5000  # items; fewer settings are tried for larger catalogues
USERS = 2000  # maximum number of validation users scored
SLOW = 2.0  # seconds; a trial that took longer is saved at once


class Tunable(Scorer, Ranker, Protocol):
    """A ranker that also gives its scores of the whole catalogue."""


R = TypeVar("R", bound=Tunable)


@dataclass(frozen=True)
class Trial:
    """One line of a tuning log: the settings and their metrics on validation users."""

    ranker: str
    params: Params
    metrics: Mapping[str, float]


class TuningLog:
    """A log of trials as JSON lines; trials of an earlier run on the same inputs are reused, others are replaced.

    Args:
        path: the file; None keeps nothing.
        dataset: name of the data, for the reader of the file.
    """

    def __init__(self, path: Path | None = None, dataset: str = "") -> None:
        self._path, self._dataset = path, dataset
        self._lines: dict[tuple[str, str, str], dict[str, Any]] = {}
        for line in path.read_text(encoding="utf-8").splitlines() if path is not None and path.is_file() else ():
            value = json.loads(line)
            if "ranker" in value and "inputs" in value:
                self._lines[value["ranker"], value["inputs"], _words(value["params"])] = value

    def find(self, ranker: str, inputs: str, params: Params) -> dict[str, float] | None:
        """Return the metrics of an earlier trial on these inputs (a hash of everything but the settings), or None."""
        known = self._lines.get((ranker, inputs, _words(params)))
        return None if known is None else dict(known["metrics"])

    def add(self, inputs: str, trial: Trial) -> None:
        """Add a trial; earlier trials of the same ranker on other inputs are dropped."""
        stale = [key for key in self._lines if key[0] == trial.ranker and key[1] != inputs]
        for key in stale:
            del self._lines[key]
        self._lines[trial.ranker, inputs, _words(trial.params)] = {
            "dataset": self._dataset,
            "part": "valid",
            "inputs": inputs,
            "ranker": trial.ranker,
            "params": dict(trial.params),
            "metrics": dict(trial.metrics),
        }

    def save(self) -> None:
        """Write the file atomically."""
        if self._path is not None:
            lines = [json.dumps(value, sort_keys=True) + "\n" for value in self._lines.values()]
            write_bytes_atomic(self._path, "".join(lines).encode())


class ValidationScorer:
    """Scores rankers on validation targets: whole catalogue, seen items filtered, ties against the target.

    Args:
        split: provides the validation targets; a history is the train part of the user.
        n_items: rows of the catalogue.
        seed: random seed for drawing users when there are more than `users`.
        users: maximum number of users to score.

    Raises:
        RequestError: no user has a validation target.
    """

    def __init__(self, split: Split, n_items: int, seed: int = 0, users: int = USERS) -> None:
        chosen = np.flatnonzero(split.valid >= 0)
        if chosen.size == 0:
            raise RequestError("no user has a validation target; a user needs at least 3 interactions")
        if chosen.size > users:
            chosen = np.sort(np.random.default_rng(seed).choice(chosen, users, replace=False))
        self.targets, self.n_items = split.valid[chosen], n_items
        self.histories = [split.history(int(user), "valid") for user in chosen]
        targets = fingerprint_arrays(users=chosen, targets=self.targets)
        self.fingerprint = fingerprint_bytes(split.train.fingerprint.encode(), targets.encode(), str(n_items).encode())

    def __call__(self, ranker: Scorer) -> dict[str, float]:
        """Mean recall, NDCG and MRR at 10."""
        ranks = np.concatenate(list(self._ranks(ranker)))
        return {name: float(value.mean()) for name, value in per_user(ranks, ks=(10,)).items()}

    def _ranks(self, ranker: Scorer, batch: int = 512) -> Iterator[Rows]:
        for start in range(0, len(self.histories), batch):
            histories = self.histories[start : start + batch]
            allowed = unseen(histories, self.n_items)
            yield target_ranks(ranker.scores(histories), self.targets[start : start + batch], allowed)


def tune(
    name: str,
    make: Callable[[Params], R],
    grid: Grid,
    check: ValidationScorer,
    log: TuningLog | None = None,
    inputs: str = "",
    say: Say = silent,
) -> tuple[R, list[Trial]]:
    """Find the settings of a grid with the best validation NDCG@10; test targets are not used.

    Args:
        name: name of the ranker in the log.
        make: maps settings to a ranker fitted on the train part; not called for settings that are in the log.
        grid: values to try for each setting; all combinations are tried, the last setting varying fastest.
        check: scores rankers on the validation targets; the winner is not refitted on them.
        log: earlier trials; None starts anew.
        inputs: everything else that affects the outcome, such as a seed or a hash of vectors.
        say: receives the number of combinations tried.

    Returns:
        The best ranker (the first one tried if several are equal) and all trials in order.

    Raises:
        RequestError: a setting without any value.
    """
    log = log or TuningLog()
    key = fingerprint_bytes(check.fingerprint.encode(), inputs.encode())[:16]
    settings = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    trials = [
        _trial(name, make, params, check, log, key)
        for params in counted(settings, f"choosing settings of {name}", say, "tried")
    ]
    log.save()
    if not trials:
        raise RequestError(f"the grid {dict(grid)} holds no combination; give every parameter a value")
    best = max(trials, key=lambda trial: trial.metrics["ndcg@10"])
    return make(best.params), trials


def _trial(
    name: str, make: Callable[[Params], R], params: Params, check: ValidationScorer, log: TuningLog, key: str
) -> Trial:
    metrics = log.find(name, key, params)
    if metrics is not None:
        return Trial(name, params, metrics)
    began = time.monotonic()
    trial = Trial(name, params, check(make(params)))
    log.add(key, trial)
    if time.monotonic() - began > SLOW:
        log.save()
    return trial


class TuningOptions(TypedDict, total=False):
    """Options of every `tune_*` function.

    Attributes:
        seed: random seed for drawing the validation users, and for training where a ranker is trained; default 0.
        users: maximum number of validation users scored; default `USERS`.
        log: earlier trials; none by default.
        say: receives the number of combinations tried.
    """

    seed: int
    users: int
    log: TuningLog | None
    say: Say


def tune_on_split(
    name: str,
    make: Callable[[Params], R],
    grid: Grid,
    split: Split,
    n_items: int,
    inputs: str = "",
    **options: Unpack[TuningOptions],
) -> tuple[R, list[Trial]]:
    """Run `tune` on the validation targets of a split."""
    check = ValidationScorer(split, n_items, options.get("seed", 0), options.get("users", USERS))
    return tune(name, make, grid, check, options.get("log"), inputs, options.get("say", silent))


def tune_item_knn(
    split: Split,
    n_items: int,
    grid: Grid = KNN_GRID,
    **options: Unpack[TuningOptions],
) -> tuple[ItemKNN, list[Trial]]:
    """Search a grid of the arguments of `ItemKNN`; see `tune`."""
    counts = item_counts(split.train, n_items)

    @lru_cache(maxsize=1)
    def pairs(window: int) -> sparse.csr_array:
        return cooccurrence(split.train, n_items, window)

    @lru_cache(maxsize=1)
    def similarity(window: int, shrink: float, alpha: float, neighbours: int) -> sparse.csr_array:
        return neighbour_matrix(pairs(window), counts, neighbours, shrink, alpha)

    def make(p: Params) -> ItemKNN:
        matrix = similarity(int(p["window"]), p["shrink"], p["alpha"], int(p["neighbours"]))
        return ItemKNN.of(matrix, counts, p["decay"], int(p["recent"]))

    return tune_on_split("item-knn", make, grid, split, n_items, **options)


def tune_ease(
    split: Split,
    n_items: int,
    grid: Grid | None = None,
    **options: Unpack[TuningOptions],
) -> tuple[EncoderRanker, list[Trial]]:
    """Search a grid for the model's EASE component, ridge regression over windows (`encoders.ease`); see `tune`."""
    grid = grid or (LARGE_EASE_GRID if n_items > LARGE else EASE_GRID)
    counts = item_counts(split.train, n_items)

    @lru_cache(maxsize=1)
    def similarity(window: int, ridge: float) -> sparse.csr_array:
        return ease_matrix(split.train, n_items, window, ridge, 200)

    def make(p: Params) -> EncoderRanker:
        knn = ItemKNN.of(similarity(int(p["window"]), p["ridge"]), counts, 0.0, 50, p["fade"])
        return EncoderRanker(knn, "ease")

    return tune_on_split("ease", make, grid, split, n_items, **options)


def tune_text_lookup(
    split: Split,
    vectors: Scores,
    grid: Grid = TEXT_GRID,
    **options: Unpack[TuningOptions],
) -> tuple[TextLookup, list[Trial]]:
    """Search a grid for `TextLookup` over text vectors float32[n, d]; see `tune`."""

    def make(p: Params) -> TextLookup:
        return TextLookup(vectors, int(p["recent"]), bool(p["whiten"]))

    inputs = fingerprint_arrays(vectors=vectors)
    return tune_on_split("text-lookup", make, grid, split, len(vectors), inputs, **options)


def tune_recent_popularity(
    split: Split,
    n_items: int,
    grid: Grid = RECENT_GRID,
    **options: Unpack[TuningOptions],
) -> tuple[RecentPopularity, list[Trial]]:
    """Search a grid for `RecentPopularity`; see `tune`."""

    def make(p: Params) -> RecentPopularity:
        return RecentPopularity(split.train, n_items, p["half_life"])

    return tune_on_split("recent-popularity", make, grid, split, n_items, **options)


def _words(params: Params) -> str:
    return json.dumps(dict(params), sort_keys=True)
