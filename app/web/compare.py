"""Answers one request in four ways: full recommender, encoder alone, text search, and base model in plain text."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from llmrec.app.api.endpoints import find_item
from llmrec.app.web.base_model_list import BaseModelLister
from llmrec.data.catalog import clean_text
from llmrec.data.interactions import History
from llmrec.data.requests import Request
from llmrec.dialogue.request_parsing import parse_request
from llmrec.errors import RequestError, UserError
from llmrec.numerics import log_softmax
from llmrec.ranker import top_k

if TYPE_CHECKING:
    from llmrec.nlu.state import Limits
    from llmrec.recommender import Recommender

MOST_TITLES, MOST_K = 50, 20


@dataclass(frozen=True)
class ComparisonEntry:
    """An entry of a list.

    Attributes:
        title: title in the catalogue, or as the base model wrote it.
        row: row in the catalogue, -1 for a title that is not in it.
        fits: whether the item meets the constraints in the message.
        reason: why the item is listed, if the method gives reasons.
    """

    title: str
    row: int
    fits: bool
    reason: str = ""


@dataclass(frozen=True)
class ComparisonColumn:
    """The answer of one method: its name, what it is based on, its list and its time; `ended` if it is complete."""

    name: str
    how: str
    lines: tuple[ComparisonEntry, ...] = ()
    seconds: float = 0.0
    ended: bool = False
    note: str = ""


def parse_form(
    recommender: Recommender, limits: Limits, liked: object, user: object, message: object, k: object
) -> tuple[Request, list[str]]:
    """Return the request of the form, with its message as typed, and notices; all values are checked again.

    Raises:
        RequestError: a value has the wrong type or is too large, a title or user is unknown, or the form is empty.
    """
    if not isinstance(liked, str) or not isinstance(message, str) or not isinstance(user, str | None):
        raise RequestError("titles, visitor and message must be texts")
    if len(message) > limits.message_chars:
        raise RequestError(f"the message has {len(message):,} characters; at most {limits.message_chars:,} are read")
    titles = [line for line in liked.splitlines() if line.strip()]
    if len(titles) > MOST_TITLES:
        raise RequestError(f"{len(titles)} titles; name at most {MOST_TITLES}, one per line")
    if isinstance(k, bool) or not isinstance(k, int | float) or not 1 <= k <= MOST_K or k != int(k):
        raise RequestError(f"the length is {str(k)[:20]}; use a whole number from 1 to {MOST_K}")
    known = History(recommender.history_of(user) if user else ())
    history = known.extended_with(find_item(recommender.catalog, title) for title in titles)
    wish = clean_text(message, limits.message_chars)
    if not history and not wish:
        raise RequestError("the request is empty: name liked items, choose a visitor, or say what you want")
    request = Request(history, wish, k=int(k))
    read = parse_request(request, recommender.catalog, MOST_K)
    return replace(request, k=read.request.k), list(read.notices)


def compare(
    recommender: Recommender, request: Request, base: BaseModelLister, stop: threading.Event | None = None
) -> Iterator[tuple[ComparisonColumn, ...]]:
    """Yield the four columns repeatedly while they fill."""
    columns = [
        ComparisonColumn("Hybrid", "item tokens of the language model, fused with encoder, neighbours and text"),
        ComparisonColumn("Encoder alone", "the order of past items; it ignores the message"),
        ComparisonColumn("Text search", "similarity of descriptions to the message, or to liked items"),
        ComparisonColumn("Base model in plain text", "the published language model, asked to list titles"),
    ]
    yield tuple(columns)
    for place, way in enumerate((rank_hybrid, rank_encoder, rank_text)):
        started = time.monotonic()
        lines = way(recommender, request)
        columns[place] = replace(columns[place], lines=lines, seconds=time.monotonic() - started, ended=True)
        yield tuple(columns)
    yield from _in_words(recommender, request, base, stop, columns)


def rank_hybrid(recommender: Recommender, request: Request) -> tuple[ComparisonEntry, ...]:
    """Return the list that the page and the endpoints give."""
    fits = _fits(recommender, request)
    read = parse_request(request, recommender.catalog, request.k).request
    return tuple(
        ComparisonEntry(recommender.catalog.label(one.row), one.row, bool(fits[one.row]), one.reason)
        for one in recommender.recommend(read)
    )


def rank_encoder(recommender: Recommender, request: Request) -> tuple[ComparisonEntry, ...]:
    """Return the encoder's best unseen items; it ignores constraints."""
    scores = recommender.model.encoder.scores([np.asarray(request.history, np.int64)])
    return _best(recommender, request, log_softmax(scores))


def rank_text(recommender: Recommender, request: Request) -> tuple[ComparisonEntry, ...]:
    """Return the unseen items whose text is most similar to the message, or without one to the latest liked items."""
    scorer = recommender.scorer
    if request.message:
        return _best(recommender, request, scorer.words([request.message]))
    return _best(recommender, request, scorer.profile([np.asarray(request.history, np.int64)]))


def _fits(recommender: Recommender, request: Request) -> np.ndarray:
    """Return bool[n], the items that satisfy the constraints in the message."""
    return recommender.catalog.where(parse_request(request, recommender.catalog).request.filters)


def _best(recommender: Recommender, request: Request, scores: np.ndarray) -> tuple[ComparisonEntry, ...]:
    allowed = np.ones(len(recommender.catalog), bool)
    allowed[list(request.history)] = False
    rows, _ = top_k(scores, request.k, allowed)
    fits = _fits(recommender, request)
    return tuple(ComparisonEntry(recommender.catalog.label(int(r)), int(r), bool(fits[r])) for r in rows[0] if r >= 0)


def _in_words(
    recommender: Recommender,
    request: Request,
    base: BaseModelLister,
    stop: threading.Event | None,
    columns: list[ComparisonColumn],
) -> Iterator[tuple[ComparisonColumn, ...]]:
    started = time.monotonic()
    catalog, fits, note = recommender.catalog, _fits(recommender, request), ""
    try:
        for listed in base.listed(request.history, request.message, stop):
            lines = tuple(
                ComparisonEntry(
                    catalog.label(row) if row >= 0 else clean_text(title, 120), row, row < 0 or bool(fits[row])
                )
                for title, row in zip(listed.titles, listed.rows, strict=True)
            )
            columns[3] = replace(columns[3], lines=lines, seconds=time.monotonic() - started)
            yield tuple(columns)
    except UserError as error:
        note = str(error)
    columns[3] = replace(columns[3], seconds=time.monotonic() - started, ended=True, note=note)
    yield tuple(columns)
