"""The request to a recommender and the recommendation that it returns."""

from __future__ import annotations

from dataclasses import dataclass, field

from llmrec.data.filters import Filters

MAX_K, MAX_MESSAGE = 100, 2000


@dataclass(frozen=True)
class Recommendation:
    """One item of a list: its row, the fused score, the part that spoke for it most, and why it is here."""

    row: int
    score: float
    source: str
    reason: str


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        history: rows the user took, oldest first; reasons name none of those that a `History` says were not liked.
        message: what the user says, read as the chat reads it (`llmrec.dialogue.request_parsing`): constraints in it
            become filters, titles in it enter the history or are left out, and the rest of it moves the list.
        filters: constraints; they always hold, whatever the message says.
        candidates: rank these rows only.
        exclude: rows never to be returned.
        k: how many items, 1 to 100; a number that the message asks for counts instead.
        unseen: leave out the history.
        parsed: the message has been parsed: its constraints and titles are in the other fields, and it is a bare
            description.
    """

    history: tuple[int, ...] = ()
    message: str = ""
    filters: Filters = field(default_factory=Filters)
    candidates: tuple[int, ...] | None = None
    exclude: tuple[int, ...] = ()
    k: int = 10
    unseen: bool = True
    parsed: bool = False
