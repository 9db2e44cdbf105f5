"""The two endpoints for programs, and recommendations as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from llmrec.catalog import Catalog, clean_text
from llmrec.chat import Items, Notice, Token
from llmrec.errors import RequestError
from llmrec.narrow import constraints, relax
from llmrec.session import Session
from llmrec.understand import stated

if TYPE_CHECKING:
    from llmrec.app.handlers import Handlers
    from llmrec.recommend import Recommendation, Request

_MOST_ITEMS = 1_000


class Api:
    """The two endpoints for programs; answers are plain data."""

    def __init__(self, handlers: Handlers) -> None:
        self._handlers, self._chat = handlers, handlers.chat

    def recommend(self, items: object, user: object, message: object, k: object) -> dict[str, Any]:
        """Recommend for titles or ids, for a known user, or for both; see the endpoint's description."""
        history: list[int] = []
        if not isinstance(user, str) or not isinstance(message, str):
            raise RequestError("user and message must be texts; leave them empty for none")
        if user:
            history += self._chat.recommender.history_of(user[:200])
        if not isinstance(items, list) or len(items) > _MOST_ITEMS or not all(isinstance(one, str) for one in items):
            raise RequestError("items must be a list of at most 1,000 titles or ids")
        history += [find_item(self._handlers.catalog, one) for one in items]
        wish = self._handlers.checked(Session("api"), message)
        request, notices = request_for(self._handlers.catalog, history, clean_text(wish, len(wish)), self._k(k))
        items = item_rows(self._handlers.catalog, self._chat.recommender.recommend(request))
        return {"items": items, "notices": notices}

    def chat(self, session: Session, message: object) -> dict[str, Any]:
        """Answer one message of the caller's own conversation."""
        asked = self._handlers.checked(session, message)
        text, notices = "", list[str]()
        items: tuple[Recommendation, ...] | None = None
        done = len(session.turns)
        for event in self._chat.turn(session, asked):
            if isinstance(event, Token):
                text += event.text
            elif isinstance(event, Notice):
                notices.append(event.text)
            elif isinstance(event, Items):
                items = event.items
        if len(session.turns) == done:
            raise RequestError(" ".join(notices))
        listed = None if items is None else item_rows(self._handlers.catalog, items)
        active = [one.label for one in constraints(session.profile.filters)]
        return {"text": text, "items": listed, "notices": notices, "filters": active}

    def _k(self, k: object) -> int:
        most = self._chat.limits.k
        if not isinstance(k, int) or isinstance(k, bool) or not 1 <= k <= most:
            raise RequestError(f"k is {str(k)[:20]}; use a whole number from 1 to {most}")
        return k


def request_for(catalog: Catalog, history: Sequence[int], message: str, k: int) -> tuple[Request, list[str]]:
    """Return a request whose constraints are those the message states, and a notice for each given up.

    A constraint is given up only when nothing that is not in the history satisfies all of them.
    """
    from llmrec.recommend import Request

    known = tuple(dict.fromkeys(history))
    left = np.ones(len(catalog), bool)
    left[list(known)] = False
    filters, dropped = relax(catalog, stated(message, catalog), left)
    notices = [f"nothing left satisfies all of that; given up: {label}" for label in dropped]
    return Request(history=known, message=message, filters=filters, k=k), notices


def find_item(catalog: Catalog, name: str) -> int:
    """Return the row of an id, or else of a title; RequestError names the closest titles."""
    name = name.strip()
    try:
        return catalog.row(name)
    except RequestError:
        return catalog.find(name[:300])


def item_rows(catalog: Catalog, items: Sequence[Recommendation]) -> list[dict[str, Any]]:
    """Return recommendations as plain data: rank, item_id, title, score, source, reason."""
    return [
        {
            "rank": rank,
            "item_id": catalog[item.row].id,
            "title": catalog.label(item.row),
            "score": round(float(item.score), 6),
            "source": item.source,
            "reason": item.reason,
        }
        for rank, item in enumerate(items, start=1)
    ]
