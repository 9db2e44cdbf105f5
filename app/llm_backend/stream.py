"""Streams an answer of an OpenAI-compatible server, with limits on its size, time and format."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import httpx

_POLL = 0.05  # most seconds until a stop is noticed, even while the server is silent


class BackendUnavailable(Exception):
    """The server cannot be reached, is too slow, or does not answer in the agreed format; the message is a clause."""


@dataclass(frozen=True)
class Endpoint:
    """Address of a server, and limits of its answers.

    Attributes:
        url: address with the version, e.g. http://127.0.0.1:8000/v1.
        model: the name under which the server knows the model.
        key: bearer token, or "".
        seconds: wall-clock limit of an answer, including the connection.
        most_bytes: largest size of an answer on the wire.
    """

    url: str
    model: str
    key: str = field(default="", repr=False)
    seconds: float = 10.0
    most_bytes: int = 65_536


def stream_completion(
    endpoint: Endpoint,
    messages: Sequence[Mapping[str, str]],
    max_tokens: int,
    stop: threading.Event,
    schema: Mapping[str, object] | None = None,
) -> Iterator[str]:
    """Yield pieces of text as they arrive; ends with the answer, or within a twentieth of a second of `stop`.

    With a JSON `schema`, the server is asked to follow it; the caller must check that it does.

    Raises:
        BackendUnavailable: there is no connection, the status is not 200, the answer is too large, too slow or not in
            the agreed format.
    """
    deadline = time.monotonic() + endpoint.seconds
    came: queue.SimpleQueue[str | BackendUnavailable | None] = queue.SimpleQueue()
    gone = threading.Event()
    body: dict[str, object] = {
        "model": endpoint.model,
        "messages": list(messages),
        "max_tokens": max_tokens,
        "temperature": 0,
        "stream": True,
    }
    if schema is not None:
        form = {"name": "answer", "strict": True, "schema": dict(schema)}
        body["response_format"] = {"type": "json_schema", "json_schema": form}
    # in a separate thread, because a stop and the time limit must not wait for a read that hangs
    threading.Thread(target=_read, args=(endpoint, body, came, gone, deadline), daemon=True).start()
    try:
        while not stop.is_set():
            left = deadline - time.monotonic()
            if left <= 0:
                raise BackendUnavailable(f"the other model took longer than {endpoint.seconds:g} seconds")
            try:
                piece = came.get(timeout=min(left, _POLL))
            except queue.Empty:
                continue
            if piece is None:
                return
            if isinstance(piece, BackendUnavailable):
                raise piece
            yield piece
    finally:
        gone.set()


def _read(
    endpoint: Endpoint,
    body: dict[str, object],
    came: queue.SimpleQueue[str | BackendUnavailable | None],
    gone: threading.Event,
    deadline: float,
) -> None:
    try:
        for piece in _pieces(endpoint, body, gone, deadline):
            came.put(piece)
        came.put(None)
    except BackendUnavailable as error:
        came.put(error)
    except httpx.TimeoutException:
        came.put(BackendUnavailable(f"the other model took longer than {endpoint.seconds:g} seconds"))
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        came.put(BackendUnavailable(f"the other model cannot be reached ({type(error).__name__})"))
    except Exception as error:  # any other error that a hostile answer causes must also end the wait
        came.put(BackendUnavailable(f"the other model's answer cannot be read ({type(error).__name__})"))


def _pieces(endpoint: Endpoint, body: dict[str, object], gone: threading.Event, deadline: float) -> Iterator[str]:
    # no compression, so that a few bytes on the wire cannot expand beyond the size limit
    headers = {"accept": "text/event-stream", "accept-encoding": "identity"}
    if endpoint.key:
        headers["authorization"] = f"Bearer {endpoint.key}"
    url = f"{endpoint.url.rstrip('/')}/chat/completions"
    with (
        httpx.Client(timeout=endpoint.seconds, trust_env=False, follow_redirects=False) as client,
        client.stream("POST", url, json=body, headers=headers) as response,
    ):
        if response.status_code != httpx.codes.OK:
            raise BackendUnavailable(f"the other model answered with status {response.status_code}")
        read, line, heard = 0, b"", False
        for chunk in response.iter_raw():
            if gone.is_set() or time.monotonic() > deadline:
                return
            read += len(chunk)
            if read > endpoint.most_bytes:
                raise BackendUnavailable(f"the other model sent more than {endpoint.most_bytes:,} bytes")
            *lines, line = (line + chunk).split(b"\n")
            for one in lines:
                piece = _content(one.strip())
                if piece is None:
                    return
                heard = heard or one.startswith(b"data:")
                if piece:
                    yield piece
        if not heard:
            raise BackendUnavailable("the other model did not answer in the agreed form")


def _content(line: bytes) -> str | None:
    """Return the text in a line of the stream, "" if it has none, or None at the end of the stream.

    Raises:
        BackendUnavailable: the line is not in the agreed format.
    """
    if not line.startswith(b"data:"):
        if not line or line.startswith((b":", b"event:", b"id:", b"retry:")):
            return ""
        raise BackendUnavailable("the other model did not answer in the agreed form")
    data = line.removeprefix(b"data:").strip()
    if data == b"[DONE]":
        return None
    try:
        choices = json.loads(data)["choices"]
        content = choices[0].get("delta", {}).get("content") if choices else ""
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise BackendUnavailable("the other model did not answer in the agreed form") from None
    if not isinstance(content, str | None):
        raise BackendUnavailable("the other model did not answer in the agreed form")
    return content or ""
