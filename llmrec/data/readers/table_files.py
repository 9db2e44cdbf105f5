"""Reads rows of CSV, TSV, JSON Lines, Parquet and Arrow files, and of directories of such files.

Files are streamed: only one line, or one batch of a Parquet row group, is in memory at a time. Files whose names end in
`.gz` are unpacked while they are read.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from llmrec.data.readers.common import read_json_lines, read_lines
from llmrec.data.readers.parquet import check_ids, check_values
from llmrec.errors import DataError

Row = tuple[str, Mapping[str, Any]]

_BATCH = 4096
# A few hundred bytes of Parquet can hold a list of millions, so rows become Python objects in pieces of bounded size.
_PIECE, _MOST_BYTES = 64, 16 * 2**20
_UNREADABLE = (OverflowError, LookupError, ValueError)  # an unknown time zone is a KeyError of pytz or of zoneinfo
_MOST_KEYS = 100  # most unread keys of JSON lines that are reported
_CELL_LIMIT = 1 << 20  # characters; csv's default of 131,072 is below the limit on lines
_FORMS = {
    ".csv": "csv", ".tsv": "csv", ".txt": "csv", ".jsonl": "json", ".ndjson": "json", ".json": "json",
    ".parquet": "parquet", ".pq": "parquet", ".arrow": "arrow",
}  # fmt: skip


def read_rows(
    source: str | Path,
    needed: Sequence[str],
    ids: Sequence[str] = (),
    options: Mapping[str, str] | None = None,
    unread: set[str] | None = None,
    every: Sequence[str] = (),
) -> Iterator[Row]:
    """Yield (place for messages, column -> value) for every row of a table.

    Args:
        source: a file, or a directory of files of the same form, such as one made by `Dataset.save_to_disk`; its files
            are read in the order of their names.
        needed: columns that the table must have; Parquet and Arrow tables yield only these.
        ids: the columns among `needed` that hold ids or lists of ids; every row must have them.
        options: column -> command-line option that names it, for messages.
        unread: receives the names of the table's other columns.
        every: further columns that every row must have.

    Raises:
        DataError: no such file, an unknown form, a missing column, or a damaged file; the message names the file, and
            the line where there are lines.
    """
    named, rest = options or {}, set() if unread is None else unread
    wanted = ColumnSelection(tuple(dict.fromkeys(needed)), tuple(ids), (*ids, *every), named, rest)
    seen: set[str] = set()
    where = ""
    for path in _table_files(Path(source)):
        for where, row in _FORM_READERS[_form(path)](path, wanted):
            seen.update(name for name in wanted.columns if name in row)
            yield where, row
    if not where:
        raise DataError(f"{source} holds no rows; a table needs at least one below its column names")
    for name in wanted.columns:  # JSON lines may omit a key, but not all of them
        if name not in seen:
            raise DataError(f"{source}: no line has a key {name!r}{wanted.hint(name)}")


@dataclass(frozen=True)
class ColumnSelection:
    """The columns to read from a table.

    Attributes:
        columns: all columns to read.
        ids: those that hold ids.
        every: those that every row must have.
        options: column -> command-line option that names it.
        unread: collects the names of the table's other columns.
    """

    columns: tuple[str, ...]
    ids: tuple[str, ...]
    every: tuple[str, ...]
    options: Mapping[str, str]
    unread: set[str]

    def see(self, found: Iterable[str]) -> None:
        """Record the columns found in the table that are not read."""
        self.unread.update(str(name) for name in found if name not in self.columns)

    def hint(self, name: str) -> str:
        """Return the part of a message that names the option for choosing a column; "" if there is no option."""
        return f"; say with {self.options[name]} which column it is" if name in self.options else ""

    def missing(self, where: str, name: str, found: Sequence[str]) -> DataError:
        """Return the error for a missing column; its message lists the columns found."""
        return DataError(f"{where}: no column {name!r}; found: {', '.join(map(str, found))[:300]}{self.hint(name)}")


def _form(path: Path) -> str:
    suffix = _suffix(path)
    if suffix not in _FORMS:
        raise DataError(f"{path}: a table ends in {', '.join(_FORMS)}; all but the last three may end in .gz as well")
    if path.suffix.lower() == ".gz" and _FORMS[suffix] in ("parquet", "arrow"):
        raise DataError(f"{path}: Parquet and Arrow files may not be packed as .gz; unpack it first with gunzip")
    return _FORMS[suffix]


def _suffix(path: Path) -> str:
    """Return the file name extension that tells the format, in lower case and ignoring a final `.gz`."""
    return (Path(path.stem).suffix if path.suffix.lower() == ".gz" else path.suffix).lower()


def _table_files(path: Path) -> list[Path]:
    if not path.is_dir():
        if not path.exists():
            raise DataError(f"no file or directory {str(path)!r}")
        return [path]
    names = (one for one in sorted(path.iterdir()) if one.is_file() and not one.name.startswith((".", "_")))
    found = [one for one in names if one.name not in ("dataset_info.json", "state.json")]
    tables = [one for one in found if _suffix(one) in _FORMS]
    if not tables:
        inner = ", ".join(sorted(one.name for one in path.iterdir() if one.is_dir())[:5])
        hint = f"; give one of its directories: {inner}" if inner else ""
        raise DataError(f"{path} holds no table ({', '.join(_FORMS)}){hint}")
    if len({_form(one) for one in tables}) > 1:
        raise DataError(f"{path} holds tables of several forms: {tables[0].name}, {tables[-1].name}; give one file")
    return tables


class _Lines:
    """Iterates over the lines of a file, each with a line end, and holds the lines of the current record."""

    def __init__(self, path: Path) -> None:
        self._lines = read_lines(path)
        self._number = 0
        self.held: list[str] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        self._number, text = next(self._lines)
        self.held.append(text + "\n")
        return self.held[-1]

    @property
    def first(self) -> int:
        """Number of the first held line."""
        return self._number - len(self.held) + 1

    def opened(self, mark: str) -> int:
        """Return the number of the line on which the last quoted cell of the held lines begins."""
        line, inside, begins, closed = 0, False, True, False
        for number, text in enumerate(self.held):
            for char in text:
                was, quote = inside, char == '"'
                if quote and (inside or begins or closed):  # a doubled quote is a literal one: still inside the cell
                    inside = not inside
                    line = number if begins and inside else line
                begins, closed = not inside and char == mark, quote and was and not inside
        return self.first + line


def _csv_rows(path: Path, wanted: ColumnSelection) -> Iterator[Row]:
    """Yield the rows of a CSV file (RFC 4180); quoted cells may contain line breaks.

    The separator is the most frequent of tab, `;`, `|` and `,` in the header.
    """
    csv.field_size_limit(_CELL_LIMIT)
    texts = _Lines(path)
    header = next(texts, "")
    mark = max("\t;|,", key=header.count) if any(one in header for one in "\t;|,") else ","
    reader = csv.reader(chain([header], texts), delimiter=mark, strict=True)
    try:
        columns = [name.strip() for name in next(reader, [])]
        if len(set(columns)) != len(columns):
            twice = next(name for name in columns if columns.count(name) > 1)
            raise DataError(f"{path}, line 1: column {twice[:60]!r} is named twice")
        for name in wanted.columns:
            if name not in columns:
                raise wanted.missing(f"{path}, line 1", name, columns)
        wanted.see(columns)
        texts.held.clear()
        for cells in reader:
            where, several = f"{path}, line {texts.first}", len(texts.held) > 1
            texts.held.clear()
            if not cells:
                continue
            if len(cells) != len(columns):
                what = f"{len(cells)} cells where the header has {len(columns)}"
                end = f" (up to line {reader.line_num}); is a quotation mark left open?" if several else ""
                raise DataError(f"{where}: {what}{end}")
            yield where, dict(zip(columns, cells, strict=True))
    except csv.Error as error:
        if "new-line character" in str(error):
            why = "line ends are CR alone, or a CR stands in a cell without quotation marks; convert: tr '\\r' '\\n'"
            raise DataError(f"{path}, line {reader.line_num}: {why}") from None
        words = "the cell that begins here" if reader.line_num > texts.opened(mark) else "a cell"
        why = f"{words} cannot be read ({error}); is a quotation mark left open?"
        raise DataError(f"{path}, line {texts.opened(mark)}: {why}") from None


def _json_rows(path: Path, wanted: ColumnSelection) -> Iterator[Row]:
    for where, row in read_json_lines(path):
        for name in wanted.every:
            if name not in row:
                raise wanted.missing(where, name, list(row))
        if len(wanted.unread) < _MOST_KEYS:
            wanted.see(row)
        yield where, row


def _parquet_rows(path: Path, wanted: ColumnSelection) -> Iterator[Row]:
    try:
        with pq.ParquetFile(path) as file:
            check_columns(str(path), file.schema_arrow.names, wanted)
            check_values(path, file.metadata, range(file.metadata.num_row_groups))
            batches = file.iter_batches(batch_size=_BATCH, columns=list(wanted.columns))
            yield from batch_rows(path, batches, wanted.ids)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a whole Parquet file: {one_line(error)}") from None


def _arrow_rows(path: Path, wanted: ColumnSelection) -> Iterator[Row]:
    """Yield the rows of an Arrow IPC stream, as `Dataset.save_to_disk` writes it, or of an IPC file."""
    try:
        with pa.memory_map(str(path)) as source:
            head = source.read(6)
            source.seek(0)
            if head == b"ARROW1":
                reader = pa.ipc.open_file(source)
                batches = (reader.get_batch(i) for i in range(reader.num_record_batches))
            else:
                reader = pa.ipc.open_stream(source)
                batches = iter(reader)
            check_columns(str(path), reader.schema.names, wanted)
            yield from batch_rows(path, (batch.select(list(wanted.columns)) for batch in batches), wanted.ids)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a whole Arrow file: {one_line(error)}") from None


def check_columns(place: str, names: Sequence[str], wanted: ColumnSelection) -> None:
    """Check that a table has all wanted columns, and record the others.

    Raises:
        DataError: a wanted column is missing or occurs twice.
    """
    for name in wanted.columns:
        if name not in names:
            raise wanted.missing(place, name, names)
        if names.count(name) != 1:
            raise DataError(f"{place}: two columns {name!r}")
    wanted.see(names)


def batch_rows(
    place: Path | str, batches: Iterable[pa.RecordBatch], ids: Sequence[str], before: int = 0
) -> Iterator[Row]:
    """Yield the rows of Arrow batches; a bounded number of bytes becomes Python objects at a time.

    Args:
        place: the table, for messages.
        batches: batches with only the wanted columns.
        ids: the columns of ids among them.
        before: number of rows of the table before these batches.

    Raises:
        DataError: rows that are too large, an id that was rounded, or a value that Python cannot represent.
    """
    number = before
    for batch in batches:
        for at in range(0, len(batch), _PIECE):
            part = batch.slice(at, _PIECE)
            if part.nbytes > _MOST_BYTES:  # checked before conversion: Python objects are ten times as large
                what = f"{place}, row {number + 1} and the {len(part) - 1} after it: {part.nbytes / 2**20:.0f} MB"
                raise DataError(f"{what}; {_PIECE} rows may hold {_MOST_BYTES // 2**20} MB")
            check_ids(place, part, ids, number)
            try:
                found = part.to_pylist()
            except _UNREADABLE:
                raise _unreadable(place, part, number) from None
            for row in found:
                number += 1
                yield f"{place}, row {number}", row


def _unreadable(place: Path | str, batch: pa.RecordBatch, before: int) -> DataError:
    """Return the error for the first cell that Python cannot represent: a year after 9999, an unknown time zone."""
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        for number, cell in enumerate(column, before + 1):
            try:
                cell.as_py()
            except _UNREADABLE as error:
                what = f"{place}, row {number}: {name} of type {column.type} cannot be read ({one_line(error)})"
                return DataError(f"{what}; store it as text or as a whole number")
    return DataError(f"{place}: the rows after {before} cannot be read")


def one_line(error: BaseException) -> str:
    """Return the message of a library's error in one line of at most 200 characters."""
    return " ".join(str(error).split())[:200]


_FORM_READERS = {"csv": _csv_rows, "json": _json_rows, "parquet": _parquet_rows, "arrow": _arrow_rows}
