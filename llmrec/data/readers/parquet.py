"""Reads columns of untrusted Parquet files within bounded memory.

A small Parquet file can unpack to any size: two billion equal values take a few bytes, and a long text that occurs in
every row is stored once. Texts are therefore read as dictionaries, which hold each distinct text once, and their total
size is counted before they are expanded. The only compression accepted is Snappy, which expands a byte to at most 21.
Encodings that derive a text from the one before it cannot be read as dictionaries; Arrow raises an error for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from llmrec.errors import DataError

# A file may unpack to MAX_EXPANSION times its size plus SMALL_FILE_ROOM bytes. Real rows have distinct ids and take at
# least 5 bytes of the file each, so real data unpacks to 10 to 60 times the size of its file. A fixed bound on rows or
# bytes would not do: a catalogue of ten million items takes some 10 GB, and may, where there is memory for it.
MAX_EXPANSION, SMALL_FILE_ROOM = 200, 256 << 20
MAX_ROW_BYTES = 10 << 20  # bytes of text in a row; cleaned title and text take at most 20 kB, attributes the rest
# Most values in a column of one row group of a user's table; Parquet decodes a row group as a whole. That is some 1 GB
# of short ids, or a million rows with lists of fifty. A file of 600 bytes can hold one row with a list of ten million.
MAX_GROUP_VALUES = 50_000_000
_PACKING = {"SNAPPY", "UNCOMPRESSED"}  # what `pq.write_table` writes; other codecs can expand a byte to thousands
_BATCH = 1 << 16
_TEXT = pa.large_string()  # a batch may hold more than 2 GB of text


def read_columns(path: Path, types: Mapping[str, pa.DataType], row_bytes: int) -> pa.Table:
    """Read the given columns of a file; all others are skipped.

    Args:
        path: the file.
        types: column -> `pa.string()`, or the exact numeric type.
        row_bytes: memory of a row in bytes, not counting its texts.

    Raises:
        DataError: not a Parquet file, a missing column or one of another type, an empty cell, or more rows or text than
            a file of this size may hold.
    """
    room = SMALL_FILE_ROOM + MAX_EXPANSION * path.stat().st_size
    texts = [name for name, of in types.items() if of == pa.string()]
    try:
        with pq.ParquetFile(path, read_dictionary=texts) as file:
            _check_types(path, file.schema_arrow, types)
            _check_footer(path, file.metadata, row_bytes, room)
            batches, used = [], 0
            for batch in file.iter_batches(_BATCH, columns=list(types)):
                used += batch.nbytes + len(batch) * row_bytes + _text_bytes(path, batch, texts)
                _check_room(path, used, room)
                batches.append(_written_out(batch))
            schema = pa.schema([(name, _TEXT if name in texts else of) for name, of in types.items()])
            return pa.Table.from_batches([batch.select(list(types)) for batch in batches], schema)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path.name}: {(str(error).splitlines() or [type(error).__name__])[0][:200]}") from None


def check_values(path: Path, metadata: pq.FileMetaData, groups: Iterable[int]) -> None:
    """Refuse row groups that would unpack to too many values, judging by the file's metadata before unpacking.

    Raises:
        DataError: a column of a group has more than `MAX_GROUP_VALUES` values.
    """
    for group in groups:
        chunks = metadata.row_group(group)
        values = max((chunks.column(place).num_values for place in range(metadata.num_columns)), default=0)
        if values > MAX_GROUP_VALUES:
            what = f"{path}: row group {group + 1} has {values:,} values in a column"
            raise DataError(f"{what}; at most {MAX_GROUP_VALUES:,} are read: write smaller row groups")


def check_ids(place: Path | str, batch: pa.RecordBatch, names: Iterable[str], at: int) -> None:
    """Refuse ids that a float16 or float32 column may have rounded; `ids.is_rounded` checks Python's 64-bit floats.

    Args:
        place: the table, for messages.
        batch: some rows.
        names: columns of ids or of lists of ids; names that the batch does not have are skipped.
        at: number of rows before this batch.

    Raises:
        DataError: an id too large for its column to hold exactly; the message names row and column.
    """
    for name in names:
        column = batch.column(name) if name in batch.schema.names else pa.nulls(0)
        listed = pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
        of = column.type.value_type if listed else column.type
        if not (pa.types.is_float16(of) or pa.types.is_float32(of)):
            continue
        exact = 2.0 ** (11 if pa.types.is_float16(of) else 24)
        for row, cell in enumerate(column.to_pylist(), at + 1):
            for one in cell if listed and cell else [cell]:
                if isinstance(one, float) and abs(one) >= exact:
                    why = f"is of type {of}, which holds whole numbers exactly only below {exact:.0f}"
                    raise DataError(f"{place}, row {row}: {name} {one:.0f} {why}; store ids as text or whole numbers")


def _written_out(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return the batch with its dictionaries expanded to plain texts, which convert to lists many times faster."""
    plain = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        packed = pa.types.is_dictionary(column.type)
        plain[name] = column.dictionary.cast(_TEXT).take(column.indices) if packed else column
    return pa.RecordBatch.from_pydict(plain)


def _check_types(path: Path, found: pa.Schema, types: Mapping[str, pa.DataType]) -> None:
    for name, wanted in types.items():
        if (times := found.names.count(name)) != 1:
            raise DataError(f"{path.name}: column {name!r} is there {times} times; it is needed once")
        of = found.field(name).type
        text = pa.types.is_dictionary(of) and (
            pa.types.is_string(of.value_type) or pa.types.is_large_string(of.value_type)
        )
        if not (text if wanted == pa.string() else of == wanted):
            raise DataError(f"{path.name}: column {name!r} is of type {str(of)[:60]}; it must be of type {wanted}")


def _check_footer(path: Path, footer: pq.FileMetaData, row_bytes: int, room: int) -> None:
    """Refuse a file that is too large or of another compression, by its footer; wrong footers are noticed by batch."""
    rows = footer.num_rows
    for group in map(footer.row_group, range(footer.num_row_groups)):
        for chunk in map(group.column, range(footer.num_columns)):
            if chunk.compression not in _PACKING:
                kinds = " or ".join(sorted(_PACKING))
                raise DataError(f"{path.name} is packed with {chunk.compression[:20]}; prepared data is {kinds}")
            rows = max(rows, chunk.num_values)
    _check_room(path, rows * row_bytes, room)


def _text_bytes(path: Path, batch: pa.RecordBatch, texts: list[str]) -> int:
    """Return the number of bytes that the texts of a batch take once expanded; raises DataError for empty cells."""
    lengths = np.zeros(len(batch), np.int64)
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if column.null_count:
            raise DataError(f"{path.name}: column {name!r} has empty cells; every row needs a value")
        if name in texts and len(batch):
            each = np.asarray(pc.binary_length(column.dictionary), np.int64)
            lengths += each[np.asarray(column.indices)]
    if (longest := int(lengths.max(initial=0))) > MAX_ROW_BYTES:
        raise DataError(f"{path.name} has a row of {longest:,} bytes; a row has at most {MAX_ROW_BYTES:,}")
    return int(lengths.sum())


def _check_room(path: Path, used: int, room: int) -> None:
    if used > room:
        size = path.stat().st_size
        raise DataError(f"{path.name} has {size:,} bytes and unpacks to {used:,} or more; at most {room:,} are read")
