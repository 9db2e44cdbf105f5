"""Ranks and evaluates request files of a server folder for the Batch tab; `llmrec rank` does so at any size.

Files cannot be uploaded and no path is taken from a browser: a name is valid only if the folder holds a plain file of
that name at that moment. Links are skipped, as they may lead out of the folder.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from llmrec.batch.ranker import IdLookup, resolve_ids
from llmrec.batch.request_files import FORMATS, BatchRequest, read_requests
from llmrec.errors import RequestError

if TYPE_CHECKING:
    from llmrec.recommender import Recommendation, Recommender

MOST_FILES, MOST_BYTES, MOST_ROWS, MOST_SECONDS = 200, 20 * 2**20, 200, 120.0
K = 10
_TELL = 0.5  # seconds between progress reports


@dataclass(frozen=True)
class RankedRequest:
    """A request with its list; `place` is the rank of the target from 1, 0 if not listed, None without a target."""

    row: BatchRequest
    items: tuple[Recommendation, ...]
    place: int | None


@dataclass(frozen=True)
class BatchResult:
    """Progress or result of a batch.

    Attributes:
        answers: ranked requests, in the order of the file.
        total: number of requests that will be ranked.
        seconds: seconds since the start.
        counts: unknown ids, and requests skipped because of them, by name.
        notes: what was left out, and why.
        ended: whether the batch is finished.
    """

    answers: tuple[RankedRequest, ...]
    total: int
    seconds: float
    counts: Counter[str] = field(default_factory=Counter)
    notes: tuple[str, ...] = ()
    ended: bool = False


def request_files(folder: Path | None) -> list[str]:
    """Return the sorted names of the files that may be chosen; none without a folder."""
    if folder is None or not folder.is_dir():
        return []
    found = (entry for entry in folder.iterdir() if entry.suffix.lower() in FORMATS and entry.name[0] != ".")
    plain = (entry for entry in found if entry.is_file() and not entry.is_symlink())
    return sorted(entry.name for entry in plain if 0 < entry.stat().st_size <= MOST_BYTES)[:MOST_FILES]


def open_request_file(folder: Path | None, name: object) -> Path:
    """Return the file of that name in the folder.

    Raises:
        RequestError: the folder has no such file; the name is never resolved as a path.
    """
    if folder is None:
        raise RequestError("no folder of request files is set on this server; batch_dir names one")
    if not isinstance(name, str) or name not in request_files(folder):
        raise RequestError(f"{str(name)[:60]!r} is not among the listed files; choose one of them")
    return folder / name


def rank_requests(recommender: Recommender, path: Path, limit: float = MOST_SECONDS) -> Iterator[BatchResult]:
    """Rank the first requests of a file; yields the progress twice a second, and the result at the end.

    Args:
        recommender: ranks each request as the page would.
        path: file from `open_request_file`.
        limit: seconds after which ranking stops with the requests ranked so far.

    Raises:
        DataError: the file is not a valid request file; the message names the place.
    """
    started, told = time.monotonic(), 0.0
    requests = list(read_requests(path, 0, MOST_ROWS + 1))
    notes = (
        [f"Only the first {MOST_ROWS} requests of the file; llmrec rank ranks all of them."]
        if len(requests) > MOST_ROWS
        else []
    )
    requests = requests[:MOST_ROWS]
    ids = IdLookup(recommender.catalog, recommender.interactions)
    answers: list[RankedRequest] = []
    counts: Counter[str] = Counter()
    for row in requests:
        answer, found = _answer(recommender, ids, row)
        counts += found
        answers += [answer] if answer else []
        now = time.monotonic() - started
        if now > limit:
            notes.append(f"Stopped after {limit:g} seconds.")
            break
        if now - told > _TELL:
            told = now
            yield BatchResult(tuple(answers), len(requests), now, counts)
    seconds = time.monotonic() - started
    yield BatchResult(tuple(answers), len(requests), seconds, counts, tuple(notes), ended=True)


def _answer(recommender: Recommender, ids: IdLookup, row: BatchRequest) -> tuple[RankedRequest | None, Counter[str]]:
    task, counts = resolve_ids(row, ids, K)
    if task is None:
        return None, counts
    items = tuple(recommender.recommend(task.request))
    return RankedRequest(row, items, _place(row, ids, items)), counts


def _place(row: BatchRequest, ids: IdLookup, items: tuple[Recommendation, ...]) -> int | None:
    if row.target is None:
        return None
    target = ids.catalog.row_or_none(row.target)
    return next((place for place, item in enumerate(items, 1) if item.row == target), 0)


def batch_metrics(outcome: BatchResult, items: int) -> dict[str, float]:
    """Return metrics of a batch: sizes and speed, and with targets recall, NDCG and MRR within the lists.

    Args:
        outcome: result of a finished batch.
        items: size of the catalogue.
    """
    answers = outcome.answers
    shown = {item.row for answer in answers for item in answer.items}
    out = {
        "requests": float(len(answers)),
        "requests per second": len(answers) / max(outcome.seconds, 1e-9),
        "share of the catalogue shown": len(shown) / max(items, 1),
    }
    ranks = [answer.place for answer in answers if answer.place is not None]
    if ranks:
        within = [place for place in ranks if 0 < place <= K]
        out |= {
            "requests with a target": float(len(ranks)),
            f"recall@{K}": len(within) / len(ranks),
            f"ndcg@{K}": sum(1 / math.log2(place + 1) for place in within) / len(ranks),
            f"mrr@{K}": sum(1 / place for place in within) / len(ranks),
        }
    return out


def target_ranks(outcome: BatchResult) -> list[tuple[str, int]]:
    """Count the targets by rank, for a plot; empty without targets."""
    found = Counter(answer.place for answer in outcome.answers if answer.place is not None)
    if not found:
        return []
    spans = [(str(place), [place]) for place in range(1, 6)] + [("6 to 10", [*range(6, 11)])]
    beyond = [place for place in found if place > K]
    return [(name, sum(found[p] for p in span)) for name, span in [*spans, ("later", beyond), ("not listed", [0])]]


def main_sources(outcome: BatchResult) -> list[tuple[str, int]]:
    """Count the items by the score component that contributed most to them, for a plot."""
    return Counter(item.source for answer in outcome.answers for item in answer.items).most_common()
