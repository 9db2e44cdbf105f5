"""What readers of data files share: bounded lines, strict numbers, a report of what was dropped."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from llmrec.catalog import Catalog, Item
from llmrec.errors import DataError
from llmrec.interactions import Interactions

LINE_LIMIT = 1 << 20  # bytes; a longer line is not a record but another kind of file
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_NUMBER_LIMIT = 64
_FLOAT32_MAX = 3.4e38


@dataclass(frozen=True)
class Report:
    """What a reader found: rows by name, what it left out and why, and remarks for a person."""

    counts: Mapping[str, int]
    dropped: Mapping[str, int]
    notes: tuple[str, ...]


class Event(NamedTuple):
    """One interaction as read."""

    user: str
    item: str
    time: int
    value: float


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, text without line end) of a UTF-8 file; memory is bounded by one line.

    Raises:
        DataError: no such file, a line over 1 MiB, a NUL byte, or bytes that are not UTF-8; names file and
            line.
    """
    try:
        with path.open("rb") as handle:
            number = 0
            while raw := handle.readline(LINE_LIMIT + 1):
                number += 1
                yield number, _decoded(raw, path, number)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None


def _decoded(raw: bytes, path: Path, number: int) -> str:
    where = f"{path}, line {number}"
    if len(raw) > LINE_LIMIT:
        raise DataError(f"{where}: longer than {LINE_LIMIT} bytes; is this a text file?")
    if b"\0" in raw:
        raise DataError(f"{where}: holds a NUL byte; is this a text file in UTF-8?")
    try:
        text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        bad = f"byte 0x{raw[error.start]:02x} at position {error.start + 1}"
        raise DataError(f"{where}: not UTF-8 ({bad}); convert the file first, e.g. iconv -f latin1 -t utf8") from None
    return text.rstrip("\r\n")


def number(text: str, where: str) -> float:
    """Return a finite decimal number that float32 can hold.

    Raises:
        DataError: anything else, `nan`, `inf` and `1_000` included; names `where`.
    """
    text = text.strip()
    value = float(text) if len(text) <= _NUMBER_LIMIT and _NUMBER.fullmatch(text) else float("nan")
    if not np.isfinite(value):
        raise DataError(f"{where}: {text[:40]!r} is not a number")
    if abs(value) > _FLOAT32_MAX:
        raise DataError(f"{where}: {text[:40]} is out of range")
    return value


def whole(text: str, where: str) -> int:
    """Return a whole number that fits int64, written as `12` or `12.0`.

    Raises:
        DataError: anything else; names `where`.
    """
    plain = text.strip()
    is_integer = len(plain) <= _NUMBER_LIMIT and re.fullmatch(r"[+-]?\d+", plain, re.ASCII)
    value = int(plain) if is_integer else int(number(text, where))
    if not -(2**63) <= value < 2**63:
        raise DataError(f"{where}: {plain[:40]} is out of range for a time")
    return value


def assemble(
    items: list[Item], events: Iterable[Event], domain: str, notes: tuple[str, ...] = ()
) -> tuple[Catalog, Interactions, Report]:
    """Join items and events: unknown items and exact repeats are dropped and counted.

    The same (user, item) at another time is kept: people watch and buy things twice.

    Raises:
        DataError: no items, or no interaction with any of them.
    """
    catalog = Catalog(items, domain)
    rows = {item.id: row for row, item in enumerate(catalog.items)}
    seen: set[tuple[str, int, int]] = set()
    kept: list[tuple[str, int, int, float]] = []
    dropped = {"unknown item": 0, "repeated user, item and time": 0}
    for event in events:
        row = rows.get(event.item)
        if row is None:
            dropped["unknown item"] += 1
        elif (key := (event.user, row, event.time)) in seen:
            dropped["repeated user, item and time"] += 1
        else:
            seen.add(key)
            kept.append((event.user, row, event.time, event.value))
    if not kept:
        raise DataError(f"no usable interactions with the {len(catalog)} {catalog.domain}; dropped: {dropped}")
    users, indices, times, values = zip(*kept, strict=True)
    interactions = Interactions.build(users, indices, times, values)
    counts = {"items": len(catalog), "users": len(interactions.users), "interactions": len(interactions)}
    return catalog, interactions, Report(counts, {k: v for k, v in dropped.items() if v}, notes)
