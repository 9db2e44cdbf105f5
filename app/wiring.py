"""Which handler each event of the page calls, and how a View becomes updates; every event is private."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import gradio as gr
from gradio.events import api as endpoint

from llmrec.app import present
from llmrec.app.api import Api
from llmrec.app.handlers import CARDS, Handlers, View
from llmrec.app.ui import Parts, columns
from llmrec.errors import UserError
from llmrec.session import Session

Update = dict[Any, Any]
_OPINIONS = ("liked", "disliked", "seen")


def build(handlers: Handlers, concurrency: int, queue: int) -> gr.Blocks:
    """Return the page with its private events and the two public endpoints, the queue bounded."""
    # Gradio keeps statistics of its last 10,000 events and sums them up anew for each; nobody reads them here
    os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "100")
    os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", "1000000")
    blocks = gr.Blocks(analytics_enabled=False, title="llmrec", fill_width=True)
    with blocks:
        parts = columns(handlers)
        Wiring(handlers, parts, concurrency).connect(blocks)
        _endpoints(handlers, concurrency)
    blocks.queue(max_size=queue, api_open=False, default_concurrency_limit=concurrency * 4)
    return blocks


class Wiring:
    """Connects events to handlers; every event is private, and looks its session up by the server's id."""

    def __init__(self, handlers: Handlers, parts: Parts, concurrency: int) -> None:
        self._handlers, self._parts = handlers, parts
        # everything that runs the model shares one limit; the rest is quick
        self._model: dict[str, Any] = {
            "concurrency_id": "model",
            "concurrency_limit": concurrency,
            "show_progress": "hidden",
            "api_visibility": "private",
        }
        self._quick: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}

    def connect(self, blocks: gr.Blocks) -> None:
        """Register all events."""
        parts, drawn = self._parts, self._parts.drawn
        blocks.load(self._bare(self._handlers.start), None, drawn, **self._model)
        parts.box.submit(self._say, parts.box, drawn, **self._model)
        parts.box.stop(self._stop, None, None, **self._quick)
        parts.chatbot.undo(self._undo, None, drawn, **self._model)
        parts.chatbot.retry(self._retry, None, drawn, **self._model)
        parts.chatbot.edit(self._edit, None, drawn, **self._model)
        parts.chatbot.clear(self._bare(self._handlers.clear), None, drawn, **self._model)
        parts.clear.click(self._bare(self._handlers.clear), None, drawn, **self._model)
        parts.user.input(self._with_value(self._handlers.become), parts.user, drawn, **self._model)
        for place, button in enumerate(parts.suggestions):
            button.click(self._suggest(place), None, drawn, **self._model)
        for place in range(CARDS):
            for opinion, button in (("like", parts.likes[place]), ("dislike", parts.dislikes[place])):
                judge = partial(self._handlers.judge, place=place, opinion=opinion)
                button.click(self._bare(judge), None, drawn, **self._quick)
        for which, group in zip(_OPINIONS, parts.opinions, strict=True):
            keep = partial(self._handlers.keep, which=which)
            group.input(self._with_value(keep), group, drawn, **self._quick)
        parts.filters.input(self._with_value(self._handlers.keep_filters), parts.filters, drawn, **self._model)
        self._connect_search()

    def _connect_search(self) -> None:
        parts = self._parts
        search: dict[str, Any] = {**self._quick, "trigger_mode": "always_last"}
        parts.search.change(self._search, parts.search, parts.results, **search)
        found = [*parts.drawn, parts.search, parts.results]
        parts.results.input(self._add, parts.results, found, **self._quick)

    def _session(self, request: gr.Request) -> Session:
        return self._handlers.sessions.get(request.session_hash, getattr(request, "username", None))

    def _bare(self, action: Callable[[Session], View]) -> Callable[[gr.Request], Update]:
        """Wrap a handler that needs the session only."""

        def act(request: gr.Request) -> Update:
            with _toasts():
                return self._draw(action(self._session(request)))

        return act

    def _with_value(self, action: Callable[[Session, object], View]) -> Callable[[Any, gr.Request], Update]:
        """Wrap a handler that takes one value from the page as well."""

        def act(value: Any, request: gr.Request) -> Update:
            with _toasts():
                return self._draw(action(self._session(request), value))

        return act

    def _say(self, message: Any, request: gr.Request) -> Iterator[Update]:
        session = self._session(request)
        try:
            with _toasts():
                for index, view in enumerate(self._handlers.say(session, message)):
                    yield self._draw(view, {"value": ""} if index == 0 else {})
        except gr.Error as error:
            gr.Warning(str(error.message))
            yield {self._parts.box: gr.update(submit_btn=True, stop_btn=False)}

    def _suggest(self, place: int) -> Callable[[gr.Request], Iterator[Update]]:
        # closures instead of partial: Gradio finds the request by the annotations of a plain function
        def act(request: gr.Request) -> Iterator[Update]:
            with _toasts():
                asked = self._handlers.suggested(self._session(request), place)
            yield from self._say(asked, request)

        return act

    def _stop(self, request: gr.Request) -> None:
        self._handlers.stop(self._session(request))

    def _undo(self, request: gr.Request) -> Update:
        asked, view = self._handlers.undo(self._session(request))
        return self._draw(view, {"value": asked} if asked else {})

    def _retry(self, request: gr.Request) -> Iterator[Update]:
        asked = self._session(request).undo()
        if asked:
            yield from self._say(asked, request)

    def _edit(self, edit: gr.EditData, request: gr.Request) -> Iterator[Update]:
        session = self._session(request)
        with _toasts():
            self._handlers.checked(Session("edit"), edit.value)
            place = edit.index[0] if isinstance(edit.index, list | tuple) else edit.index
            before = self._handlers.rewind(session, place)
        if before:
            yield from self._say(edit.value, request)

    def _search(self, typed: Any) -> Any:
        found = self._handlers.search(typed)
        return gr.update(choices=found, value=[], visible=bool(found))

    def _add(self, chosen: Any, request: gr.Request) -> Update:
        with _toasts():
            view = self._handlers.add(self._session(request), chosen)
        parts = self._parts
        return {
            **self._draw(view),
            parts.search: gr.update(value=""),
            parts.results: gr.update(choices=[], value=[], visible=False),
        }

    def _draw(self, view: View, box: dict[str, Any] | None = None) -> Update:
        """Turn a View into updates of components."""
        parts = self._parts
        update: Update = {parts.chatbot: view.messages}
        if view.words_only:
            return update
        update[parts.box] = gr.update(submit_btn=not view.writing, stop_btn=view.writing, **(box or {}))
        update[parts.heading] = view.heading
        update[parts.rest] = gr.update(value=view.rest, visible=bool(view.rest))
        for place, button in enumerate(parts.suggestions):
            offered = view.suggestions[place] if place < len(view.suggestions) else ""
            update[button] = gr.update(value=offered, visible=bool(offered))
        for group, pills in zip((*parts.opinions, parts.filters), (*view.opinions, view.filters), strict=True):
            update[group] = gr.update(choices=list(pills), value=[key for _, key in pills], visible=bool(pills))
        nothing = not view.filters and not any(view.opinions)
        update[parts.empty] = gr.update(visible=nothing)
        return {**update, **self._draw_cards(view)}

    def _draw_cards(self, view: View) -> Update:
        parts = self._parts
        update: Update = {}
        for place, column in enumerate(parts.cards):
            on = place < len(view.cards)
            update[column] = gr.update(visible=on)
            if on:
                face, opinion = view.cards[place]
                liked = opinion == "like"
                update[parts.faces[place]] = face
                update[parts.likes[place]] = gr.update(
                    value="Liked" if liked else "Like", variant="primary" if liked else "secondary"
                )
        return update


def _endpoints(handlers: Handlers, concurrency: int) -> None:
    """Register `recommend` and `chat` for programs."""
    api = Api(handlers)
    most, longest = handlers.chat.limits.k, handlers.chat.limits.message_chars

    def recommend(
        items: list[str] = [],  # noqa: B006 (the default is part of the published signature, and never changed)
        user: str = "",
        message: str = "",
        k: int = 10,
    ) -> dict[str, Any]:
        with _plain_errors():
            return api.recommend(items, user, message, k)

    def chat(message: str, request: gr.Request) -> dict[str, Any]:
        with _plain_errors():
            return api.chat(handlers.sessions.get(request.session_hash, getattr(request, "username", None)), message)

    recommend.__doc__ = f"""Recommend from the catalogue, without a conversation.

    Args:
        items: titles ("Toy Story (1995)") or ids of what the person liked, oldest first.
        user: id of a user of the log, whose history goes first; empty for none.
        message: a wish in words, at most {longest:,} characters; empty for none.
        k: how many, from 1 to {most}.

    Returns:
        {{"items": [{{"rank", "item_id", "title", "score", "source", "reason"}}]}}, best first.
    """
    chat.__doc__ = f"""Say something in the caller's own conversation, which the server keeps.

    Args:
        message: at most {longest:,} characters.

    Returns:
        {{"text", "items", "notices", "filters"}}; items is null when the list did not change.
    """
    endpoint(recommend, api_name="recommend", concurrency_id="model", concurrency_limit=concurrency)
    endpoint(chat, api_name="chat", concurrency_id="model", concurrency_limit=concurrency)


@contextmanager
def _toasts() -> Iterator[None]:
    """Turn an error for a person into a toast; toasts show HTML, hence the escaping."""
    try:
        yield
    except UserError as error:
        raise gr.Error(present.text(str(error)), print_exception=False) from None


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Turn an error for a person into the message that a client's exception carries."""
    try:
        yield
    except UserError as error:
        raise gr.Error(str(error), print_exception=False) from None
