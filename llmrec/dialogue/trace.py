"""Traces a recommendation: prompt, decoded items, scores of each part, fusion and times.

The request is run again, stage by stage, with the same functions. Scoring is deterministic, so the trace shows how the
list was made; only the times are measured anew.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from llmrec.dialogue.request_parsing import parse_request
from llmrec.lm.rendering import Rendered, Renderer
from llmrec.ranking.explanations import fulfilled
from llmrec.ranking.fusion import Fusion

if TYPE_CHECKING:
    from llmrec.recommender import Recommender, Request

_SOME = 10
SegmentKind = Literal["words", "mark", "item", "user"]


@dataclass(frozen=True)
class PromptSegment:
    """A segment of the prompt: words, a role mark, one item (`row`), or the user's soft tokens.

    Attributes:
        kind: which of these it is.
        text: the words, or the semantic ID of an item; else empty.
        row: catalogue row of an item, else -1.
        tokens: number of token ids.
    """

    kind: SegmentKind
    text: str
    row: int
    tokens: int


@dataclass(frozen=True)
class DecodedItem:
    """An item that the language model decoded.

    Attributes:
        row: catalogue row.
        codes: its semantic ID, one code per level.
        log_probability: of the whole path, over the catalogue.
        allowed: whether the constraints allow it.
    """

    row: int
    codes: tuple[int, ...]
    log_probability: float
    allowed: bool


@dataclass(frozen=True)
class ScoredItem:
    """A listed item with its log-probability by part, its fused score, and clauses on the wishes that it fulfils."""

    row: int
    score: float
    parts: Mapping[str, float]
    fulfils: tuple[str, ...] = ()


@dataclass(frozen=True)
class Trace:
    """The intermediate results that led to one list.

    Attributes:
        prompt: the language model's input, in order.
        decoded: the language model's own best items, including those that the constraints exclude.
        lines: the list.
        weights: fusion weights by part.
        seconds: time of each stage, in the order of the stages.
        allowed: number of items that the constraints and the history leave.
        catalogue: number of items in the catalogue.
    """

    prompt: tuple[PromptSegment, ...]
    decoded: tuple[DecodedItem, ...]
    lines: tuple[ScoredItem, ...]
    weights: Mapping[str, float]
    seconds: Mapping[str, float]
    allowed: int
    catalogue: int


def trace_request(recommender: Recommender, request: Request) -> Trace:
    """Run a request again and keep the result of each stage.

    Raises:
        RequestError: as `Recommender.recommend` does.
    """
    seconds = dict[str, float]()
    with _timed(seconds, "filters"):
        request = parse_request(request, recommender.catalog).request
        allowed = recommender.allowed(request)
    asked = recommender.scorer.query(np.asarray(request.history, np.int64), request.message)
    with _timed(seconds, "prompt"):
        prompt = asked.prompt
    with _timed(seconds, "look-up"):
        _ = asked.non_llm_parts
    with _timed(seconds, "language model"):
        own = asked.top_k(Fusion({"llm": 1.0}), _SOME, np.ones(len(allowed), bool))
    fusion = recommender.fusions["words" if request.message else "history"]
    with _timed(seconds, "fusion"):  # reads what the language model was not asked for above
        found = asked.top_k(fusion, request.k, allowed)
    codes = recommender.model.vocab.ids.codes
    return Trace(
        prompt=tuple(prompt_segments(recommender.model.renderer, prompt)),
        decoded=tuple(
            DecodedItem(int(row), tuple(int(code) for code in codes[row]), float(height), bool(allowed[row]))
            for row, height in zip(own.rows, own.scores, strict=True)
        ),
        lines=tuple(
            ScoredItem(
                int(row),
                float(score),
                {name: float(share[place]) for name, share in found.parts.items()},
                tuple(fulfilled(recommender.catalog, int(row), request.message, request.filters)),
            )
            for place, (row, score) in enumerate(zip(found.rows, found.scores, strict=True))
        ),
        weights={name: weight for name, weight in fusion.weights.items() if name in found.parts},
        seconds=seconds,
        allowed=int(allowed.sum()),
        catalogue=len(recommender.catalog),
    )


def prompt_segments(renderer: Renderer, prompt: Rendered) -> Iterator[PromptSegment]:
    """Split a rendered prompt into segments of neighbouring ids of one kind; each item is a segment of its own."""
    vocab, ids = renderer.vocab, prompt.ids.tolist()
    depth, place = vocab.ids.depth, 0
    while place < len(ids):
        kind, end = _kind(renderer, ids[place]), place + 1
        if kind == "item":
            end = place + depth
            row = vocab.row(tuple(ids[place:end]))
            yield PromptSegment(kind, "-".join(str(code) for code in vocab.ids.codes[row]), row, depth)
        else:
            while end < len(ids) and _kind(renderer, ids[end]) == kind:
                end += 1
            yield PromptSegment(kind, renderer.decode_text(ids[place:end]) if kind == "words" else "", -1, end - place)
        place = end


def _kind(renderer: Renderer, token: int) -> SegmentKind:
    if token == renderer.user_slot:
        return "user"
    if token >= renderer.vocab.base:
        return "item"
    return "mark" if token in renderer.control else "words"


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - started
