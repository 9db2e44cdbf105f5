"""The real application on loopback, and calls to it as a hostile page would make them."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from toy_recommender import free_port, serving

from llmrec.app.server.serve import create_app
from llmrec.app.server.settings import load_settings


@contextmanager
def running(recommender: Any, **settings: Any) -> Iterator[str]:
    """The address of a server that ends with the block."""
    port = free_port()
    yield from serving(create_app(recommender, load_settings(port=port, **settings)), port)


def events(
    url: str, session: str, dependency: dict[str, Any], data: list[Any], seconds: float = 20.0, **more: Any
) -> list[Any]:
    """Post to the queue as the page does and read what comes of it, up to the end of the event.

    Raises:
        httpx.HTTPStatusError: the queue did not take it.
    """
    body = {"data": data, "fn_index": dependency["id"], "session_hash": session, **more}
    # as the json module writes it: in ASCII, so that half a character may be sent, too
    head = {"content-type": "application/json"}
    joined = httpx.post(f"{url}/gradio_api/queue/join", content=json.dumps(body), headers=head, timeout=seconds)
    joined.raise_for_status()
    out = []
    door = f"{url}/gradio_api/queue/data"
    with httpx.stream("GET", door, params={"session_hash": session}, timeout=seconds) as stream:
        for line in stream.iter_lines():
            if line.startswith("data:"):
                out.append(json.loads(line[5:]))
                if out[-1]["msg"] in {"process_completed", "close_stream"}:
                    return out
    return out


def raw(url: str, request: bytes, seconds: float = 5.0, most: int = 1_000_000) -> bytes:
    """Send bytes as they stand, for what an HTTP library would put right; what came back until the server closed."""
    host, port = url.removeprefix("http://").split(":")
    answer = b""
    with socket.create_connection((host, int(port)), timeout=seconds) as connection:
        connection.sendall(request)
        try:
            while len(answer) < most and (piece := connection.recv(65_536)):
                answer += piece
        except TimeoutError:
            pass
    return answer
