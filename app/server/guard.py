"""Protects the server: visitor sessions, request size limits, allowed paths and security headers."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llmrec.app.server.site import RequestRefused, Site
from llmrec.errors import RequestError
from llmrec.nlu.state import Session

if TYPE_CHECKING:
    from llmrec.dialogue.chat import Chat
    from llmrec.recommender import Request

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
BODY_SECONDS = 30.0  # time limit for a request body; 64 kB take less on any connection

# The Gradio routes that the page and the two endpoints need. Upload, files, proxy, recordings, run history, direct
# calls that bypass the queue and the monitoring pages answer 404.
_PATHS = re.compile(
    r"/(?:|page\.js|openapi\.json|config/?|login/?|logout|theme\.css|robots\.txt|favicon\.ico|manifest\.json"
    r"|assets/[\w./-]+|static/[\w./-]+"
    r"|gradio_api/(?:info/?|user/?|token/?|login_check/?|app_id/?|startup-events|theme\.css|queue/join|queue/data|cancel|reset/?"
    r"|heartbeat/[\w-]+|call/(?:recommend|chat)(?:/[\w-]+)?))"
)
_MCP = re.compile(r"/gradio_api/mcp/?")  # only the streamable HTTP transport; the older ones stay closed
_POLICY = (
    "default-src 'none'; script-src 'self' 'nonce-{nonce}'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self'; connect-src 'self'; manifest-src 'self'; "
    "base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=(), payment=(), usb=()"),
)


@dataclass
class Visit(Session):
    """A visitor's session, with the state of the page in addition to the conversation.

    Attributes:
        keep: whether the visitor's browser stores the conversation.
        words: whether the visitor's messages may be recorded with reactions.
        asked: the request that the displayed list answers.
        tried: rows that earlier answers to the last message recommended, before it was retried.
        seconds: (name, seconds) that the last reply took until its first item, its first word and its end.
    """

    keep: bool = False
    words: bool = False
    asked: Request | None = None
    tried: tuple[int, ...] = ()
    seconds: tuple[tuple[str, float], ...] = ()


def checked_message(chat: Chat, session: Session, message: object) -> str:
    """Return the message if it is text within bounds; otherwise raise RequestError, which says what is wrong."""
    if not isinstance(message, str):
        raise RequestError(f"the message is of type {type(message).__name__}; send text")
    refusal = chat.refusal(session, message)
    if refusal:
        raise RequestError(refusal)
    return message


class Sessions:
    """Visitor sessions by opaque id; if there are too many, those idle the longest are dropped first.

    Args:
        capacity: largest number of sessions kept.
        idle_seconds: time after which an idle session is dropped.
    """

    def __init__(self, capacity: int, idle_seconds: float) -> None:
        self._capacity, self._idle = capacity, idle_seconds
        self._kept: OrderedDict[tuple[str, str], Visit] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, id: str | None, user: str | None = None) -> Visit:
        """Return the session of a visitor; an unknown visitor gets a new one.

        With log-ins, different users never share a session, even with the same id.

        Raises:
            RequestError: the id does not have the form of Gradio's ids.
        """
        if not isinstance(id, str) or not _ID.fullmatch(id):
            raise RequestError("the request carries no usable session id; reload the page")
        key = (user or "", id)
        with self._lock:
            session = self._kept.pop(key, None) or Visit(id)
            session.touched = time.monotonic()
            self._kept[key] = session
            self._forget()
            return session

    def _forget(self) -> None:
        now = time.monotonic()
        for key, session in list(self._kept.items()):
            idle = now - session.touched > self._idle
            if not idle and len(self._kept) <= self._capacity:
                break
            if not session.busy:
                del self._kept[key]


class Guard:
    """ASGI middleware around the whole application: known paths, small bodies, known names and origins, strict headers.

    Args:
        app: the application to protect.
        body_bytes: largest request body; a larger one gets 413.
        site: the names that this server answers to, and its path prefix.
        mcp: whether the endpoints are also offered as MCP tools.
    """

    def __init__(self, app: ASGIApp, body_bytes: int, site: Site, mcp: bool = False) -> None:
        self._app, self._body_bytes, self._site, self._mcp = app, body_bytes, site, mcp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on to the application, or refuse or redirect it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # web sockets are not served
        nonce = secrets.token_urlsafe(16)
        root = self._site.root
        if root and scope["path"] == root:  # relative addresses of the page need a final slash
            await _Response(send, nonce).redirect(f"{root}/", scope["query_string"])
            return
        received = self._site.received(scope)
        if isinstance(received, RequestRefused):
            await _Response(send, nonce).refuse(received.status, received.detail)
            return
        scope, path = received, received["path"].removeprefix(root)
        answer = _Response(send, nonce, page=path in {"/", "/login", "/login/"}, secure=scope["scheme"] == "https")
        refused = self._refused(scope, path)
        body = b""
        if not refused and scope["method"] not in {"GET", "HEAD"}:
            try:
                read = await asyncio.wait_for(_body(receive, self._body_bytes), BODY_SECONDS)
            except TimeoutError:
                refused = (408, f"The request did not come within {BODY_SECONDS:g} seconds.")
            else:
                if read is None:
                    refused = (413, f"The request is larger than {self._body_bytes:,} bytes.")
                else:
                    body = read
        if refused:
            await answer.refuse(*refused)
            return
        await self._app(answer.plain(scope), _replay(body, receive), answer.send)

    def _refused(self, scope: Scope, path: str) -> tuple[int, str] | None:
        known = _PATHS.fullmatch(path) or (self._mcp and _MCP.fullmatch(path))
        if not known or ".." in path:
            return 404, "Not found."
        length = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"content-length"), "0")
        if not (length.isascii() and length.isdigit()) or int(length) > self._body_bytes:
            return 413, f"The request is larger than {self._body_bytes:,} bytes."
        return None


class _Response:
    """Sends a response with security headers; on the page, only the server's own inline scripts may run.

    Over https, cookies are marked as secure, so that browsers do not send them over plain http.
    """

    def __init__(self, send: Send, nonce: str, page: bool = False, secure: bool = False) -> None:
        self._send, self._nonce, self._page, self._secure = send, nonce, page, secure
        self._start: Message | None = None
        self._html = b""

    def plain(self, scope: Scope) -> Scope:
        """Request the page uncompressed, so that its scripts can be marked before it is sent."""
        if not self._page:
            return scope
        return {**scope, "headers": [pair for pair in scope["headers"] if pair[0] != b"accept-encoding"]}

    async def send(self, message: Message) -> None:
        """Forward one ASGI message."""
        if message["type"] == "http.response.start":
            theirs = [self._sealed(pair) for pair in _without_ours(message.get("headers", ()))]
            message = {**message, "headers": [*theirs, *self._ours()]}
            self._page = self._page and _is_html(message)
            if self._page:
                self._start = message
                return
        elif self._page and message["type"] == "http.response.body":
            self._html += message.get("body", b"")
            if not message.get("more_body"):
                await self._send_page()
            return
        await self._send(message)

    async def refuse(self, status: int, detail: str) -> None:
        """Answer with an error."""
        body = json.dumps({"detail": detail}).encode()
        kind = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await self._send({"type": "http.response.start", "status": status, "headers": [*kind, *self._ours()]})
        await self._send({"type": "http.response.body", "body": body})

    async def redirect(self, path: str, query: bytes) -> None:
        """Redirect the client to another path of this server."""
        location = path.encode() + (b"?" + query if query else b"")
        head = [(b"location", location), (b"content-length", b"0"), *self._ours()]
        await self._send({"type": "http.response.start", "status": 308, "headers": head})
        await self._send({"type": "http.response.body", "body": b""})

    def _sealed(self, pair: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
        open_cookie = pair[0].lower() == b"set-cookie" and not re.search(rb";\s*secure\b", pair[1], re.IGNORECASE)
        return (pair[0], pair[1] + b"; Secure") if self._secure and open_cookie else pair

    async def _send_page(self) -> None:
        # Gradio escapes "<" inside its inline JSON, so every "<script" here comes from its template
        html = self._html.replace(b"<script", b'<script nonce="' + self._nonce.encode() + b'"')
        html = html.replace(
            b'href="/manifest.json"', b'href="manifest.json"'
        )  # relative, so that it works below a path prefix
        start: Message = self._start or {"type": "http.response.start", "status": 200, "headers": []}
        headers = [pair for pair in start["headers"] if pair[0].lower() != b"content-length"]
        await self._send({**start, "headers": [*headers, (b"content-length", str(len(html)).encode())]})
        await self._send({"type": "http.response.body", "body": html})

    def _ours(self) -> list[tuple[bytes, bytes]]:
        return [(b"content-security-policy", _POLICY.format(nonce=self._nonce).encode()), *_HEADERS]


def _without_ours(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    ours = {b"content-security-policy", *(name for name, _ in _HEADERS)}
    return [pair for pair in headers if pair[0].lower() not in ours]


def _is_html(start: Message) -> bool:
    return any(name.lower() == b"content-type" and b"text/html" in value for name, value in start["headers"])


async def _body(receive: Receive, limit: int) -> bytes | None:
    """Read a request body of at most `limit` bytes; return None if it is larger."""
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return body
        body += bytes(message.get("body", b""))
        if len(body) > limit:
            return None
        if not message.get("more_body"):
            return body


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a receive function that gives the body once, then the connection's messages (such as a disconnect)."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
