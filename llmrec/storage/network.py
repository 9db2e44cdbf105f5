"""HTTP requests with short timeouts, one-line failure reasons, and detection of login pages."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from llmrec.errors import UserError, WeightsError

PATIENCE = 3.0  # seconds to wait for a first answer of the Hub or a site, and for each further piece of a site's answer
_LONGEST = 300.0  # seconds for a whole file of a site; enough for the largest one at 20 kB per second
_HEAD = 1024  # first bytes of a file, by which its type is recognised
_PAGE = "the answer is a web page, not the file: a login page of the network?"
_STARTS = (b"<!doctype html", b"<html", b"<head")


class SourceError(WeightsError):
    """A source did not deliver the requested file: there was no answer, an incomplete one, or a different one."""


@contextmanager
def wrap_network_errors() -> Iterator[None]:
    """Convert all exceptions of a client library to a SourceError; a UserError passes unchanged.

    All exceptions are caught, because client libraries do not document which ones they raise. The Hub's client raises
    its own errors, those of its transport, and those of a parser that gets a login page instead of JSON.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise SourceError(failure_reason(error)) from error


def check_reachable(address: str) -> None:
    """Check once, with a short timeout, that an address answers; the Hub's own client tries six times in 30 seconds.

    Raises:
        SourceError: there is no answer, the answer is an error, or it is a web page.
    """
    with wrap_network_errors():
        answer = httpx.head(address, timeout=PATIENCE, follow_redirects=True, headers={"User-Agent": "llmrec"})
        answer.raise_for_status()
        _refuse_page(answer.headers.get("content-type", ""), b"")


def download_bytes(address: str, most: int) -> bytes:
    """Download a file from a site.

    Args:
        address: http or https; redirects are followed.
        most: largest number of bytes that is accepted.

    Raises:
        SourceError: there is no answer; the answer is an error, breaks off or stalls; it is a web page; or it has more
            than `most` bytes.
    """
    data, deadline = bytearray(), time.monotonic() + _LONGEST
    with (
        wrap_network_errors(),
        httpx.stream(
            "GET", address, timeout=PATIENCE, follow_redirects=True, headers={"User-Agent": "llmrec"}
        ) as answer,
    ):
        answer.raise_for_status()
        _refuse_page(answer.headers.get("content-type", ""), b"")
        for piece in answer.iter_bytes():  # in small pieces, so that a slow download does not exceed the deadline
            data += piece
            if len(data) > most:
                raise SourceError(f"{address} is longer than {most} bytes")
            if time.monotonic() > deadline:
                raise SourceError(f"only {len(data)} bytes came within {_LONGEST:.0f} seconds")
    _refuse_page("", bytes(data[:_HEAD]))
    return bytes(data)


def refuse_web_pages(*files: Path) -> None:
    """Delete downloaded files that are web pages, also in the cache they link to, so that they are downloaded again.

    Raises:
        SourceError: at least one file was a web page.
    """
    pages = [file for file in files if _is_page(_start(file))]
    for file in pages:
        for one in (file.resolve(), file):
            one.unlink(missing_ok=True)
    if pages:
        raise SourceError(_PAGE)


def failure_reason(error: BaseException) -> str:
    """Return why a download failed, in one line of at most 200 characters."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, json.JSONDecodeError) and _is_page(cause.doc.encode("utf-8", "replace")):
            return _PAGE
        if isinstance(cause, TimeoutError) or "Timeout" in type(cause).__name__:
            return f"no answer within the time that is waited ({type(cause).__name__})"
        cause = cause.__cause__
    return " ".join(str(error).split())[:200] or type(error).__name__


def _refuse_page(kind: str, start: bytes) -> None:
    if kind.partition(";")[0].strip().lower() in {"text/html", "application/xhtml+xml"} or _is_page(start):
        raise SourceError(_PAGE)


def _start(file: Path) -> bytes:
    with file.open("rb") as source:
        return source.read(_HEAD)


def _is_page(start: bytes) -> bool:
    return start.lstrip(b"\xef\xbb\xbf \t\r\n")[:20].lower().startswith(_STARTS)
