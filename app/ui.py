"""The page: its Gradio components and how they lie; what they show is said by Views alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from llmrec.app import present
from llmrec.app.handlers import CARDS, Handlers

_SUGGESTIONS = 4


@dataclass(frozen=True)
class Parts:
    """The components that change."""

    chatbot: gr.Chatbot
    box: gr.Textbox
    suggestions: list[gr.Button]
    heading: gr.Markdown
    cards: list[gr.Column]
    faces: list[gr.Markdown]
    likes: list[gr.Button]
    dislikes: list[gr.Button]
    rest: gr.Markdown
    opinions: list[gr.CheckboxGroup]
    filters: gr.CheckboxGroup
    empty: gr.Markdown
    clear: gr.Button
    user: gr.Dropdown
    search: gr.Textbox
    results: gr.CheckboxGroup

    @property
    def drawn(self) -> list[Any]:
        """The components a View draws."""
        lists = (self.suggestions, self.cards, self.faces, self.likes, self.opinions)
        alone = [self.chatbot, self.box, self.heading, self.rest, self.filters, self.empty]
        return [*alone, *(part for parts in lists for part in parts)]


# what every place for prepared HTML has in common
_HTML: dict[str, Any] = {"sanitize_html": True, "latex_delimiters": [], "container": False, "padding": False}


def columns(handlers: Handlers) -> Parts:
    """Lay the page out, inside a Blocks: conversation, list, and what is known of the visitor."""
    gr.Markdown(present.masthead(handlers.catalog), elem_id="masthead", **_HTML)
    with gr.Row(elem_id="columns", equal_height=False):
        return _three(handlers)


def _three(handlers: Handlers) -> Parts:
    with gr.Column(scale=5, min_width=320, elem_id="talk"):
        chatbot, box, suggestions, clear = _talk(handlers)
    with gr.Column(scale=5, min_width=320, elem_id="list"):
        heading = gr.Markdown(elem_id="heading", **_HTML)
        with gr.Column(elem_id="cards"):
            cards = [_card() for _ in range(CARDS)]
        rest = gr.Markdown(visible=False, **_HTML)
    with gr.Column(scale=3, min_width=240, elem_id="side"):
        user, search, results, opinions, filters, empty = _side(handlers)
    boxes, faces, likes, dislikes = (list(column) for column in zip(*cards, strict=True))
    return Parts(
        chatbot=chatbot,
        box=box,
        suggestions=suggestions,
        heading=heading,
        cards=boxes,
        faces=faces,
        likes=likes,
        dislikes=dislikes,
        rest=rest,
        opinions=opinions,
        filters=filters,
        empty=empty,
        clear=clear,
        user=user,
        search=search,
        results=results,
    )


def _talk(handlers: Handlers) -> tuple[gr.Chatbot, gr.Textbox, list[gr.Button], gr.Button]:
    chatbot = gr.Chatbot(
        show_label=False,
        container=False,
        elem_id="chat",
        height="var(--chat-height)",
        sanitize_html=True,
        render_markdown=False,
        allow_tags=False,
        allow_file_downloads=False,
        latex_delimiters=[],
        layout="bubble",
        buttons=[],
        feedback_options=None,
        editable="user",
        placeholder=present.hint("Say what you liked, what you want, what you do not."),
    )
    with gr.Row(elem_id="suggestions"):
        suggestions = [gr.Button("", size="sm", visible=False, min_width=0) for _ in range(_SUGGESTIONS)]
    box = gr.Textbox(
        show_label=False,
        container=False,
        label="Message",
        placeholder="What are you in the mood for?",
        max_length=handlers.chat.limits.message_chars,
        lines=1,
        max_lines=5,
        submit_btn=True,
        autofocus=True,
        elem_id="box",
    )
    clear = gr.Button("New conversation", size="sm", elem_id="clear", min_width=0)
    return chatbot, box, suggestions, clear


def _card() -> tuple[gr.Column, gr.Markdown, gr.Button, gr.Button]:
    with gr.Column(visible=False, elem_classes="card", min_width=0) as column:
        face = gr.Markdown(**_HTML)
        with gr.Row(elem_classes="acts"):
            like = gr.Button("Like", size="sm", min_width=0, elem_classes="act")
            dislike = gr.Button("Not for me", size="sm", min_width=0, elem_classes="act")
    return column, face, like, dislike


def _side(
    handlers: Handlers,
) -> tuple[gr.Dropdown, gr.Textbox, gr.CheckboxGroup, list[gr.CheckboxGroup], gr.CheckboxGroup, gr.Markdown]:
    user = gr.Dropdown(handlers.users(), value="", label="Visitor", filterable=True, elem_id="user")
    search = gr.Textbox(
        label=f"Add {handlers.catalog.domain} you like",
        placeholder="Type a title",
        max_length=100,
        elem_id="search",
    )
    results = gr.CheckboxGroup([], show_label=False, container=False, visible=False, elem_classes="pills add")
    names = ("Liked", "Not for me", "Already known")
    opinions = [gr.CheckboxGroup([], label=name, visible=False, elem_classes="pills remove") for name in names]
    filters = gr.CheckboxGroup([], label="Filters", visible=False, elem_classes="pills remove")
    empty = gr.Markdown(present.hint("What you like and what you rule out gathers here."), **_HTML)
    return user, search, results, opinions, filters, empty
