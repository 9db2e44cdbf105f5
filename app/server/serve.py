"""Builds the web application from a recommender and settings, and serves it."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import gradio as gr
from fastapi import FastAPI
from fastapi.responses import FileResponse, Response

from llmrec.app.api.openapi import openapi_document
from llmrec.app.llm_backend.backend import text_generator
from llmrec.app.server.feedback import open_feedback
from llmrec.app.server.guard import Guard, Sessions
from llmrec.app.server.malloc import limit_arenas
from llmrec.app.server.services import Services
from llmrec.app.server.settings import Settings, conversation_limits
from llmrec.app.server.site import Site
from llmrec.app.web.wiring import build
from llmrec.dialogue.chat import Chat

if TYPE_CHECKING:
    import uvicorn

    from llmrec.recommender import Recommender

_WEB = Path(__file__).resolve().parents[1] / "web"  # style sheets and script
_SANS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif")
_MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")


def create_app(recommender: Recommender, settings: Settings) -> FastAPI:
    """Return the application: the page mounted behind the guard."""
    sessions = Sessions(settings.sessions, settings.session_minutes * 60)
    chat = Chat(recommender, conversation_limits(settings), text_generator(recommender, settings))
    blocks = build(Services(chat, sessions, settings, open_feedback(settings)))
    blocks.state_session_capacity = settings.sessions
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Guard, body_bytes=settings.body_bytes, site=Site.of(settings), mcp=settings.mcp)
    app.add_api_route("/page.js", _script, include_in_schema=False)
    described = None if settings.password is not None else openapi_document(blocks.get_api_info())
    if described is not None and settings.root_path:
        described["servers"] = [{"url": settings.root_path}]
    app.add_api_route("/openapi.json", lambda: described or Response(status_code=404), include_in_schema=False)
    gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        root_path=settings.root_path or None,
        server_name=settings.host,
        server_port=settings.port,
        footer_links=[],
        run_history=False,
        show_error=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=settings.mcp,
        enable_monitoring=False,
        max_file_size=1,
        theme=theme(),
        head='<script src="page.js"></script>',
        css="".join((_WEB / f"{name}.css").read_text(encoding="utf-8") for name in ("theme", "tabs")),
        auth=_login(settings) if settings.password is not None else None,
    )
    return app


def serve_app(app: FastAPI, listener: socket.socket) -> None:
    """Serve an application of `create_app` on a bound socket until interrupted."""
    import uvicorn

    limit_arenas()
    uvicorn.Server(uvicorn_config(app)).run(sockets=[listener])


def uvicorn_config(app: FastAPI) -> uvicorn.Config:
    """Return the configuration with which uvicorn serves the application."""
    import uvicorn

    return uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,  # only the guard evaluates proxy headers
        limit_concurrency=256,
        timeout_keep_alive=10,
        ws="none",
    )


def theme() -> gr.themes.Base:
    """Return the theme of the page, with system fonts; light and dark colours are in theme.css."""
    return gr.themes.Base(
        primary_hue=gr.themes.colors.teal,
        neutral_hue=gr.themes.colors.stone,
        radius_size=gr.themes.sizes.radius_md,
        font=list(_SANS),
        font_mono=list(_MONO),
    )


def _script() -> FileResponse:
    return FileResponse(_WEB / "page.js", media_type="text/javascript")


def _login(settings: Settings) -> Callable[[str, str], bool]:
    expected = settings.password.get_secret_value().encode() if settings.password else b""

    def check(user: str, password: str) -> bool:
        right_user = secrets.compare_digest(user.encode(), settings.user.encode())
        return secrets.compare_digest(password.encode(), expected) and right_user

    return check
