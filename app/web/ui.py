"""Layout of the page: its Gradio components. All that they display comes from Views."""

from __future__ import annotations

from dataclasses import dataclass, fields
from importlib import import_module
from typing import Any

import gradio as gr

from llmrec.app.server.services import Services
from llmrec.app.web.handlers import Handlers
from llmrec.app.web.html import cards

# module -> title of its tab; each module has `build(services)`
TABS = {"tab_compare": "Compare", "tab_batch": "Batch", "tab_model": "Model"}


@dataclass(frozen=True)
class PageComponents:
    """The components that change or send events."""

    chatbot: gr.Chatbot
    offers: gr.Markdown
    box: gr.Textbox
    clear: gr.Button
    heading: gr.Markdown
    drawer: gr.Accordion
    trace: gr.Markdown
    cards: gr.Markdown
    user: gr.Dropdown
    search: gr.Textbox
    results: gr.Markdown
    profile: gr.Markdown
    keep: gr.Checkbox
    share: gr.Checkbox
    export: gr.Button
    file: gr.Markdown
    memory: gr.BrowserState
    act: gr.Textbox
    ask: gr.Textbox

    @property
    def drawn(self) -> list[Any]:
        """The components that a View updates."""
        still = {"clear", "user", "search", "results", "share", "export", "file", "act", "ask", "trace"}
        return [getattr(self, one.name) for one in fields(self) if one.name not in still]


# options of every component that shows prepared HTML
_HTML: dict[str, Any] = {"sanitize_html": True, "latex_delimiters": [], "container": False, "padding": False}


def page(handlers: Handlers) -> PageComponents:
    """Build the page's components inside a Blocks: the chat in the first tab, then the other tabs."""
    gr.Markdown(cards.masthead(handlers.catalog), elem_id="masthead", **_HTML)
    with gr.Tabs(elem_id="tabs"):
        with gr.Tab("Chat", id="chat"), gr.Row(elem_id="columns", equal_height=False):
            shown = _columns(handlers)
        build_other_tabs(handlers.services)
    with gr.Column(elem_id="unseen"):
        return PageComponents(**shown, **_unseen())


def build_other_tabs(services: Services) -> None:
    """Build the other tabs."""
    for module, name in TABS.items():
        with gr.Tab(name, id=module.removeprefix("tab_"), elem_classes="other"):
            import_module(f"llmrec.app.web.{module}").build(services)


def _columns(handlers: Handlers) -> dict[str, Any]:
    with gr.Column(scale=5, min_width=320, elem_id="talk"):
        talk = _talk(handlers)
    with gr.Column(scale=6, min_width=320, elem_id="list"):
        heading = gr.Markdown(elem_id="heading", **_HTML)
        with gr.Accordion("How was this list made?", open=False, elem_id="drawer") as drawer:
            trace = gr.Markdown(**_HTML)
        cards = gr.Markdown(elem_id="cards", **_HTML)
    with gr.Column(scale=3, min_width=240, elem_id="side"):
        side = _side(handlers)
    return {"heading": heading, "drawer": drawer, "trace": trace, "cards": cards, **talk, **side}


def _unseen() -> dict[str, Any]:
    """Build the hidden components through which the page's script and the browser's storage talk to the server."""
    wires: dict[str, Any] = {name: gr.Textbox(elem_id=f"wire-{name}", label=name) for name in ("act", "ask")}
    file = gr.Markdown(elem_id="file", **_HTML)
    return {**wires, "file": file, "memory": gr.BrowserState(None, storage_key="llmrec-conversation", secret="llmrec")}


def _talk(handlers: Handlers) -> dict[str, Any]:
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
        placeholder=cards.welcome(handlers.catalog),
    )
    offers = gr.Markdown(elem_id="offers", **_HTML)
    box = gr.Textbox(
        show_label=False,
        container=False,
        label="Message",
        placeholder="Say what you would like",
        max_length=handlers.chat.limits.message_chars,
        lines=1,
        max_lines=5,
        submit_btn=True,
        autofocus=True,
        elem_id="box",
    )
    clear = gr.Button("New conversation", size="sm", elem_id="clear", min_width=0)
    return {"chatbot": chatbot, "offers": offers, "box": box, "clear": clear}


def _side(handlers: Handlers) -> dict[str, Any]:
    user = gr.Dropdown(handlers.users(), value="", label="Visitor", filterable=True, elem_id="user")
    search = gr.Textbox(
        label=f"Add {handlers.catalog.domain} you like", placeholder="Type a title", max_length=100, elem_id="search"
    )
    results = gr.Markdown(elem_id="results", **_HTML)
    profile = gr.Markdown(elem_id="profile", **_HTML)
    with gr.Accordion("This conversation", open=False, elem_id="browser"):
        keep = gr.Checkbox(label="Keep it in this browser", value=False, elem_id="keep")
        recorded = handlers.services.feedback is not None
        share = gr.Checkbox(label="Also record my messages", value=False, visible=recorded, elem_id="share")
        told = cards.muted_line(
            "This server records the lists shown and your reactions to them, but no names and no messages."
        )
        gr.Markdown(told, visible=recorded, elem_id="told", **_HTML)
        with gr.Row(elem_id="files"):
            export = gr.Button("Export", size="sm", min_width=0, elem_id="export")
            gr.Button("Import", size="sm", min_width=0, elem_id="import")
    made = {"user": user, "search": search, "results": results, "profile": profile}
    return {**made, "keep": keep, "share": share, "export": export}
