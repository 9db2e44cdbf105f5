"""Ranks the model's own rows of the accuracy table in several processes, and caches the lists.

Users are ranked in chunks. The lists of a chunk go into one file, so that an interrupted run continues from the files
that exist. Files belong to one state of code, model, data, weights and users; changed code invalidates them.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import as_completed
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from llmrec.batch.process_pool import worker_pool
from llmrec.data.interactions import Split
from llmrec.eval import result_file
from llmrec.eval.accuracy.ablation import ComponentRanker
from llmrec.eval.accuracy.measurement import conditions
from llmrec.eval.chat_client import CachingScorer
from llmrec.eval.ranked_lists import Progress, RankedLists, rank_each, targets_of
from llmrec.lm.runtime.onednn import MatmulDtype
from llmrec.ranker import Rows
from llmrec.ranking.fusion import Fusion
from llmrec.ranking.scorer import Scorer
from llmrec.recommender import Recommender
from llmrec.storage.artifacts import MANIFEST, fingerprint_bytes, write_bytes_atomic

STRETCH = 64  # users; about ten seconds of work with the shipped model
BATCH = 8  # users whose searches share forward passes of the language model
ScorerOpener = Callable[[], tuple[Recommender, Split]]
ListsByRow = dict[str, dict[str, RankedLists]]


@dataclass(frozen=True)
class RankingJob:
    """A ranking task: which rows to rank, for which users, and with which settings.

    Attributes:
        fusions: the fusion of each row, by name.
        users: int64[u], numbers of users with a test target.
        seed: random seed for the candidates.
        matmul_dtype: number format of the language model's matrix products.
        blind: rows whose prompt has no user vector.
        sample: int64[s], the users for whom the rows in `sampled` are ranked; None for all users.
        sampled: the rows that are ranked for `sample` only.
    """

    fusions: Mapping[str, Fusion]
    users: Rows
    seed: int
    matmul_dtype: MatmulDtype = "float32"
    blind: tuple[str, ...] = ()
    sample: Rows | None = None
    sampled: tuple[str, ...] = ()

    def stretches(self) -> list[RankingJob]:
        """Split the job into chunks of users; chunks of the sample come first because the others have fewer rows."""
        if self.sample is None:
            return self._cut(self.users, self.fusions)
        rest = {name: own for name, own in self.fusions.items() if name not in self.sampled}
        return self._cut(self.sample, self.fusions) + self._cut(np.setdiff1d(self.users, self.sample), rest)

    def _cut(self, users: Rows, fusions: Mapping[str, Fusion]) -> list[RankingJob]:
        pieces = [users[at : at + STRETCH] for at in range(0, len(users), STRETCH)]
        return [replace(self, users=piece, fusions=fusions) for piece in pieces]


def rank_in_processes(
    asked: RankingJob,
    scorer: Scorer,
    split: Split,
    folder: Path,
    workers: int,
    opener: ScorerOpener,
    progress: Progress | None = None,
) -> ListsByRow:
    """Return lists by row and condition, in the form of `rank_each`.

    Args:
        asked: rows and users.
        scorer: the product's scorer, which caches the requests it has read.
        split: the split whose test part is ranked.
        folder: where finished lists are read from and written to; see `list_cache`.
        workers: number of processes; 1 runs in this process.
        opener: loads recommender and split in another process.
        progress: called with the users that are done.

    Raises:
        RequestError: the system killed a process, most likely for lack of memory.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stretches = [(own, folder / f"{number:05d}.npz") for number, own in enumerate(asked.stretches())]
    todo = [(own, file) for own, file in stretches if not file.is_file()]
    done = len(asked.users) - sum(len(own.users) for own, _ in todo)
    for count in _ranked(todo, scorer, split, workers, opener):
        done += count
        if progress is not None:
            progress("hybrid", done, len(asked.users))
    return _joined(asked, split, stretches)


@contextmanager
def list_cache(asked: RankingJob, model: Path, below: Path, split: Split) -> Iterator[Path]:
    """Yield the cache folder under `below` for lists of this model and code.

    If model or code cannot be identified, it is a temporary folder.
    """
    made, changed = result_file.commit()
    manifest = model / MANIFEST
    if made is None or changed or not manifest.is_file():
        with TemporaryDirectory(prefix="llmrec-lists-") as name:
            yield Path(name)
        return
    named = [
        made,
        split.train.fingerprint, fingerprint_bytes(manifest.read_bytes()), fingerprint_bytes(split.test.tobytes()),
        {name: dict(own.weights) for name, own in asked.fusions.items()}, asked.users.tolist(), asked.seed,
        asked.matmul_dtype, sorted(asked.blind), None if asked.sample is None else asked.sample.tolist(),
        sorted(asked.sampled),
    ]  # fmt: skip
    yield below / f"lists-{fingerprint_bytes(json.dumps(named, sort_keys=True).encode())[:16]}"


def _ranked(
    todo: Sequence[tuple[RankingJob, Path]], scorer: Scorer, split: Split, workers: int, opener: ScorerOpener
) -> Iterator[int]:
    """Rank chunks and write them to their files; yields the number of users of each finished chunk."""
    if workers == 1 or len(todo) < 2:
        both = scorer, _blind(scorer)
        for own, file in todo:
            _rank(own, *both, split, file)
            yield len(own.users)
        return
    with worker_pool(min(workers, len(todo))) as pool:
        running = {pool.submit(_elsewhere, own, opener, file): len(own.users) for own, file in todo}
        for one in as_completed(running):
            one.result()
            yield running[one]


_opened: tuple[Scorer, CachingScorer, Split] | None = None  # of this process, set by its first chunk


def _elsewhere(asked: RankingJob, opener: ScorerOpener, file: Path) -> None:
    global _opened
    if _opened is None:
        recommender, split = opener()
        # further cores are used by further processes
        scorer = CachingScorer.of(replace(recommender.scorer, threads=1))
        _opened = scorer, _blind(scorer), split
    _rank(asked, *_opened, file)


def _blind(scorer: Scorer) -> CachingScorer:
    """The same scorer without the user vector.

    It is created once per process: whitening the texts of 12,000 items each time took 4 % of a chunk.
    """
    return CachingScorer.of(replace(scorer, user_vector=False))


def _rank(asked: RankingJob, scorer: Scorer, without: CachingScorer, split: Split, file: Path) -> None:
    rankers = [
        ComponentRanker(name, without if name in asked.blind else scorer, fusion)
        for name, fusion in asked.fusions.items()
    ]
    found = rank_each(rankers, split, "test", scorer.trie.n, conditions(asked.seed), asked.users, BATCH)
    without.memory.clear()  # frees half a gigabyte that the next chunk does not use
    columns = {
        f"{name}|{condition}|{what}": values
        for name, own in found.items()
        for condition, lists in own.items()
        for what, values in (("rows", lists.rows), ("scores", lists.scores))
    }
    handle = io.BytesIO()
    np.savez_compressed(handle, **columns)  # type: ignore[arg-type]
    write_bytes_atomic(file, handle.getvalue())


def _joined(asked: RankingJob, split: Split, stretches: Sequence[tuple[RankingJob, Path]]) -> ListsByRow:
    parts = []
    for own, file in stretches:
        with np.load(file, allow_pickle=False) as one:
            parts.append((own, {name: one[name] for name in one.files}))

    def lists(row: str, condition: str) -> RankedLists:
        having = [(own, columns) for own, columns in parts if row in own.fusions]
        users = np.concatenate([own.users for own, _ in having])
        order = np.argsort(users)
        rows, scores = (
            np.concatenate([columns[f"{row}|{condition}|{what}"] for _, columns in having])[order]
            for what in ("rows", "scores")
        )
        return RankedLists(users[order], targets_of(split, "test")[users[order]], rows, scores)

    return {name: {condition: lists(name, condition) for condition in conditions(asked.seed)} for name in asked.fusions}
