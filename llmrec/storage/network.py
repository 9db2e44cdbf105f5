"""HTTP requests with short timeouts, failure reasons in one line, and detection of login pages."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from llmrec.errors import UserError, WeightsError

PATIENCE = 3.0  # seconds for a first answer of the Hub or a site, and between two pieces of a site's answer
_LONGEST = 300.0  # seconds for a whole file of a site: at 20 kB a second the largest one has come by then
_HEAD = 1024  # bytes that show what a file is
_PAGE = "the answer is a web page, not the file: a login page of the network?"
_STARTS = (b"<!doctype html", b"<html", b"<head")


class SourceError(WeightsError):
    """One source did not give what was asked for: no answer, one that broke off, or something else instead."""


@contextmanager
def wrap_network_errors() -> Iterator[None]:
    """Convert all errors of a client library into a SourceError; a UserError passes unchanged.

    Everything is caught, since nothing else is promised: the Hub's client raises its own errors, those of its transport
    and those of a parser that is given a login page instead of JSON.
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
        SourceError: no answer, one that says no, or a web page.
    """
    with wrap_network_errors():
        answer = httpx.head(address, timeout=PATIENCE, follow_redirects=True, headers={"User-Agent": "llmrec"})
        answer.raise_for_status()
        _refuse_page(answer.headers.get("content-type", ""), b"")


def download_bytes(address: str, most: int) -> bytes:
    """Return what a site answers.

    Args:
        address: http or https; redirects are followed.
        most: bytes that are accepted.

    Raises:
        SourceError: no answer, one that says no, breaks off or stalls, a web page, or more than `most` bytes.
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
        for piece in answer.iter_bytes():  # as it comes: one that trickles must not pass the deadline unseen
            data += piece
            if len(data) > most:
                raise SourceError(f"{address} is longer than {most} bytes")
            if time.monotonic() > deadline:
                raise SourceError(f"only {len(data)} bytes came within {_LONGEST:.0f} seconds")
    _refuse_page("", bytes(data[:_HEAD]))
    return bytes(data)


def refuse_web_pages(*files: Path) -> None:
    """Throw away downloaded files that are web pages, also where a cache keeps them, so that they are asked for again.

    Raises:
        SourceError: one was.
    """
    pages = [file for file in files if _is_page(_start(file))]
    for file in pages:
        for one in (file.resolve(), file):
            one.unlink(missing_ok=True)
    if pages:
        raise SourceError(_PAGE)


def failure_reason(error: BaseException) -> str:
    """Why a download failed, in at most 200 characters of one line."""
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
