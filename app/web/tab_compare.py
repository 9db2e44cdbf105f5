"""The Compare tab: one request answered in four ways."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr

from llmrec.app.server.services import Services
from llmrec.app.web.base_model_list import BaseModelLister
from llmrec.app.web.compare import MOST_K, compare, parse_form
from llmrec.app.web.html import cards, tabs
from llmrec.errors import UserError

_HTML: dict[str, Any] = {"sanitize_html": True, "latex_delimiters": [], "container": False, "padding": False}
_USERS = 2_000


def build(services: Services) -> None:
    """Build the tab's components and connect their events; call it inside a Tab."""
    base = BaseModelLister(services.recommender)
    domain = services.chat.catalog.domain
    gr.Markdown(
        cards.muted_line(
            "The same request, answered by the full recommender, by its encoder alone, by text search, and by the "
            f"language model without item tokens, which may name {domain} outside the catalogue."
        ),
        **_HTML,
    )
    with gr.Row(elem_id="compare-form", equal_height=True):
        message = gr.Textbox(
            label="Wish", placeholder="for example: a comedy, no horror", max_length=services.limits.message_chars,
            lines=3, elem_id="compare-message",
        )  # fmt: skip
        liked = gr.Textbox(
            label=f"Liked {domain}, one title per line", lines=3, max_length=4_000, elem_id="compare-liked"
        )
        with gr.Column(min_width=200):
            user = gr.Dropdown(_users(services), value="", label="Known user", filterable=True, elem_id="compare-user")
            k = gr.Slider(1, MOST_K, value=10, step=1, label="How many", elem_id="compare-k")
    with gr.Row(elem_id="compare-acts"):
        go = gr.Button("Compare", variant="primary", elem_id="compare-go", min_width=120)
        take = gr.Button("Copy from my chat", elem_id="compare-take", min_width=120)
        stop = gr.Button("Stop", elem_id="compare-stop", min_width=80)
    out = gr.Markdown(elem_id="compare-out", **_HTML)
    running = go.click(_compared(services, base), [message, liked, user, k], out, **services.model)
    stop.click(None, None, None, cancels=[running], **services.quick)
    take.click(_taken(services), None, [message, liked, user], **services.quick)


def _users(services: Services) -> list[tuple[str, str]]:
    known = sorted(services.recommender.users, key=lambda one: (len(one), one))[:_USERS]
    return [("No known user", ""), *((f"User {one}", one) for one in known)]


def _compared(services: Services, base: BaseModelLister) -> Callable[..., Iterator[str]]:
    def run(message: Any, liked: Any, user: Any, k: Any) -> Iterator[str]:
        ended = threading.Event()
        try:
            request, notices = parse_form(services.recommender, services.limits, liked, user, message, k)
            for found in compare(services.recommender, request, base, ended):
                yield tabs.comparison_columns(found, notices)
        except UserError as error:
            raise gr.Error(cards.escape_html(str(error)), print_exception=False) from None
        finally:
            ended.set()  # also stops the work when the visitor has left

    return run


def _taken(services: Services) -> Callable[[gr.Request], tuple[str, str, str]]:
    def take(request: gr.Request) -> tuple[str, str, str]:
        visit = services.sessions.get(request.session_hash, getattr(request, "username", None))
        profile = visit.profile
        titles = "\n".join(services.chat.catalog.label(row) for row in (*profile.seen, *profile.liked))
        return profile.wish, titles, profile.user

    return take
