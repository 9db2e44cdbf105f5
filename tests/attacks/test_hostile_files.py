"""Promise 12, for every reader that tests of its own do not attack: a clear error of one line, or something read."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fakes import FakeRecommender, films
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmrec.app.server.feedback import FeedbackLog, read_reactions
from llmrec.app.server.guard import Visit
from llmrec.app.server.settings import load_settings
from llmrec.app.web import saved_conversations
from llmrec.batch import request_files
from llmrec.dialogue.chat import Chat
from llmrec.errors import DataError, UserError
from llmrec.eval.report import results
from llmrec.finetune.recipe import load_recipe
from llmrec.storage.artifacts import read_manifest

CHAT = Chat(FakeRecommender(films()))  # type: ignore[arg-type]


def _requests(path: Path) -> None:
    list(request_files.read_requests(path))


def _import(path: Path) -> None:
    saved_conversations.import_conversation(Visit("x"), path.read_bytes().decode("utf-8", "replace"), CHAT, b"k" * 32)


# reader -> (name of the file, how it is read, a sound content to damage)
READERS: dict[str, tuple[str, Callable[[Path], Any], Callable[[Path], None]]] = {}


def reader(name: str, read: Callable[[Path], Any]) -> Callable[[Callable[[Path], None]], None]:
    def enter(write: Callable[[Path], None]) -> None:
        READERS[name] = (name, read, write)

    return enter


@reader("requests.jsonl", _requests)
def _(path: Path) -> None:
    rows = [{"request_id": 1, "items": ["i1"]}, {"request_id": 2, "user_id": "u1", "k": 5, "message": "no horror"}]
    path.write_text("\n".join(map(json.dumps, rows)))


@reader("requests.parquet", _requests)
def _(path: Path) -> None:
    pq.write_table(pa.table({"request_id": [1, 2], "user_id": ["u1", "u2"], "k": [3, 4]}), path)


@reader("recipe.yaml", load_recipe)
def _(path: Path) -> None:
    path.write_text("name: x\nsteps: {a: &a [1, 2], b: *a}\n")


@reader("llmrec.toml", load_settings)
def _(path: Path) -> None:
    path.write_text('port = 7861\nhost = "127.0.0.1"\nqueue = 8\n')


@reader("conversation.json", _import)
def _(path: Path) -> None:
    visit = Visit("one")
    list(CHAT.turn(visit, "I loved Alien"))
    path.write_text(saved_conversations.export_conversation(visit, CHAT, b"k" * 32))


@reader("feedback.sqlite", lambda path: list(read_reactions(path)))
def _(path: Path) -> None:
    store = FeedbackLog(path)
    store.react("v", "f1", "like", ("f1", "f2"))
    store.close()
    sqlite3.connect(path).close()


@reader("accuracy-ml-100k.json", lambda path: results.load_results(path.parent))
def _(path: Path) -> None:
    path.write_text(json.dumps({"suite": "accuracy", "dataset": "x", "protocol": "y", "rows": [], "targets": []}))


@reader("manifest.json", lambda path: read_manifest(path.parent, "data"))
def _(path: Path) -> None:
    path.write_text(
        json.dumps({"format": 1, "kind": "data", "files": {}, "fingerprints": {}, "meta": {}, "versions": {}})
    )


def outcome(read: Callable[[Path], Any], path: Path) -> None:
    """Read it, or hear in one line why not."""
    try:
        read(path)
    except UserError as error:
        assert "\n" not in str(error), str(error)[:300]
        assert len(str(error)) < 2_000
    finally:
        for left in path.parent.glob(f"{path.name}-*"):  # SQLite's own
            left.unlink()


PIECES = st.sampled_from([
    b"{", b"}", b"[", b"]", b'"', b":", b",", b"\n", b"\0", b"\xff\xfe", b"null", b"NaN", b"1e999", b"-" * 50, b"=",
    b"&a", b"*a", b"!!python/object/apply:os.system", b"request_id", b"PAR1", b"SQLite format 3\0", b"9" * 400,
    b"\xf0\x9f\x98\x80", b"[" * 3000, b'{"request_id": 1, "items": ["i1"]}', b"port", b"host", b'"llmrec": 1',
])  # fmt: skip
BYTES = st.lists(PIECES | st.binary(max_size=12), max_size=12).map(b"".join)
QUIET = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.mark.parametrize("name", READERS)
@QUIET
@given(body=BYTES)
def test_hostile_bytes_end_in_a_clear_error(name: str, tmp_path: Path, body: bytes) -> None:
    file, read, _ = READERS[name]
    path = tmp_path / file
    path.write_bytes(body)
    outcome(read, path)


@pytest.mark.parametrize("name", READERS)
@QUIET
@given(data=st.data())
def test_damaged_files_end_in_a_clear_error(name: str, tmp_path: Path, data: st.DataObject) -> None:
    file, read, write = READERS[name]
    sound = tmp_path / "sound"
    if not (sound / file).exists():
        sound.mkdir()
        write(sound / file)
    body = bytearray((sound / file).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, max(len(body) - 1, 0)))
        how = data.draw(st.sampled_from(["flip", "cut", "insert", "repeat"]))
        if how == "flip" and body:
            body[place] ^= data.draw(st.integers(1, 255))
        elif how == "cut":
            del body[place:]
        elif how == "insert":
            body[place:place] = data.draw(PIECES)
        else:
            body[place:place] = body[place : place + 40]
    path = tmp_path / file
    path.write_bytes(bytes(body))
    outcome(read, path)


BOMBS = {
    "recipe.yaml": b"a: &a [x,x,x,x,x,x,x,x,x]\n"
    + b"".join(b"%c: &%c [*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c]\n" % (98 + n, 98 + n, *[97 + n] * 9) for n in range(9)),
    "llmrec.toml": b"a" + b".a" * 20_000 + b" = 1\n",
    "conversation.json": b'{"llmrec": 1, "liked": [' + b'{"id": "f1"},' * 3_000 + b'{"id": "f1"}], "sealed": ""}',
    "requests.jsonl": b'{"request_id": 1, "items": [' + b'"i1",' * 500_000 + b'"i1"]}',
    "accuracy-ml-100k.json": b"[" * 200_000,
    "manifest.json": b'{"format": 1, "files": {' + b'"x": [' * 100_000,
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_small_when_read(name: str, tmp_path: Path) -> None:
    import resource

    file, read, _ = READERS[name]
    path = tmp_path / file
    path.write_bytes(BOMBS[name])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcome(read, path)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 300 * 1024, f"{grown // 1024} MB for {len(BOMBS[name])} bytes"


def small_file_that_unpacks_large(path: Path, what: str) -> None:
    """Parquet of some hundred bytes to some kilobytes that stands for a gigabyte."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    def same(count: int, value: str) -> pa.Array:
        return pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int8)), pa.array([value]))

    if what == "ids in one row":
        packed = pa.ListArray.from_arrays(pa.array([0, 10_000_000], pa.int32()), same(10_000_000, "i1"))
        table = pa.table({"request_id": [1], "items": packed})
    else:
        table = pa.table({"request_id": pa.array(np.arange(1000)), "message": same(1000, "a" * 1_000_000)})
    pq.write_table(table, path, compression="zstd", store_schema=False)


@pytest.mark.parametrize("what", ["ids in one row", "one long text in all rows"])
def test_a_small_file_of_requests_that_unpacks_large_is_refused_while_it_is_small(what: str, tmp_path: Path) -> None:
    import resource

    from llmrec.batch.request_files import scan_requests

    small_file_that_unpacks_large(tmp_path / "bomb.parquet", what)
    assert (tmp_path / "bomb.parquet").stat().st_size < 100_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match=r"has 10,000,000 ids|has 1,000,000 characters"):
        scan_requests(tmp_path / "bomb.parquet")
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 200 * 1024, f"{grown // 1024} MB"


def test_a_small_table_that_unpacks_large_is_refused_while_it_is_small(tmp_path: Path) -> None:
    import resource

    import numpy as np

    from llmrec.data.readers.table import read_items
    from llmrec.data.readers.table_mapping import load_mapping

    words = pa.DictionaryArray.from_arrays(pa.array(np.zeros(5_000_000, np.int8)), pa.array(["Comedy"]))
    cells = pa.ListArray.from_arrays(pa.array([0, 5_000_000], pa.int32()), words)
    table = pa.table({"item_id": ["a"], "title": ["b"], "genre": cells})
    pq.write_table(table, tmp_path / "items.parquet", compression="zstd", store_schema=False)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    columns = {"file": str(tmp_path / "items.parquet"), "category": "genre"}
    with pytest.raises(DataError, match="row 1 and the 0 after it: 48 MB; 64 rows may hold 16 MB"):
        read_items(load_mapping(None, {"items": columns}).items)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 200 * 1024, f"{grown // 1024} MB"
