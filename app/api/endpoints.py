"""The API endpoints `recommend` and `chat`, and recommendations as plain data."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from llmrec.app.server.guard import checked_message
from llmrec.data.catalog import Catalog, clean_text
from llmrec.data.constraints import constraints
from llmrec.data.filter_expressions import parse_json_filters
from llmrec.data.interactions import History
from llmrec.data.requests import MAX_K, Request
from llmrec.dialogue.chat import Items, Notice, Token
from llmrec.dialogue.request_parsing import parse_request
from llmrec.errors import RequestError, UserError
from llmrec.nlu.state import Session

if TYPE_CHECKING:
    import gradio as gr

    from llmrec.app.server.services import Services
    from llmrec.data.requests import Recommendation
    from llmrec.recommender import Recommender

_MOST_ITEMS = 1_000
_MOST_CHARS = 300
_USER_CHARS = 200
_BEGUN = re.compile(r"[A-Za-z0-9_-]{22}-[0-9a-f]{16}")


class Api:
    """The two endpoints for programs; answers are plain data.

    Args:
        services: gives the recommender, the limits and the sessions that hold conversations.
    """

    def __init__(self, services: Services) -> None:
        self._services, self._chat = services, services.chat
        self._key = secrets.token_bytes(32)

    def recommend(
        self, items: object, user: object, message: object, k: object, filters: object = None
    ) -> dict[str, Any]:
        """Recommend for titles or ids, for a known user, or for both; see the endpoint's description."""
        if not isinstance(user, str) or not isinstance(message, str):
            raise RequestError("user and message must be texts; leave them empty for none")
        wish = checked_message(self._chat, Session("api"), message)
        count = self._k(k)
        known = History(self._chat.recommender.history_of(user[:_USER_CHARS]) if user else ())
        if not isinstance(items, list) or len(items) > _MOST_ITEMS or not all(isinstance(one, str) for one in items):
            raise RequestError("items must be a list of at most 1,000 titles or ids")
        catalog = self._chat.catalog
        history = known.extended_with([find_item(catalog, one) for one in items])
        held = parse_json_filters(filters, catalog)
        asked = Request(history, clean_text(wish, len(wish)), held, k=count)
        found, notices = recommend_for(self._chat.recommender, asked, self._chat.limits.k)
        return {"items": item_rows(catalog, found), "notices": notices}

    def chat(self, session: Session, message: object) -> dict[str, Any]:
        """Answer one message of the caller's own conversation."""
        asked = checked_message(self._chat, session, message)
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
        if len(session.turns) == done and not text:
            raise RequestError(" ".join(notices))
        listed = None if items is None else item_rows(self._chat.catalog, items)
        active = [one.label for one in constraints(session.profile.filters)]
        return {"text": text, "items": listed, "notices": notices, "filters": active}

    def session(self, conversation: object, request: gr.Request) -> tuple[str, Session]:
        """Return the id and the session of the conversation that a call belongs to.

        A call without an id belongs to the conversation of its connection, whose id is "". MCP calls have no connection
        of their own (Gradio makes all of them over a single one), so each begins a new conversation unless it names
        one.

        Raises:
            RequestError: this server did not issue the id.
        """
        if not isinstance(conversation, str):
            raise RequestError("conversation must be a text; leave it empty to begin one")
        login = getattr(request, "username", None)
        if not conversation and request.headers.get("x-gradio-user") != "mcp":
            return "", self._services.sessions.get(request.session_hash, login)
        conversation = conversation or self._begin()
        if not _BEGUN.fullmatch(conversation) or not hmac.compare_digest(conversation[23:], self._seal(conversation)):
            raise RequestError("that conversation was not begun here; leave it empty to begin one")
        return conversation, self._services.sessions.get(conversation, login)

    def _begin(self) -> str:
        token = secrets.token_urlsafe(16)
        return f"{token}-{self._seal(token)}"

    def _seal(self, token: str) -> str:
        """Return the seal of an id; with it callers cannot invent ids, so two callers never choose the same one."""
        return hmac.new(self._key, token[:22].encode(), hashlib.sha256).hexdigest()[:16]

    def _k(self, k: object) -> int:
        most = self._chat.limits.k
        if not isinstance(k, int) or isinstance(k, bool) or not 1 <= k <= most:
            raise RequestError(f"k is {str(k)[:20]}; use a whole number from 1 to {most}")
        return k


def register(services: Services) -> Api:
    """Register `recommend` and `chat` inside a Blocks; they are the only public events."""
    import gradio as gr
    from gradio.events import api as endpoint

    api = Api(services)

    def recommend(
        items: list[str] = [],  # noqa: B006 (the default is part of the published signature, and never changed)
        user: str = "",
        message: str = "",
        k: int = 10,
        filters: dict[str, Any] = {},  # noqa: B006 (as above)
    ) -> dict[str, Any]:
        with _plain_errors():
            return api.recommend(items, user, message, k, filters)

    def chat(message: str, request: gr.Request, conversation: str = "") -> dict[str, Any]:
        with _plain_errors():
            began, session = api.session(conversation, request)
            return {**api.chat(session, message), "conversation": began}

    # Gradio does not evaluate annotations, and those of this module are strings
    kinds = {"items": list[str], "user": str, "message": str, "k": int, "filters": dict[str, Any]}
    recommend.__annotations__ = {**kinds, "return": dict[str, Any]}
    chat.__annotations__ = {"message": str, "request": gr.Request, "conversation": str, "return": dict[str, Any]}
    recommend.__doc__, chat.__doc__ = _descriptions(services)
    limit: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": services.settings.concurrency}
    endpoint(recommend, api_name="recommend", **limit)
    endpoint(chat, api_name="chat", **limit)
    return api


def _descriptions(services: Services) -> tuple[str, str]:
    most, longest = services.limits.k, services.limits.message_chars
    catalog, domain = services.chat.catalog, services.chat.catalog.domain
    names = ", ".join(catalog.attribute_names) or "none"
    return (
        f"""Recommend from the catalogue of {len(services.chat.catalog):,} {domain}, without a conversation.

    k from 1 to {most}, a message of at most {longest:,} characters.

    Args:
        items: titles ("Toy Story (1995)") or ids of what the person liked, oldest first.
        user: id of a user of the log, whose history goes first; empty for none.
        message: a wish in words, at most {longest:,} characters, read as the chat reads it; empty for none.
        k: how many, from 1 to {most}; a number in the message counts instead.
        filters: what every item must satisfy, {{"any_of": {{attribute: [values]}}, "all_of", "none_of",
            "ranges": {{attribute: [low, high]}}}}, any part left out; the attributes are {names}.

    Returns:
        {{"items": [{{"rank", "item_id", "title", "score", "source", "reason"}}], "notices"}}, best first.
    """,
        f"""Say something in a conversation about {domain}, which the server keeps; at most {longest:,} characters.

    Args:
        message: at most {longest:,} characters.
        conversation: the id from an earlier answer, to go on with that conversation; empty for the caller's own.

    Returns:
        {{"text", "items", "notices", "filters", "conversation"}}; items is null when the list did not change.
    """,
    )


def recommend_for(
    recommender: Recommender, request: Request, most: int = MAX_K
) -> tuple[list[Recommendation], list[str]]:
    """Recommend for a request; returns the items and notices. If there are no items, a notice says why.

    `most` limits the number of items that a message may ask for.
    """
    read = parse_request(request, recommender.catalog, most)
    items, notices = recommender.recommend(read.request), list(read.notices)
    if not items and not notices:
        held = read.request.filters.describe()
        notices.append(f"no {recommender.catalog.domain} left that fit {held or 'this request'}")
    return items, notices


def find_item(catalog: Catalog, name: str) -> int:
    """Return the row for an id, a title, or another form of an id.

    Raises:
        RequestError: there is no such item; the message names the closest titles.
    """
    name = name.strip()[:_MOST_CHARS]
    row = catalog.row_or_none(name)
    if row is None or (catalog[row].id != name and catalog.exact(name) is not None):
        return catalog.find(name)
    return row


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


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Turn user errors into Gradio errors, whose message reaches the client."""
    import gradio as gr

    try:
        yield
    except UserError as error:
        # cleaned, because it may repeat the input, and a lone surrogate would break the answer's stream
        raise gr.Error(clean_text(str(error), _MOST_CHARS * 4), print_exception=False) from None
