"""Connects the events of the page to handlers and turns Views into component updates; every event is private."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gradio as gr

from llmrec.app.api.endpoints import register
from llmrec.app.server.guard import Visit, checked_message
from llmrec.app.server.private_errors import PrivateErrorBlocks
from llmrec.app.server.services import Services
from llmrec.app.web.handlers import Handlers, View
from llmrec.app.web.html import cards
from llmrec.app.web.ui import PageComponents, page
from llmrec.errors import UserError

Update = dict[Any, Any]
# how many quick actions may run at the same time, independent of replies being written
_ACTS = 4


def build(services: Services) -> gr.Blocks:
    """Return the page with its private events, the two public endpoints and a bounded queue."""
    # by default Gradio keeps statistics of its last 10,000 events and recomputes them for each; they are not used here
    os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "100")
    os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", "1000000")
    handlers = Handlers(services)
    blocks = PrivateErrorBlocks(analytics_enabled=False, title="llmrec", fill_width=True)
    with blocks:
        Wiring(handlers, page(handlers)).connect(blocks)
        register(services)
    limit = services.settings.concurrency * 4
    blocks.queue(max_size=services.settings.queue, api_open=False, default_concurrency_limit=limit)
    return blocks


class Wiring:
    """Connects events to handlers; every event is private and finds its session by the id that the server assigned."""

    def __init__(self, handlers: Handlers, parts: PageComponents) -> None:
        self._handlers, self._parts = handlers, parts
        # events that generate text share one limit; those that only list items are quick and must not wait for text
        self._model, self._quick = handlers.services.model, handlers.services.quick
        self._act_options = {**self._quick, "concurrency_id": "acts", "concurrency_limit": _ACTS}

    def connect(self, blocks: gr.Blocks) -> None:
        """Register all events."""
        parts, drawn, handlers = self._parts, self._parts.drawn, self._handlers
        blocks.load(self._with_value(handlers.start), parts.memory, drawn, **self._act_options)
        parts.box.submit(self._say, parts.box, drawn, **self._model)
        parts.box.stop(self._stop, None, None, **self._quick)
        parts.chatbot.undo(self._undo, None, drawn, **self._act_options)
        parts.chatbot.retry(self._replies(handlers.retry), None, drawn, **self._model)
        parts.chatbot.edit(self._edit, None, drawn, **self._model)
        parts.clear.click(self._bare(handlers.clear), None, drawn, **self._act_options)
        parts.user.input(self._with_value(handlers.become), parts.user, drawn, **self._act_options)
        acted = [*drawn, parts.search, parts.results]
        parts.act.submit(self._act, parts.act, acted, trigger_mode="multiple", **self._act_options)
        parts.ask.submit(self._ask, parts.ask, drawn, trigger_mode="multiple", **self._model)
        parts.search.change(self._search, parts.search, parts.results, trigger_mode="always_last", **self._quick)
        parts.drawer.expand(self._explain, None, parts.trace, **self._act_options)
        parts.keep.input(self._keep, parts.keep, drawn, **self._quick)
        parts.share.input(self._share, parts.share, None, **self._quick)
        parts.export.click(self._export, None, parts.file, **self._quick)

    def _visit(self, request: gr.Request) -> Visit:
        return self._handlers.sessions.get(request.session_hash, getattr(request, "username", None))

    def _bare(self, action: Callable[[Visit], View]) -> Callable[[gr.Request], Update]:
        """Wrap a handler that needs only the session."""

        def act(request: gr.Request) -> Update:
            with _toasts():
                return self._draw(action(self._visit(request)))

        return act

    def _with_value(self, action: Callable[[Visit, object], View]) -> Callable[[Any, gr.Request], Update]:
        """Wrap a handler that also takes one value from the page."""

        def act(value: Any, request: gr.Request) -> Update:
            with _toasts():
                return self._draw(action(self._visit(request), value))

        return act

    def _replies(self, action: Callable[[Visit], Iterator[View]]) -> Callable[[gr.Request], Iterator[Update]]:
        """Wrap a handler that streams a reply.

        The wrappers are closures, because Gradio finds the request parameter by a function's annotations.
        """

        def act(request: gr.Request) -> Iterator[Update]:
            yield from self._stream(action(self._visit(request)), {})

        return act

    def _say(self, message: Any, request: gr.Request) -> Iterator[Update]:
        yield from self._stream(self._handlers.say(self._visit(request), message), {"value": ""})

    def _ask(self, sent: Any, request: gr.Request) -> Iterator[Update]:
        yield from self._stream(self._handlers.ask(self._visit(request), sent), {})

    def _act(self, sent: Any, request: gr.Request) -> Update:
        update = self._with_value(self._handlers.act)(sent, request)
        if not str(sent).startswith("add:"):
            return update
        return {**update, self._parts.search: "", self._parts.results: ""}

    def _stream(self, views: Iterator[View], box: dict[str, Any]) -> Iterator[Update]:
        try:
            with _toasts():
                for index, view in enumerate(views):
                    yield self._draw(view, box if index == 0 else {})
        except gr.Error as error:
            # a toast instead of an error, so that the typed text stays in the box
            gr.Warning(str(error.message))
            yield {self._parts.box: gr.update(submit_btn=True, stop_btn=False)}

    def _stop(self, request: gr.Request) -> None:
        self._visit(request).stop()

    def _undo(self, request: gr.Request) -> Update:
        asked, view = self._handlers.undo(self._visit(request))
        return self._draw(view, {"value": asked} if asked else {})

    def _edit(self, edit: gr.EditData, request: gr.Request) -> Iterator[Update]:
        visit = self._visit(request)
        with _toasts():
            checked_message(self._handlers.chat, Visit("edit"), edit.value)
            place = edit.index[0] if isinstance(edit.index, list | tuple) else edit.index
            before = self._handlers.rewind(visit, place)
        if before:
            yield from self._stream(self._handlers.say(visit, edit.value), {})

    def _search(self, typed: Any) -> str:
        return self._handlers.search(typed)

    def _explain(self, request: gr.Request) -> str:
        with _toasts():
            return self._handlers.explain(self._visit(request))

    def _keep(self, on: Any, request: gr.Request) -> Update:
        view = self._handlers.keep(self._visit(request), on)
        forget = {self._parts.memory: {"keep": False}} if view.kept is None else {}
        return {**self._draw(view), **forget}

    def _share(self, on: Any, request: gr.Request) -> None:
        self._handlers.share(self._visit(request), on)

    def _export(self, request: gr.Request) -> str:
        return self._handlers.export(self._visit(request))

    def _draw(self, view: View, box: dict[str, Any] | None = None) -> Update:
        """Turn a View into component updates."""
        parts = self._parts
        if view.words_only:
            return {parts.chatbot: view.messages}
        update: Update = {parts.heading: view.heading, parts.cards: view.cards, parts.profile: view.profile}
        update[parts.drawer] = gr.update(open=False)  # it explains the previous list
        if view.beside:
            return update
        update |= {parts.chatbot: view.messages, parts.offers: view.offers}
        update[parts.box] = gr.update(submit_btn=not view.writing, stop_btn=view.writing, **(box or {}))
        if view.kept is not None:
            update[parts.memory] = {"keep": True, "sealed": view.kept}
            update[parts.keep] = True
        return update


@contextmanager
def _toasts() -> Iterator[None]:
    """Turn user errors into toasts; toasts render HTML, so the message is escaped."""
    try:
        yield
    except UserError as error:
        raise gr.Error(cards.escape_html(str(error)), print_exception=False) from None
