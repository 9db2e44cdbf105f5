"""Shared parts of the data readers: bounded line reading, strict parsing of ids and numbers, and the report."""

from __future__ import annotations

import ast
import gzip
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import numpy as np

from llmrec.data.catalog import ID_LIMIT, clean_text
from llmrec.data.ids import FIRST_INEXACT, id_text, is_rounded
from llmrec.errors import DataError

LINE_LIMIT = 1 << 20  # bytes; a longer line shows that this is another kind of file
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_NUMBER_LIMIT = 64
FLOAT32_MAX = 3.4e38
# Half of int64's range: differences of times fit, and so do row numbers that continue after the last time.
_TIME_LIMIT = 2**62
_COARSE = 10**6  # below this, times may be step counts that differ only in their fractions
NO_TIME = "no time column: the order of the rows stands in"  # a note that `data.validation` recognises


@dataclass(frozen=True)
class Report:
    """What a reader found: counts by name, what it left out by reason, and remarks for people."""

    counts: Mapping[str, int]
    dropped: Mapping[str, int]
    notes: tuple[str, ...]


def carry_notes(before: Sequence[str], notes: Sequence[str]) -> tuple[str, ...]:
    """Return the notes on changed data: the earlier notes that remain true, followed by the new ones."""
    return (*(one for one in before if one == NO_TIME and one not in notes), *notes)


class Event(NamedTuple):
    """One interaction as read."""

    user: str
    item: str
    time: int
    value: float


def has_ending(path: Path, ends: tuple[str, ...]) -> bool:
    """Return whether `path` is a file whose name ends in one of `ends`."""
    return path.name.endswith(ends) and path.is_file()


def read_lines(path: Path, fallback: str | None = None) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, text without line end) for every line of a UTF-8 file.

    Files that end in `.gz` are unpacked. Memory is bounded by the length of one line.

    Args:
        path: the file.
        fallback: encoding of lines that are not UTF-8, such as "latin-1"; None refuses such lines.

    Raises:
        DataError: no such file, a damaged gzip file, a line over 1 MiB, a NUL byte, or bytes that are not UTF-8; the
            message names file and line.
    """
    number = 0
    try:
        with _opened(path) as handle:
            while raw := handle.readline(LINE_LIMIT + 1):
                number += 1
                yield number, _decoded(raw, path, number, fallback)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}, after line {number}: damaged gzip file: {error}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None


def _opened(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path, "rb")) if path.suffix.lower() == ".gz" else path.open("rb")


def _decoded(raw: bytes, path: Path, number: int, fallback: str | None) -> str:
    where = f"{path}, line {number}"
    if len(raw) > LINE_LIMIT:
        raise DataError(f"{where}: longer than {LINE_LIMIT} bytes; {_why_long(raw)}")
    if b"\0" in raw:
        raise DataError(f"{where}: holds a NUL byte; is this a text file in UTF-8?")
    try:
        text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        if fallback is not None:
            return raw.decode(fallback).rstrip("\r\n")
        bad = f"byte 0x{raw[error.start]:02x} at position {error.start + 1}"
        raise DataError(f"{where}: not UTF-8 ({bad}); convert the file first, e.g. iconv -f latin1 -t utf8") from None
    return text.rstrip("\r\n")


def _why_long(raw: bytes) -> str:
    if raw.lstrip()[:1] == b"[":
        return "is this one JSON array? write one object a line"
    return "are its line ends CR alone? convert them, e.g. tr '\\r' '\\n'" if b"\r" in raw else "is this a text file?"


def read_json_lines(path: Path, literals: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (place for messages, object) for every line of a file with one JSON object per line.

    Blank lines are skipped.

    Args:
        path: the file.
        literals: also accept lines that are Python dictionaries, the format in which the Amazon metadata of 2014 was
            published. They are parsed as literals; nothing is executed.

    Raises:
        DataError: a line that is neither; the message names file and line.
    """
    for number, text in read_lines(path):
        if not text.strip():
            continue
        where = f"{path}, line {number}"
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = _literal(text) if literals else None
        if not isinstance(value, dict):
            array = " but a JSON array" if text.lstrip().startswith("[") else ""
            raise DataError(f"{where}: {text[:40]!r} is not a JSON object{array}; write one object a line")
        yield where, value


def _literal(text: str) -> object:
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None


def parse_id(value: object, what: str) -> str:
    """Return an id as text: stripped text, or the digits of a whole number.

    Raises:
        DataError: the id is empty, longer than `ID_LIMIT`, has unprintable characters, or is a number that a float may
            have rounded. The message begins with `what`.
    """
    if is_rounded(value):
        why = f"was stored as a float, which rounds whole numbers from 2**53 = {FIRST_INEXACT} on: it may be another id"
        raise DataError(f"{what} {value!r:.60} {why}; store ids as text or as whole numbers")
    text = id_text(value)
    if not text or clean_text(text, ID_LIMIT) != text:
        raise DataError(f"{what} {value!r:.60} is empty, too long or does not print")
    return text


def parse_float(text: str, where: str) -> float:
    """Parse a finite decimal number that fits into float32.

    Raises:
        DataError: anything else, including `nan`, `inf` and `1_000`; the message names `where`.
    """
    text = text.strip()
    value = float(text) if len(text) <= _NUMBER_LIMIT and _NUMBER.fullmatch(text) else float("nan")
    if not np.isfinite(value):
        raise DataError(f"{where}: {text[:40]!r} is not a number")
    if abs(value) > FLOAT32_MAX:
        raise DataError(f"{where}: {text[:40]} is out of range")
    return value


def parse_timestamp(text: str, where: str) -> int:
    """Parse a time as a whole number, written as `12` or `12.0`; fractions of numbers from 1,000,000 on are cut off.

    Raises:
        DataError: anything else, including a fraction of a number below 1,000,000; the message names `where`.
    """
    plain = text.strip()
    is_integer = len(plain) <= _NUMBER_LIMIT and re.fullmatch(r"[+-]?\d+", plain, re.ASCII)
    exact = int(plain) if is_integer else parse_float(text, where)
    value = int(exact)
    if value != exact and abs(exact) < _COARSE:
        loss = "without the fraction the order of the times would be lost: multiply them first"
        raise DataError(f"{where}: {plain[:40]} is not a whole number; {loss}")
    if abs(value) > _TIME_LIMIT:
        raise DataError(f"{where}: {plain[:40]} is out of range for a time; it lies between -2**62 and 2**62")
    return value
