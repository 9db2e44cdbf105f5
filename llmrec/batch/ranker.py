"""Ranks one batch request at a time with one thread, so that its scores do not depend on other requests.

`resolve_ids` turns ids into rows and counts unknown ids; `BatchRanker.rank` ranks. The scores equal those of
`Recommender.recommend` except in the last one or two bits, since fewer threads sum in another order, and the language
model scores only items that can reach the list (`exact_search`). To use more cores, run more processes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from llmrec.batch.request_files import BatchRequest
from llmrec.data.catalog import Catalog
from llmrec.data.interactions import History, Interactions
from llmrec.data.requests import Request
from llmrec.dialogue.request_parsing import parse_request
from llmrec.errors import RequestError
from llmrec.inner_product import inner
from llmrec.numerics import log_softmax
from llmrec.ranker import top_k
from llmrec.ranking.fusion import FusedList, familiarity_parts
from llmrec.ranking.scorer import TEXT_TEMPERATURE, Scorer, fixed_threads
from llmrec.recommender import Recommender

THREADS = 1
COUNTS = ("unknown_users", "unknown_items", "unknown_candidates", "skipped_requests")


class RankedItem(NamedTuple):
    """An item of a list: its row, its fused score, and the part that contributed most to it."""

    row: int
    score: float
    source: str


@dataclass(frozen=True)
class RankingTask:
    """A request in catalogue rows; None for fields that the request does not have."""

    history: tuple[int, ...] = ()
    similar_to: int | None = None
    candidates: tuple[int, ...] | None = None
    message: str = ""
    k: int = 10

    @property
    def request(self) -> Request:
        """The request to the recommender: ranks all candidates if given, else all unseen items."""
        seen = self.history if self.similar_to is None else (self.similar_to,)
        return Request(seen, self.message, candidates=self.candidates, unseen=self.candidates is None, k=self.k)


@dataclass(frozen=True, eq=False)
class IdLookup:
    """Looks up item ids in the catalogue and user ids in the interactions."""

    catalog: Catalog
    interactions: Interactions

    def rows(self, ids: tuple[str, ...]) -> list[int]:
        """Return the rows of the known ids, in order and without repetitions."""
        found = (self.catalog.row_or_none(one) for one in ids)
        return list(dict.fromkeys(row for row in found if row is not None))

    def unknown(self, ids: tuple[str, ...]) -> int:
        """Return how many of these item ids are unknown."""
        return sum(self.catalog.row_or_none(one) is None for one in ids)


def resolve_ids(
    row: BatchRequest, ids: IdLookup, k: int, strict: bool = False
) -> tuple[RankingTask | None, Counter[str]]:
    """Resolve a request to a task, and count unknown ids; None if these leave no input or no candidates.

    Raises:
        RequestError: with `strict`, an id is unknown or nothing is left; names the request and the closest ids.
    """
    if strict:
        _refuse_unknown(row, ids)
    history = History()
    counts: Counter[str] = Counter()
    known = bool(row.message) or row.items == ()
    if row.user_id is not None:
        number = ids.interactions.number_or_none(row.user_id)
        counts["unknown_users"] += number is None
        history = history if number is None else ids.interactions.history(number)
        known |= number is not None
    named = (*(row.items or ()), *(() if row.similar_to is None else (row.similar_to,)))
    counts["unknown_items"] += ids.unknown(named)
    counts["unknown_candidates"] += ids.unknown(row.candidates or ())
    rows = ids.rows(named)
    candidates = None if row.candidates is None else tuple(ids.rows(row.candidates))
    if not (known or rows) or candidates == ():
        if strict:
            raise RequestError(f"request {row.request_id!r}: nothing is left to rank")
        counts["skipped_requests"] += 1
        return None, counts
    if row.similar_to is not None:
        return RankingTask((), rows[0], candidates, "", row.k or k), counts
    return RankingTask(history.extended_with(rows), None, candidates, row.message, row.k or k), counts


def _refuse_unknown(row: BatchRequest, ids: IdLookup) -> None:
    similar = () if row.similar_to is None else (row.similar_to,)
    try:
        if row.user_id is not None:
            ids.interactions.number(row.user_id)
        for one in (*similar, *(row.items or ()), *(row.candidates or ())):
            ids.catalog.row(one)
    except RequestError as error:
        raise RequestError(f"request {row.request_id!r}: {error}") from None


@contextmanager
def one_thread() -> Iterator[None]:
    """Run all numeric libraries with one thread, and restore their thread counts afterwards."""
    with threadpool_limits(THREADS), fixed_threads(THREADS):
        yield


@dataclass(frozen=True, eq=False)
class BatchRanker:
    """A recommender that ranks tasks one by one with one thread."""

    recommender: Recommender

    @cached_property
    def scorer(self) -> Scorer:
        """The recommender's scorer, with one thread."""
        return replace(self.recommender.scorer, threads=THREADS)

    def rank(self, task: RankingTask) -> list[RankedItem]:
        """Return the best items for a task, best first; fewer than k if fewer are allowed. Call within `one_thread`."""
        recommender = self.recommender
        request = parse_request(task.request, recommender.catalog).request
        allowed = recommender.allowed(request)
        if task.similar_to is not None:
            fusion, parts = recommender.fusions["history"], _similar_items(self.scorer, task.similar_to)
            rows, scores = top_k(fusion.combine(parts), task.k, allowed)
            kept = rows[0] >= 0
            listed = {name: parts[name][0][rows[0][kept]] for name in fusion.weights if name in parts}
            return _ranked_items(FusedList(rows[0][kept], scores[0][kept], listed, fusion), len(recommender.catalog))
        fusion = recommender.fusions["words" if request.message else "history"]
        history = np.asarray(request.history, np.int64)
        found = self.scorer.query(history, request.message).top_k(fusion, request.k, allowed)
        return _ranked_items(found, len(recommender.catalog))


def _similar_items(scorer: Scorer, row: int) -> dict[str, np.ndarray]:
    """Return similarities to an item, float32[1, n] by part: co-occurrence, item vector and text.

    There is no user taste, and popularity only affects weights that depend on it.
    """
    vectors = scorer.model.encoder.item_vectors
    norms = np.maximum(np.linalg.norm(vectors, axis=1), 1e-9)
    cosine = inner(vectors[row : row + 1], vectors)[0] / (norms * norms[row])
    history = [np.array([row], np.int64)]
    parts = {
        "encoder": log_softmax(cosine[None], TEXT_TEMPERATURE),
        "neighbours": scorer.neighbours.log_probability(history),
        "profile": scorer.profile(history),
    }
    return parts | familiarity_parts(parts, scorer.familiarity)


def _ranked_items(found: FusedList, items: int) -> list[RankedItem]:
    """Return rows with their scores and sources."""
    sources = found.sources(items)
    return [
        RankedItem(int(row), float(score), source)
        for row, score, source in zip(found.rows, found.scores, sources, strict=True)
    ]
