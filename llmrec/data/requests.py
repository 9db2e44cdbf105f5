"""The request to a recommender and the recommendation that it returns."""

from __future__ import annotations

from dataclasses import dataclass, field

from llmrec.data.filters import Filters

MAX_K, MAX_MESSAGE = 100, 2000


@dataclass(frozen=True)
class Recommendation:
    """One item of a list: its row, its fused score, the score part that contributed most, and the reason to show."""

    row: int
    score: float
    source: str
    reason: str


@dataclass(frozen=True)
class Request:
    """A request for recommendations.

    Attributes:
        history: the user's rows, oldest first. If it is a `History`, reasons do not name rows that were not liked.
        message: the user's words, parsed as in the chat (`llmrec.dialogue.request_parsing`). Constraints in it become
            filters, titles in it enter the history or are excluded, and the rest of it influences the ranking.
        filters: constraints that always hold, whatever the message says.
        candidates: the only rows to rank; None for the whole catalogue.
        exclude: rows that are never returned.
        k: number of items, 1 to 100; a number stated in the message takes precedence.
        unseen: whether to leave out the items of the history.
        parsed: whether the message has already been parsed. Its constraints and titles are then in the other fields,
            and what is left of it is a bare description.
    """

    history: tuple[int, ...] = ()
    message: str = ""
    filters: Filters = field(default_factory=Filters)
    candidates: tuple[int, ...] | None = None
    exclude: tuple[int, ...] = ()
    k: int = 10
    unseen: bool = True
    parsed: bool = False
