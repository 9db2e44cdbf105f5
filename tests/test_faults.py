"""Faults that cost nothing: kill -9 at random moments, a full disk, a clock that jumps, a cache that cannot be written.

Three kills each here; LLMREC_TEST_FAULTS says how many (`make reliability` tries twenty). Kills of training and of
batch ranking are in test_training.py and test_batch_faults.py.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import make_catalog, make_interactions
from fakes import FakeRecommender, films
from toy_files import recommender, saved

from llmrec.app.server.feedback import FeedbackLog, read_reactions
from llmrec.app.server.guard import Sessions
from llmrec.app.web import saved_conversations
from llmrec.checkpoint.pretrained import MODEL_KIND, load_pretrained, save_pretrained
from llmrec.data.dataset import load_data, save_data
from llmrec.data.readers.common import Report
from llmrec.dialogue.chat import Chat, Done, Items
from llmrec.encoders import text_cache
from llmrec.lm.base_models import base_model
from llmrec.recommender import Request
from llmrec.storage.artifacts import read_manifest

KILLS = int(os.environ.get("LLMREC_TEST_FAULTS", "3"))
REPORT = Report({}, {}, ())

fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks a process to kill it")


def killed(work: Callable[[Callable[[int], None]], None], rng: random.Random, most: float = 0.25) -> int:
    """Run `work` for ever in a child, kill -9 it at a random moment; the last number that it acknowledged, 0 for none.

    `work` gets a function that acknowledges a number: what was acknowledged must outlive the kill.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            work(lambda number: os.write(writer, number.to_bytes(8, "little")) and None)
        finally:
            os._exit(1)
    os.close(writer)
    last = os.read(reader, 8)  # not before it is under way
    time.sleep(rng.random() * most)
    os.kill(child, signal.SIGKILL)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1]), "the child ended by itself"
    with os.fdopen(reader, "rb") as pipe:
        rest = pipe.read()
    whole = last + rest[: len(rest) // 8 * 8]
    return int.from_bytes(whole[-8:], "little")


def beside(path: Path) -> list[str]:
    return sorted(one.name for one in path.parent.iterdir() if one != path)


@fork
def test_kill_9_while_data_is_prepared(tmp_path: Path, record_property: Any) -> None:
    path, rng = tmp_path / "data", random.Random(1)
    worlds = [(make_catalog(n), make_interactions(users=300, n=n)) for n in (12, 40)]
    prints = {catalog.fingerprint: interactions.fingerprint for catalog, interactions in worlds}
    save_data(path, *worlds[0], REPORT)

    def prepare(acknowledge: Callable[[int], None]) -> None:
        for number in range(1, 10**6):
            save_data(path, *worlds[number % 2], REPORT)
            acknowledge(number)

    for _ in range(KILLS):
        killed(prepare, rng)
        catalog, interactions, _ = load_data(path)
        assert interactions.fingerprint == prints[catalog.fingerprint]
    save_data(path, *worlds[0], REPORT)
    assert beside(path) == []
    record_property("runs", KILLS)


@fork
def test_kill_9_while_a_model_is_saved(tmp_path: Path, record_property: Any) -> None:
    path, data = saved(tmp_path)
    catalog, _, _ = load_data(data)
    loaded, base, rng = load_pretrained(path, catalog), base_model(str(tmp_path / "base")), random.Random(2)

    def save(acknowledge: Callable[[int], None]) -> None:
        for number in range(1, 10**6):
            meta = {**loaded.meta, "steps": number}
            save_pretrained(path, replace(loaded, meta=meta), catalog, base, f"card {number}\n")
            acknowledge(number)

    for _ in range(KILLS):
        last = killed(save, rng)
        manifest = read_manifest(path, MODEL_KIND)
        assert manifest.meta["steps"] in {last, last + 1}, "an acknowledged save was lost"
        assert (path / "README.md").read_text() == f"card {manifest.meta['steps']}\n"
        load_pretrained(path, catalog)
    save_pretrained(path, loaded, catalog, base, "card\n")
    assert [name for name in beside(path) if name.startswith(".model")] == []
    record_property("runs", KILLS)


@fork
def test_kill_9_while_feedback_is_written(tmp_path: Path, record_property: Any) -> None:
    rng = random.Random(3)
    for kill in range(KILLS):
        path = tmp_path / f"feedback{kill}.sqlite"

        def react(acknowledge: Callable[[int], None], path: Path = path) -> None:
            store = FeedbackLog(path)
            for number in range(1, 10**6):
                store.react("visitor", f"f{number}", "like", (f"f{number}", "f0"))
                assert not store.lost
                acknowledge(number)

        last = killed(react, rng)
        found = [one.item for one in read_reactions(path)]
        assert last > 0
        assert found[:last] == [f"f{number}" for number in range(1, last + 1)], "an acknowledged reaction was lost"
        assert len(found) <= last + 1
        again = FeedbackLog(path)
        again.react("visitor", "after", "seen")
        again.close()
        assert [one.item for one in read_reactions(path)] == [*found, "after"]
    record_property("runs", KILLS)


@fork
def test_kill_9_or_a_full_disk_while_the_key_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: Any
) -> None:
    path, rng = tmp_path / "home" / "conversations.key", random.Random(4)

    def make(acknowledge: Callable[[int], None]) -> None:
        for number in range(1, 10**6):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
            saved_conversations.server_key(path)
            acknowledge(number)

    for _ in range(KILLS):
        killed(make, rng, 0.05)
        assert not path.exists() or path.stat().st_size == 32, "half a key"
        assert len(saved_conversations.server_key(path)) == 32
    path.unlink()
    full = OSError(errno.ENOSPC, "No space left on device")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(full))
        lost = saved_conversations.server_key(path)
    assert len(lost) == 32
    assert not path.exists()
    assert len(saved_conversations.server_key(path)) == 32
    record_property("runs", KILLS + 1)


def test_a_full_disk_while_data_is_prepared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: Any
) -> None:
    """Parquet is written by Arrow, which no patch of Python's own calls reaches: its writer is what fails here."""
    import pyarrow.parquet as pq

    path = tmp_path / "data"
    old, new = make_catalog(12), make_catalog(40)
    save_data(path, old, make_interactions(), REPORT)
    write, faults = pq.write_table, 0
    for at in (1, 2):
        calls: list[int] = []

        def full(table: Any, where: Any, calls: list[int] = calls, at: int = at) -> None:
            calls.append(1)
            if len(calls) == at:
                Path(where).write_bytes(b"PAR1 half")
                raise OSError(errno.ENOSPC, "No space left on device")
            write(table, where)

        with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
            patch.setattr(pq, "write_table", full)
            save_data(path, new, make_interactions(n=40), REPORT)
        faults += 1
        assert load_data(path)[0].fingerprint == old.fingerprint
        assert beside(path) == []
    record_property("runs", faults)


@pytest.fixture
def jumping(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[float], None]]:
    """Sets the wall clock forward or back, in seconds; the monotonic clock goes on, as it does when one is set."""
    real, offset = time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: max(real() + offset[0], 0.0))
    yield lambda seconds: offset.__setitem__(0, seconds)


def test_a_clock_that_jumps_forgets_nobody_and_loses_nothing(
    jumping: Callable[[float], None], tmp_path: Path, record_property: Any
) -> None:
    sessions, chat = Sessions(10, 60), Chat(FakeRecommender(films()))  # type: ignore[arg-type]
    visit, store = sessions.get("one"), FeedbackLog(tmp_path / "f.sqlite")
    jumps = (0.0, 10.0 * 365 * 86_400, -86_400.0, -5.0 * 365 * 86_400, -1e12, 3_600.0)
    for number, jump in enumerate(jumps):
        jumping(jump)
        assert sessions.get("one") is visit
        found = list(chat.turn(visit, "something else" if number else "a comedy"))
        assert isinstance(found[0], Items)
        assert isinstance(found[-1], Done)
        assert not found[-1].stopped
        assert 0 <= found[-1].seconds < 60
        store.react("one", f"f{number}", "like", ("f1",))
    assert [one.item for one in read_reactions(store.path)] == [f"f{number}" for number in range(len(jumps))]
    assert store.lost == 0
    record_property("runs", len(jumps))


UNWRITABLE: dict[str, Callable[[Path], Path]] = {
    "a file where the folder should be": lambda path: (path.write_text(""), path)[1],
    "a folder of the kernel's": lambda path: Path("/proc/self/llmrec"),
    "a damaged entry": lambda path: path,
}


@pytest.mark.parametrize("name", UNWRITABLE)
def test_a_cache_that_cannot_be_written_costs_time_only(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: Any
) -> None:
    """File modes do not stop a test that runs as root, hence places where nobody can write."""
    model, _ = saved(tmp_path)
    monkeypatch.setenv("LLMREC_HOME", str(tmp_path / "good"))
    asked = Request(history=(0, 2), message="something funny", k=5)
    expected = recommender(model).recommend(asked)
    home = UNWRITABLE[name](tmp_path / "home")
    monkeypatch.setenv("LLMREC_HOME", str(home))
    if name == "a damaged entry":
        recommender(model)
        kept = home / "cache" / text_cache.FILE
        assert kept.stat().st_size > 1000, "nothing was kept: the test has nothing to damage"
        kept.write_bytes(b"no database" + kept.read_bytes()[11:])
    assert recommender(model).recommend(asked) == expected
    assert len(saved_conversations.server_key(home / "conversations.key")) == 32
    record_property("runs", 1)
