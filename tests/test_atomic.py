"""All or nothing: faults, kills and rival writers at every step leave one whole artifact."""

import errno
import json
import os
import shutil
from contextlib import suppress
from pathlib import Path

import pytest
from toy_artifact import neighbours, save, word_of

from llmrec.storage import artifacts, atomic
from llmrec.storage.artifacts import write_artifact, write_bytes_atomic, write_json_atomic

EXCHANGE = pytest.mark.parametrize("exchange", [True, False], ids=["exchange", "aside"])


def without_exchange(monkeypatch, exchange: bool) -> None:
    if not exchange:
        monkeypatch.setattr(atomic, "_exchange", lambda first, second: False)


def trap(monkeypatch, at: int, act) -> list[str]:
    """Call `act` instead of the `at`-th of all calls that touch the disk; returns the calls seen."""
    calls: list[str] = []

    def wrap(owner, name):
        original = getattr(owner, name)

        def wrapped(*args, **kwargs):
            calls.append(name)
            if len(calls) == at:
                act()
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, wrapped)

    for owner, name in [(os, "fsync"), (os, "rename"), (os, "replace"), (atomic, "_exchange"), (atomic, "_put")]:
        wrap(owner, name)
    for owner, name in [
        (Path, "mkdir"),
        (Path, "write_bytes"),
        (Path, "write_text"),
        (artifacts, "sha256_file"),
    ]:
        wrap(owner, name)
    return calls


def no_space() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@EXCHANGE
@pytest.mark.parametrize("old", ["old", None])
def test_a_fault_at_any_write_keeps_the_old_artifact(tmp_path, monkeypatch, exchange, old):
    path = tmp_path / "model"
    faults = 0
    for at in range(1, 100):
        if old:
            save(path, old)
        elif path.exists():
            shutil.rmtree(path)
        with monkeypatch.context() as patch:
            without_exchange(patch, exchange)
            calls = trap(patch, at, no_space)
            try:
                save(path, "new")
            except OSError as error:
                assert error.errno == errno.ENOSPC
                faults += 1
            else:
                break
        assert neighbours(path) == [], f"leftovers after a fault at call {at} ({calls[-1]})"
        if path.exists():  # a fault after the swap may leave the new one, whole
            assert word_of(path) in {"old", "new"}
        else:
            assert old is None
    assert len(calls) < at and faults >= 15


@EXCHANGE
def test_a_writer_killed_at_any_moment_loses_nothing(tmp_path, monkeypatch, exchange):
    path = tmp_path / "model"
    seen = set()
    for at in range(1, 100):
        save(path, "old")
        child = os.fork()
        if child == 0:  # the child dies without any clean-up, as by kill -9
            without_exchange(monkeypatch, exchange)
            trap(monkeypatch, at, lambda: os._exit(9))
            with suppress(BaseException):
                save(path, "new")
            os._exit(0)
        died = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
        seen.add(word_of(path))
        save(path, "next")
        assert word_of(path) == "next" and neighbours(path) == []
        if not died:
            break
    assert seen == {"old", "new"} and at > 15


def test_what_was_moved_aside_survives_when_moving_back_fails_too(tmp_path, monkeypatch):
    path = tmp_path / "model"
    save(path, "old")
    with monkeypatch.context() as patch:
        without_exchange(patch, False)
        rename, calls = os.rename, []

        def only_once(*args):
            calls.append(args)
            return rename(*args) if len(calls) == 1 else no_space()

        patch.setattr(os, "rename", only_once)
        with pytest.raises(OSError, match="No space"):
            save(path, "new")
    assert not path.exists() and len(calls) == 3
    assert word_of(path) == "old", "the next reader moves it back"
    save(path, "next")
    assert word_of(path) == "next" and neighbours(path) == []


def test_two_writers_at_once_leave_one_whole_artifact(tmp_path):
    path = tmp_path / "model"
    with write_artifact(path, "toy", {}, {"word": "outer"}) as directory:
        (directory / "nested").mkdir()
        (directory / "a.json").write_text('"outer"')
        save(path, "inner")  # does not sweep away the directory of a living writer
        assert word_of(path) == "inner"
        (directory / "nested" / "b.txt").write_text("outer")
    assert word_of(path) == "outer" and neighbours(path) == []


def test_an_exception_inside_keeps_the_old_artifact(tmp_path):
    save(tmp_path / "model", "old")
    with pytest.raises(KeyboardInterrupt), write_artifact(tmp_path / "model", "toy") as directory:
        (directory / "a.json").write_text("half")
        raise KeyboardInterrupt
    assert word_of(tmp_path / "model") == "old" and neighbours(tmp_path / "model") == []


def test_single_files_are_replaced_whole(tmp_path, monkeypatch):
    path = tmp_path / "result.json"
    write_json_atomic(path, {"a": [1, 2.5, "é"]})
    assert json.loads(path.read_text()) == {"a": [1, 2.5, "é"]}
    with pytest.raises(ValueError, match="JSON"):
        write_json_atomic(path, {"a": float("nan")})
    for at in (1, 2):
        with monkeypatch.context() as patch:
            trap(patch, at, no_space)
            with pytest.raises(OSError, match="No space"):
                write_bytes_atomic(path, b"new")
        assert json.loads(path.read_text())["a"][0] == 1 and neighbours(path) == []
