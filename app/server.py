"""From a recommender and settings to a served page."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import gradio as gr
from fastapi import FastAPI

from llmrec.app.handlers import Handlers
from llmrec.app.limits import Guard, Sessions
from llmrec.app.settings import Settings
from llmrec.app.wiring import build
from llmrec.chat import Chat

if TYPE_CHECKING:
    from llmrec.recommend import Recommender

_SANS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif")
_MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")


def create(recommender: Recommender, settings: Settings) -> FastAPI:
    """Return the application: the page mounted behind the guard."""
    chat = Chat(recommender)
    sessions = Sessions(chat, settings.sessions, settings.session_minutes * 60)
    blocks = build(Handlers(chat, sessions), settings.concurrency, settings.queue)
    blocks.state_session_capacity = settings.sessions
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Guard, body_bytes=settings.body_bytes, hosts=_names(settings))
    gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        server_name=settings.host,
        server_port=settings.port,
        footer_links=[],
        run_history=False,
        show_error=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        max_file_size=1,
        theme=theme(),
        css=Path(__file__).with_name("theme.css").read_text(encoding="utf-8"),
        auth=_login(settings) if settings.password is not None else None,
    )
    return app


def serve(recommender: Recommender, settings: Settings, listener: socket.socket) -> None:
    """Serve on a bound socket until interrupted."""
    import uvicorn

    config = uvicorn.Config(
        create(recommender, settings),
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=256,
        timeout_keep_alive=10,
        ws="none",
    )
    uvicorn.Server(config).run(sockets=[listener])


def theme() -> gr.themes.Base:
    """Return the one look, from system fonts; colours are in theme.css, for light and dark."""
    return gr.themes.Base(
        primary_hue=gr.themes.colors.teal,
        neutral_hue=gr.themes.colors.stone,
        radius_size=gr.themes.sizes.radius_md,
        font=list(_SANS),
        font_mono=list(_MONO),
    )


def _names(settings: Settings) -> frozenset[str]:
    return frozenset({"127.0.0.1", "localhost", "[::1]", settings.host.casefold()}) if settings.local else frozenset()


def _login(settings: Settings) -> Callable[[str, str], bool]:
    expected = settings.password.get_secret_value().encode() if settings.password else b""

    def check(user: str, password: str) -> bool:
        right_user = secrets.compare_digest(user.encode(), settings.user.encode())
        return secrets.compare_digest(password.encode(), expected) and right_user

    return check
