"""What readers of data files share: bounded lines, strict numbers, a report of what was dropped."""

from __future__ import annotations

import ast
import gzip
import json
import re
import zlib
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import numpy as np

from llmrec.catalog import ID_LIMIT, Catalog, Item, clean_text
from llmrec.errors import DataError
from llmrec.interactions import Interactions

LINE_LIMIT = 1 << 20  # bytes; a longer line is not a record but another kind of file
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_NUMBER_LIMIT = 64
FLOAT32_MAX = 3.4e38
_TIME_LIMIT = 2**62  # the half of int64: differences of times fit, and so do orders that go on after the last time
_COARSE = 10**6  # below it a number that counts steps may tell two of them apart by its fraction alone
_KEPT_FOR_TRAINING = 3  # interactions; a user with fewer has no target, see `interactions.leave_one_out`


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


def is_file_of(path: Path, ends: tuple[str, ...]) -> bool:
    """Whether a file's name ends in one of these."""
    return path.name.endswith(ends) and path.is_file()


def lines(path: Path, fallback: str | None = None) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, text without line end) of a UTF-8 file, `.gz` unpacked; memory is bounded by one line.

    Args:
        path: the file.
        fallback: encoding of lines that are not UTF-8, such as "latin-1"; None refuses them.

    Raises:
        DataError: no such file, damaged packing, a line over 1 MiB, a NUL byte, or bytes that are not UTF-8; names
            file and line.
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


def objects(path: Path, literals: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (place for messages, object) of a file with one JSON object a line; blank lines are skipped.

    Args:
        path: the file.
        literals: also take lines that are Python dictionaries, as the Amazon metadata of 2014 was published. They are
            parsed as literals; nothing is run.

    Raises:
        DataError: a line that is neither; names file and line.
    """
    for number, text in lines(path):
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


def identifier(text: str, what: str) -> str:
    """Return an id as it stands.

    Raises:
        DataError: it is empty, longer than `ID_LIMIT`, or holds what does not print; begins with `what`.
    """
    if not text or clean_text(text, ID_LIMIT) != text:
        raise DataError(f"{what} {text[:60]!r} is empty, too long or does not print")
    return text


def number(text: str, where: str) -> float:
    """Return a finite decimal number that float32 can hold.

    Raises:
        DataError: anything else, `nan`, `inf` and `1_000` included; names `where`.
    """
    text = text.strip()
    value = float(text) if len(text) <= _NUMBER_LIMIT and _NUMBER.fullmatch(text) else float("nan")
    if not np.isfinite(value):
        raise DataError(f"{where}: {text[:40]!r} is not a number")
    if abs(value) > FLOAT32_MAX:
        raise DataError(f"{where}: {text[:40]} is out of range")
    return value


def whole(text: str, where: str) -> int:
    """Return a time as a whole number, written as `12` or `12.0`; of a large one, such as seconds, the fraction is cut.

    Raises:
        DataError: anything else, a fraction of a number below 1,000,000 included; names `where`.
    """
    plain = text.strip()
    is_integer = len(plain) <= _NUMBER_LIMIT and re.fullmatch(r"[+-]?\d+", plain, re.ASCII)
    exact = int(plain) if is_integer else number(text, where)
    value = int(exact)
    if value != exact and abs(exact) < _COARSE:
        loss = "without the fraction the order of the times would be lost: multiply them first"
        raise DataError(f"{where}: {plain[:40]} is not a whole number; {loss}")
    if abs(value) > _TIME_LIMIT:
        raise DataError(f"{where}: {plain[:40]} is out of range for a time; it lies between -2**62 and 2**62")
    return value


def assemble(
    items: list[Item],
    events: Iterable[Event],
    domain: str,
    notes: tuple[str, ...] = (),
    dropped: Mapping[str, int] | None = None,
    source: str = "",
    known: int = 0,
) -> tuple[Catalog, Interactions, Report]:
    """Join items and events by the rules that all readers share; what they did is counted in the report.

    Unknown items and exact repeats of user, item and time are dropped; the same user and item at another time is kept,
    since people watch and buy things twice. Interactions out of order are sorted by time, ties in the order of the
    file. A user with fewer than 3 interactions stays, is trained on, and has no target.

    Args:
        items: of the catalogue.
        events: streamed; about 32 bytes are kept of each.
        domain: a plural noun for the items.
        notes: remarks of the reader.
        dropped: what the reader itself left out; looked at when the events have been read.
        source: where the events come from, for messages.
        known: how many interactions were there before; there must be more.

    Raises:
        DataError: no items, or no interaction with any of them; names what was left out.
    """
    catalog = Catalog(items, domain)
    log = _logged(catalog, events)
    first = _first_of_each(log.columns)
    repeated = len(log.value) - len(first)
    lost = {"unknown item": log.unknown, "repeated user, item and time": repeated, **(dropped or {})}
    lost = {name: n for name, n in lost.items() if n}
    if len(first) <= known:
        raise DataError((f"{source}: " if source else "") + _unusable(catalog, known, lost, log.strange))
    who, what, when = (column[first] for column in log.columns)
    interactions = Interactions.build([log.users[one] for one in who], what, when, log.value[first])
    counts = {"items": len(catalog), "users": len(interactions.users), "interactions": len(interactions)}
    return catalog, interactions, Report(counts, lost, (*notes, *_remarks(interactions, who, when)))


class _Log(NamedTuple):
    """Events as arrays: (user, row, time) int64[m] each, values float32[m]; and what had no row."""

    users: list[str]
    columns: list[np.ndarray]
    value: np.ndarray
    unknown: int
    strange: str  # the first unknown item, "" for none


def _logged(catalog: Catalog, events: Iterable[Event]) -> _Log:
    rows = {item.id: row for row, item in enumerate(catalog.items)}
    numbers: dict[str, int] = {}
    user, row, time, value = array("q"), array("q"), array("q"), array("f")
    unknown, strange = 0, ""
    for event in events:
        known = rows.get(event.item)
        if known is None:
            unknown, strange = unknown + 1, strange or event.item
            continue
        user.append(numbers.setdefault(event.user, len(numbers)))
        row.append(known)
        time.append(event.time)
        value.append(event.value)
    return _Log(list(numbers), [np.array(one) for one in (user, row, time)], np.array(value), unknown, strange)


def _unusable(catalog: Catalog, known: int, lost: Mapping[str, int], strange: str) -> str:
    """Why nothing can be used; `strange` is the first unknown item."""
    what = f"no usable interactions with the {len(catalog)} {catalog.domain}"
    said = [f"adds nothing to {known} interactions" if known else what]
    said.append(f"left out: {counted(lost)}" if lost else "there are none in it")
    if strange and len(catalog):
        said.append(f"e.g. item {strange[:60]!r}; the items' ids look like {catalog[0].id[:60]!r}")
    return "; ".join(said)


def counted(lost: Mapping[str, int]) -> str:
    """Numbers by name as words: `2 of unknown item, 1 of event of weight 0`."""
    return ", ".join(f"{n} of {name}" for name, n in lost.items())


def _first_of_each(columns: list[np.ndarray]) -> np.ndarray:
    """Places, ascending, of the first of every distinct (user, row, time): int64[m]."""
    if not len(columns[0]):
        return np.zeros(0, np.int64)
    order = np.lexsort(columns)  # stable: equals keep the order of the file
    new = np.ones(len(order), bool)
    new[1:] = np.any([np.diff(column[order]) != 0 for column in columns], axis=0)
    return np.sort(order[new])


def _remarks(x: Interactions, user: np.ndarray, time: np.ndarray) -> list[str]:
    """What a person should know of the log, with numbers; `user` and `time` int64[m] in the order of the file."""
    order = np.argsort(user, kind="stable")
    backward = int(((np.diff(user[order]) == 0) & (np.diff(time[order]) < 0)).sum())
    few = int((np.diff(x.offsets) < _KEPT_FOR_TRAINING).sum())
    found = []
    if backward:
        found.append(f"{backward} interactions stood before an earlier one of the same user: sorted by time")
    if few:
        found.append(f"{few} users with fewer than {_KEPT_FOR_TRAINING} interactions: trained on, without a target")
    return found
