"""Prepared data by somebody else: one clear error in a line, and no more memory than the files are worth."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import make_catalog, make_interactions
from test_model_dirs import reseal

from llmrec.data.dataset import load_data, save_data
from llmrec.data.interactions import Interactions
from llmrec.data.readers import parquet
from llmrec.data.readers.common import Report
from llmrec.errors import ArtifactError

Edit = Callable[[Path], None]
N = 12


@pytest.fixture
def data(tmp_path: Path) -> Path:
    save_data(tmp_path / "data", make_catalog(N), make_interactions(n=N), Report({}, {}, ()))
    return tmp_path / "data"


def first(file: str, column: str, value: object, of: pa.DataType | None = None) -> Edit:
    """Put a value into the first row of a column."""

    def edit(path: Path) -> None:
        table = pq.read_table(path / file)
        place = table.schema.get_field_index(column)
        values = [value, *table.column(column).to_pylist()[1:]]
        pq.write_table(table.set_column(place, column, pa.array(values, of or table.schema.types[place])), path / file)

    return edit


def whole(file: str, change: Callable[[pa.Table], pa.Table]) -> Edit:
    return lambda path: pq.write_table(change(pq.read_table(path / file)), path / file)


def attributes(text: object) -> Edit:
    return first("catalog.parquet", "attributes", text)


def row(value: object, of: pa.DataType | None = None) -> Edit:
    return first("interactions.parquet", "row", value, of)


EDITS: dict[str, tuple[Edit, str]] = {
    "no attributes": (attributes(None), "'attributes'"),
    "null for attributes": (attributes("null"), "item 'i0': its attributes"),
    "a list for attributes": (attributes("[1]"), "item 'i0': its attributes"),
    "attributes that are no JSON": (attributes("{"), "item 'i0': its attributes"),
    "a list of numbers": (attributes('{"genre": [1, 2]}'), "attribute 'genre'"),
    "nothing for a value": (attributes('{"genre": null}'), "attribute 'genre'"),
    "an object for a value": (attributes('{"genre": {"a": 1}}'), "attribute 'genre'"),
    "a number beyond all numbers": (attributes('{"year": 1' + "0" * 400 + "}"), "attribute 'year'"),
    "a number of five thousand digits": (attributes('{"year": 1' + "0" * 5000 + "}"), "item 'i0': its attributes"),
    "values nested a hundred thousand deep": (attributes('{"a":' + "[" * 100_000), "item 'i0': its attributes"),
    "no title": (first("catalog.parquet", "title", None), "'title'"),
    "no text": (first("catalog.parquet", "text", None), "'text'"),
    "no id": (first("catalog.parquet", "id", None), "'id'"),
    "titles that are numbers": (
        whole("catalog.parquet", lambda t: t.set_column(1, "title", pa.array(range(len(t))))),
        "column 'title' is of type int64",
    ),
    "two columns of one name": (
        whole("catalog.parquet", lambda t: t.append_column("id", t.column("title"))),
        "column 'id' is there 2 times",
    ),
    "no column of times": (whole("interactions.parquet", lambda t: t.drop_columns(["time"])), "column 'time' is there"),
    "no user": (first("interactions.parquet", "user", None, pa.string()), "'user'"),
    "no row": (row(None), "'row'"),
    "a row behind the catalogue": (row(N), "row 12"),
    "a row of a terabyte": (row(2**40), "row 1099511627776"),
    "a row below zero": (row(-1), "row -1"),
    "a row that is half": (row(0.5, pa.float64()), "column 'row' is of type double"),
    "a file that is none": (lambda path: (path / "catalog.parquet").write_bytes(b"PAR1") and None, "catalog.parquet"),
}


@pytest.mark.parametrize("name", EDITS)
def test_hostile_prepared_data_is_one_clear_error(name: str, data: Path) -> None:
    edit, words = EDITS[name]
    edit(data)
    reseal(data)
    with pytest.raises(ArtifactError) as caught:
        load_data(data)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1_000


@pytest.mark.parametrize("name", ["counts", "dropped", "notes", "domain"])
@pytest.mark.parametrize("value", [[1], 3, None])
def test_hostile_notes_of_prepared_data(name: str, value: object, data: Path) -> None:
    told = json.loads((data / "manifest.json").read_text())
    told["meta"][name] = value
    (data / "manifest.json").write_text(json.dumps(told))
    reseal(data)
    try:
        load_data(data)
    except ArtifactError as error:
        assert "\n" not in str(error)


def same(count: int, value: str) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int8)), pa.array([value]))


def catalogue(count: int, ids: pa.Array, text: str, title: str = "t") -> pa.Table:
    return pa.table(
        {"id": ids, "title": same(count, title), "text": same(count, text), "attributes": same(count, "{}")}
    )


def log(count: int, value: int = 0) -> pa.Table:
    zeros = np.zeros(count, np.int64)
    return pa.table({"user": same(count, "u"), "row": zeros, "time": zeros, "value": zeros.astype(np.float32)})


BOMBS: dict[str, tuple[str, Callable[[], pa.Table], dict[str, object], str]] = {
    "rows without end": ("catalog.parquet", lambda: catalogue(2_000_000, same(2_000_000, "a"), "x"), {}, "unpacks to"),
    "a long text in every row": (
        "catalog.parquet",
        lambda: catalogue(100_000, pa.array(list(map(str, range(100_000)))), "x" * 4_000),
        {},
        "unpacks to",
    ),
    "a row of a hundred million characters": (
        "catalog.parquet",
        lambda: catalogue(12, same(12, "a"), "x" * 100_000_000),
        {},
        "a row of",
    ),
    "packed without bound": (
        "catalog.parquet",
        lambda: catalogue(12, same(12, "a"), "x"),
        {"compression": "zstd"},
        "ZSTD",
    ),
    "texts made of the ones before": (
        "catalog.parquet",
        lambda: pa.table({"id": ["a"], "title": ["t"], "text": ["x"], "attributes": ["{}"]}),
        {"use_dictionary": False, "column_encoding": {"text": "DELTA_BYTE_ARRAY"}},
        "DeltaByteArray",
    ),
    "interactions without end": ("interactions.parquet", lambda: log(20_000_000), {}, "unpacks to"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_small_files_that_unpack_large_are_refused_while_they_are_small(name: str, data: Path) -> None:
    file, table, how, words = BOMBS[name]
    pq.write_table(table(), data / file, store_schema=False, **how)
    reseal(data)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ArtifactError, match=words) as caught:
        load_data(data)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 300 * 1024, f"{grown // 1024} MB for {(data / file).stat().st_size} bytes"
    assert "\n" not in str(caught.value)


def test_honest_data_unpacks_to_far_less_than_the_bound(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Poor in words, and so with more memory for a byte of the file than real data; SMALL is left out."""
    monkeypatch.setattr(parquet, "SMALL_FILE_ROOM", 0)
    monkeypatch.setattr(parquet, "MAX_EXPANSION", parquet.MAX_EXPANSION // 3)
    catalog, interactions = make_catalog(5_000), make_interactions(users=2_000, n=5_000, length=20)
    save_data(data, catalog, interactions, Report({}, {}, ()))
    found, log, _ = load_data(data)
    assert (found.fingerprint, log.fingerprint) == (catalog.fingerprint, interactions.fingerprint)


def test_data_of_no_interactions_loads(data: Path) -> None:
    none = Interactions.build([], [], [], [])
    save_data(data, make_catalog(N), none, Report({}, {}, ()))
    assert len(load_data(data)[1]) == 0
