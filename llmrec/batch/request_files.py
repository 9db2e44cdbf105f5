r"""Reads batch requests from Parquet, CSV or JSON lines: streamed, and checked row by row.

A row has a `request_id` and at least one input: `user_id` (a user of the model's data), `items` (ids of the items of a
history, oldest first; an empty list is a new user), `message` (a text) or `similar_to` (an item id, to find similar
items). Optional fields are `candidates` (item ids: only these are ranked, whether seen or not), `k`, and `target` (the
id of the next item, for evaluation; ranking ignores it). Ids may be strings or whole numbers. A whole number may be
stored as a float, as data frames do for columns with empty cells, if the float represents it exactly.

In CSV every cell is text, including ids (`007` stays `007`), and an empty cell is a missing value. A list is one cell
with `|` between its ids; `|` alone is an empty list. Within a list, `\|` is a bar and `\\` a backslash that belong to
an id. The separator is the one that is most frequent in the header: comma, semicolon or tab.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from pathlib import Path
from typing import IO, Any, TypeGuard

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from llmrec.data.ids import id_text, is_rounded
from llmrec.data.readers.parquet import check_ids, check_values
from llmrec.errors import DataError
from llmrec.recommender import MAX_K, MAX_MESSAGE

ID_FIELDS, ID_LIST_FIELDS = ("user_id", "similar_to"), ("items", "candidates")
ID_COLUMNS = (*ID_FIELDS, *ID_LIST_FIELDS, "target")
COLUMNS = ("request_id", *ID_FIELDS, *ID_LIST_FIELDS, "message", "k", "target")
TEXT_COLUMNS = [
    "request_id",
    *ID_FIELDS,
    "message",
    "target",
]  # read with dictionary encoding: a long text that occurs often is held once
INPUT_COLUMNS = ("user_id", "items", "message", "similar_to")
FORMATS = {
    ".parquet": "parquet", ".pq": "parquet", ".csv": "csv", ".tsv": "csv",
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl",
}  # fmt: skip
LINE_LIMIT = 4 * 2**20  # most bytes of a JSON line or a CSV row
MAX_IDS, MAX_ID_LENGTH = 10_000, 1_000  # most ids of a list; most characters of an id
_SEPARATORS = ",;\t"
_LISTED = re.compile(r"((?:[^|\\]|\\[|\\]?)*)(?:\||$)")  # one id in a cell with a list
_ROWS, _PIECE = 1024, 64  # rows decoded at a time; rows converted to Python objects at a time


@dataclass(frozen=True)
class BatchRequest:
    """One request as in the file; None for fields that are not given."""

    number: int
    request_id: str | int
    user_id: str | None
    similar_to: str | None
    items: tuple[str, ...] | None
    candidates: tuple[str, ...] | None
    message: str
    k: int | None
    target: str | None = None


@dataclass(frozen=True)
class FileSummary:
    """Summary of a request file: rows, content hash, and whether its request ids are numbers."""

    rows: int
    sha256: str
    numbers: bool


def read_requests(path: Path, start: int = 0, stop: int | None = None) -> Iterator[BatchRequest]:
    """Yield the validated rows `start` to `stop` (exclusive) of a file, in order.

    Raises:
        DataError: not a readable file of its format, a missing or unknown column, a wrong type or a value out of
            bounds; one line that names the file, the place and the value.
    """
    read = {"parquet": _parquet, "csv": _csv, "jsonl": _lines}[_kind(path)]
    for number, (where, values) in enumerate(read(path, start, stop), start):
        yield _parse_row(number, values, f"{path}: {where}")


def scan_requests(path: Path) -> FileSummary:
    """Read and validate a whole file.

    Raises:
        DataError: see `read_requests`; also for a file without rows, or with request ids of two types.
    """
    count, kinds = 0, set[bool]()
    for row in read_requests(path):
        count += 1
        kinds.add(isinstance(row.request_id, int))
        if len(kinds) > 1:
            raise DataError(
                f"{path}: row {row.number + 1}: request_id is {row.request_id!r}, of another type than before"
            )
    if not count:
        raise DataError(f"{path} has no rows; a file of requests has at least one")
    with path.open("rb") as handle:
        return FileSummary(count, hashlib.file_digest(handle, "sha256").hexdigest(), True in kinds)


def _kind(path: Path) -> str:
    if not path.is_file():
        raise DataError(f"no file {str(path)!r}; --input is a Parquet, CSV or JSON lines file of requests")
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty; a file of requests has at least one row")
    with path.open("rb") as handle:
        magic = handle.read(4) == b"PAR1"
    kind = "parquet" if magic else FORMATS.get(path.suffix.lower())
    if kind is None:
        raise DataError(f"{path}: the name ends in {path.suffix!r}; requests are read from .parquet, .csv or .jsonl")
    return kind


def _parquet(path: Path, start: int, stop: int | None) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        schema = pq.read_schema(path)
        _check_schema(path, schema)
        with pq.ParquetFile(path, read_dictionary=[name for name in TEXT_COLUMNS if name in schema.names]) as file:
            sizes = [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]
            ends = list(accumulate(sizes))
            groups = [g for g, end in enumerate(ends) if end > start and (stop is None or end - sizes[g] < stop)]
            at = ends[groups[0]] - sizes[groups[0]] if groups else 0
            check_values(path, file.metadata, groups)
            for batch in file.iter_batches(_ROWS, groups, use_threads=False):
                first, last = max(start - at, 0), len(batch) if stop is None else min(stop - at, len(batch))
                for piece in range(first, last, _PIECE):
                    part = batch.slice(piece, min(_PIECE, last - piece))
                    _check_lengths(path, part, at + piece)
                    check_ids(path, part, ID_COLUMNS, at + piece)
                    for number, one in enumerate(part.to_pylist(), at + piece):
                        yield f"row {number + 1}", one
                at += len(batch)
                if stop is not None and at >= stop:
                    return
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as Parquet (cut off or damaged?): {first_line(error)}") from None


def _check_lengths(path: Path, part: pa.RecordBatch, at: int) -> None:
    """Refuse lists and texts that are too long, before they are converted to Python objects."""
    for name, column in zip(part.schema.names, part.columns, strict=True):
        if name in ID_LIST_FIELDS and not pa.types.is_null(column.type):
            lengths, most, what = pc.list_value_length(column), MAX_IDS, "ids; a list has at most"
        elif pa.types.is_dictionary(column.type) and _is_text(column.type.value_type):
            each = pc.utf8_length(column.dictionary.cast(pa.large_string()))
            lengths, most, what = each.take(column.indices), MAX_MESSAGE, "characters; it has at most"
        else:
            continue
        if (longest := pc.max(lengths).as_py() or 0) > most:
            row = f"row {at + 1 + lengths.index(longest).as_py()}"
            raise DataError(f"{path}: {row}: {name} has {longest:,} {what} {most:,}")


def _check_schema(path: Path, schema: pa.Schema) -> None:
    if twice := [name for name in schema.names if schema.names.count(name) > 1]:
        raise DataError(f"{path}: column {twice[0]!r} is there twice")
    _check_columns(schema.names, str(path))
    for name, found in zip(schema.names, schema.types, strict=True):
        of = found.value_type if pa.types.is_dictionary(found) else found
        if name in ID_LIST_FIELDS:
            listed = pa.types.is_list(of) or pa.types.is_large_list(of) or pa.types.is_null(of)
            fine, need = (
                listed and (pa.types.is_null(of) or _holds_ids(of.value_type)),
                "a list of strings or whole numbers",
            )
        elif name == "k":
            fine, need = pa.types.is_integer(of) or pa.types.is_null(of), "whole numbers"
        elif name == "message":
            fine, need = _is_text(of) or pa.types.is_null(of), "strings"
        else:
            fine = _holds_ids(of) if name in ID_COLUMNS else _is_id_type(of)
            need = "strings or whole numbers"
        if not fine:
            raise DataError(f"{path}: column {name!r} is of type {found}; it must hold {need}")


def _is_text(of: pa.DataType) -> bool:
    return bool(pa.types.is_string(of) or pa.types.is_large_string(of) or pa.types.is_string_view(of))


def _is_id_type(of: pa.DataType) -> bool:
    return _is_text(of) or bool(pa.types.is_integer(of) or pa.types.is_null(of))


def _holds_ids(of: pa.DataType) -> bool:
    return _is_id_type(of) or bool(pa.types.is_floating(of))


def _lines(path: Path, start: int, stop: int | None) -> Iterator[tuple[str, Mapping[str, Any]]]:
    with path.open("rb") as handle:
        number = 0
        for line, raw in enumerate(iter(lambda: handle.readline(LINE_LIMIT + 1), b""), 1):
            if len(raw) > LINE_LIMIT:
                raise DataError(f"{path}: line {line} is longer than {LINE_LIMIT} bytes")
            if not raw.strip():
                continue
            if stop is not None and number >= stop:
                return
            if number >= start:
                yield f"line {line}", _parse_json(raw, f"{path}: line {line}")
            number += 1


class _Lines:
    """Lines of a CSV file for `csv.reader`; limits the bytes of a row, which may span several lines."""

    def __init__(self, path: Path, handle: IO[bytes]) -> None:
        self.path, self.handle, self.number, self.held = path, handle, 0, 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        raw = self.handle.readline(LINE_LIMIT + 1)
        if not raw:
            raise StopIteration
        self.number, self.held = self.number + 1, self.held + len(raw)
        where = f"{self.path}: line {self.number}"
        if self.held > LINE_LIMIT:
            raise DataError(f"{where}: a row of more than {LINE_LIMIT} bytes; is a quotation mark left open?")
        try:
            return raw.decode("utf-8-sig" if self.number == 1 else "utf-8")
        except UnicodeDecodeError:
            raise DataError(f"{where} is not UTF-8; save the file as CSV UTF-8") from None


def _csv(path: Path, start: int, stop: int | None) -> Iterator[tuple[str, Mapping[str, Any]]]:
    csv.field_size_limit(LINE_LIMIT)
    with path.open("rb") as handle:
        lines = _Lines(path, handle)
        header = next(lines, "")
        reader = csv.reader(chain([header], lines), delimiter=max(_SEPARATORS, key=header.count), strict=True)
        try:
            names = [name.strip() for name in next(reader, [])]
            if twice := [name for name in names if names.count(name) > 1]:
                raise DataError(f"{path}: column {twice[0][:100]!r} is there twice")
            _check_columns(names, f"{path}: line 1")
            number, lines.held = 0, 0
            for cells in reader:
                lines.held = 0
                where = f"line {reader.line_num}"
                if not any(cell.strip() for cell in cells):
                    continue  # spreadsheets leave empty rows behind
                if len(cells) != len(names):
                    raise DataError(f"{path}: {where} has {len(cells)} cells, the header {len(names)}")
                if stop is not None and number >= stop:
                    return
                if number >= start:
                    yield where, {name: _cell(name, cell) for name, cell in zip(names, cells, strict=True)}
                number += 1
        except csv.Error as error:
            raise DataError(f"{path}: line {lines.number} is not CSV: {first_line(error)}") from None


def _cell(name: str, cell: str) -> Any:
    """Return the value of a cell as JSON would hold it; an invalid value stays text, and is refused later."""
    if not cell.strip():
        return None
    if name in ID_LIST_FIELDS:
        found = (re.sub(r"\\([|\\])", r"\1", one).strip() for one in _LISTED.findall(cell))
        return [one for one in found if one]
    if name == "k" and re.fullmatch(r"[0-9]{1,9}", cell.strip(), re.ASCII):
        return int(cell)
    return cell if name in ("message", "request_id") else cell.strip()


def _parse_json(raw: bytes, where: str) -> Mapping[str, Any]:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is not JSON: {first_line(error)}") from None
    if not isinstance(value, dict):
        raise DataError(f'{where} holds {_short(value)}; it must be an object such as {{"request_id": 1, ...}}')
    _check_columns(list(value), where)
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except (UnicodeEncodeError, RecursionError):
        raise DataError(f"{where} holds half of a surrogate pair or is nested too deeply") from None
    return value


def _check_columns(names: Sequence[str], where: str) -> None:
    if "request_id" not in names:
        raise DataError(f"{where}: column 'request_id' is missing; there are: {', '.join(names)[:200] or 'none'}")
    if unknown := [name for name in names if name not in COLUMNS]:
        odd, known = unknown[0][:100], ", ".join(COLUMNS)
        raise DataError(f"{where}: column {odd!r} is unknown; the columns of a request are {known}")
    if not any(name in names for name in INPUT_COLUMNS):
        raise DataError(f"{where}: a column to go by is missing; give one of {', '.join(INPUT_COLUMNS)}")


def _parse_row(number: int, values: Mapping[str, Any], where: str) -> BatchRequest:
    request = values.get("request_id")
    if not _is_id(request):
        raise DataError(f"{where}: request_id is {_short(request)}; it must be a string or a whole number")
    _check_id_length(request, "request_id", where)
    where = f"{where} (request {_short(request)})"
    blank = isinstance(values.get("message"), str) and not values["message"].strip()
    if all(values.get(name) is None or (blank and name == "message") for name in INPUT_COLUMNS):
        raise DataError(f"{where} has nothing to go by: give one of {', '.join(INPUT_COLUMNS)}")
    user, similar = (_parse_id(values.get(name), name, where) for name in ID_FIELDS)
    items, candidates = (_parse_ids(values.get(name), name, where) for name in ID_LIST_FIELDS)
    message, k = values.get("message"), values.get("k")
    if message is not None and (not isinstance(message, str) or len(message) > MAX_MESSAGE):
        what = f"has {len(message)} characters" if isinstance(message, str) else f"is {_short(message)}"
        raise DataError(f"{where}: message {what}; it must be a string of at most {MAX_MESSAGE} characters")
    if k is not None and (isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= MAX_K):
        raise DataError(f"{where}: k is {_short(k)}; it must be a whole number from 1 to {MAX_K}")
    if similar is not None and any(values.get(name) is not None for name in ("user_id", "items", "message")):
        raise DataError(f"{where}: similar_to goes with nothing but candidates and k")
    target = _parse_id(values.get("target"), "target", where)
    return BatchRequest(number, request, user, similar, items, candidates, (message or "").strip(), k, target)


def _is_id(value: Any) -> TypeGuard[str | int]:
    return isinstance(value, str | int) and not isinstance(value, bool) and -(2**63) <= _size(value) < 2**63


def _is_exact_id(value: Any) -> bool:
    """Return whether a value is an id of an item or a user that was not rounded by a float."""
    whole = isinstance(value, float) and value.is_integer()
    return (_is_id(value) or whole) and not is_rounded(value)


def _rounding_hint(value: Any) -> str:
    """Return an addition to an error message if a float has rounded the id, else ''."""
    return ", not one that a float has rounded (at 2**53 and more)" if is_rounded(value) else ""


def _size(value: str | int) -> int:
    return value if isinstance(value, int) else 0


def _check_id_length(value: Any, name: str, where: str) -> None:
    if isinstance(value, str) and len(value) > MAX_ID_LENGTH:
        raise DataError(f"{where}: {name} has {len(value):,} characters; an id has at most {MAX_ID_LENGTH:,}")


def _parse_id(value: Any, name: str, where: str) -> str | None:
    if value is None or value != value:  # NaN: an empty cell of a data frame
        return None
    if not _is_exact_id(value):
        raise DataError(
            f"{where}: {name} is {_short(value)}; it must be a string or a whole number{_rounding_hint(value)}"
        )
    _check_id_length(value, name, where)
    return id_text(value)


def _parse_ids(value: Any, name: str, where: str) -> tuple[str, ...] | None:
    if value is None:
        return None
    odd = [one for one in value if not _is_exact_id(one)] if isinstance(value, list) else [value]
    if odd:
        what = f"it must be a list of strings or whole numbers{_rounding_hint(odd[0])}"
        raise DataError(f"{where}: {name} is {_short(value)}; {what}")
    if len(value) > MAX_IDS:
        raise DataError(f"{where}: {name} has {len(value):,} ids; a list has at most {MAX_IDS:,}")
    return tuple(map(id_text, value))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
