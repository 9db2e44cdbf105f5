"""One process writes to a place at a time: the second one is told who does, and the dead block nobody."""

import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from toy_files import saved

from llmrec.batch.rank_file import Settings, rank_file
from llmrec.data.catalog import Item
from llmrec.data.dataset import load_data
from llmrec.errors import ArtifactError
from llmrec.finetune import pipeline
from llmrec.finetune.export import export_weights
from llmrec.finetune.refresh import refresh_model
from llmrec.lifecycle.add_items import add_items_to_model
from llmrec.lifecycle.remove_items import remove_items_from_model
from llmrec.storage import locks
from llmrec.storage.locks import output_lock

HOLDER = """
import sys, time
from pathlib import Path
from llmrec.storage.locks import output_lock

with output_lock(Path(sys.argv[1]), "training into"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """(model directory, data directory)."""
    return saved(tmp_path_factory.mktemp("world"))


def test_another_process_is_named_and_a_dead_one_blocks_nobody(tmp_path):
    place = tmp_path / "new" / "model"
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(place)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        (tmp_path / "link").symlink_to(place.parent)
        for name in (place, tmp_path / "link" / "model"):
            with pytest.raises(ArtifactError) as refused, output_lock(name, "refreshing"):
                pass
            said = str(refused.value)
            assert said.startswith(f"another process is training into {name} (process {process.pid}, since 20")
            assert said.endswith("; wait for it to end, or give another --out") and "\n" not in said
    finally:
        process.kill()
        process.communicate()
    assert [one.name for one in place.parent.iterdir()] == [".model.lock"]  # as the kill left it
    with output_lock(place):
        pass
    assert not list(place.parent.iterdir())


def test_whatever_stands_in_the_file_the_refusal_is_one_line(tmp_path):
    for text in (b"", b"\xff", b"[]", b'{"pid": "x"}', b'{"pid": 1, "since": 1e99, "host": 1, "doing": 2}'):
        with output_lock(tmp_path / "model"):
            (tmp_path / ".model.lock").write_bytes(text)
            with (
                pytest.raises(ArtifactError, match=r"another process is writing to .*model; wait"),
                output_lock(tmp_path / "model"),
            ):
                pass


def test_never_two_at_once_and_nothing_is_left(tmp_path):
    inside, most, entered = [0], [0], [0]
    deadline = time.monotonic() + 60

    def work() -> None:
        own = 0
        while own < 50 and time.monotonic() < deadline:
            try:
                with output_lock(tmp_path / "model"):
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                    entered[0] += 1
                    inside[0] -= 1
                    own += 1
            except ArtifactError:
                time.sleep(0)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] == 1 and entered[0] == 200 and not list(tmp_path.iterdir())


def test_the_lock_of_a_file_that_its_holder_removed_is_not_taken_for_the_lock(tmp_path, monkeypatch):
    """Between our open and our lock the holder may end, and another process may make the file anew."""
    path, flock, others = tmp_path / ".model.lock", locks.fcntl.flock, []

    def late(handle, how):
        if not others:
            path.unlink()
            others.append(os.open(path, os.O_RDWR | os.O_CREAT))
            flock(others[0], how)
        flock(handle, how)

    monkeypatch.setattr(locks, "fcntl", SimpleNamespace(**{**vars(locks.fcntl), "flock": late}))
    with pytest.raises(ArtifactError, match="another process"), output_lock(tmp_path / "model"):
        pass
    os.close(others[0])


def verbs(world, out: Path, other: Path):
    """(name, option, place, what writes to it) of everything that writes a model, data or ranked items."""
    from typer.testing import CliRunner

    from llmrec.app.cli.main import app

    model, data = world
    catalog, log, _ = load_data(data)

    def command(*words: object) -> None:
        result = CliRunner().invoke(app, [str(word) for word in words])
        raise result.exception or AssertionError(result.output)

    (other.parent / "in.jsonl").write_text('{"request_id": 1, "items": ["i0"]}\n')
    (other.parent / "items.csv").write_text("item_id,title\na,A\nb,B\n")
    (other.parent / "log.csv").write_text("user_id,item_id,at\nu0,i1,900000\n")
    tables = ("--interactions", other.parent / "log.csv", "--time", "at")
    new = [Item("n1", "A new tale", "", {})]
    removed = partial(remove_items_from_model, model, catalog, log, ["i1"])
    added = partial(add_items_to_model, model, new)
    yield "refresh", "--out", out, lambda: refresh_model(model, data, out)
    yield "items remove", "--out", out, lambda: removed(out, other)
    yield "items remove data", "--out-data", out, lambda: removed(other, out)
    yield "items add", "--out", out, lambda: added(out, other)
    yield "items add data", "--out-data", out, lambda: added(other, out)
    yield "export", "--out", out, lambda: export_weights(model, out)
    yield "append", "--out", out, lambda: command("data", "append", data, *tables, "--out", out)
    prepare = ("data", "prepare", "--source", "table", "--items", other.parent / "items.csv")
    yield "prepare", "--out", out, lambda: command(*prepare, *tables, "--out", out)
    yield "rank", "--output", out, lambda: rank_file(other.parent / "in.jsonl", out, Settings(model=model))


def test_every_verb_that_writes_refuses_what_another_process_writes(world, tmp_path):
    out, other = tmp_path / "out.parquet", tmp_path / "other"
    for name, option, place, write in verbs(world, out, other):
        with output_lock(place, "training into"), pytest.raises(ArtifactError) as refused:
            write()
        said = str(refused.value)
        assert f"another process is training into {place} (process {os.getpid()}, since" in said, name
        assert said.endswith(f"give another {option}"), name
        left = {one.name for one in tmp_path.iterdir()} - {"in.jsonl", "items.csv", "log.csv"}
        assert not left, (name, left)


@pytest.fixture
def training(world, monkeypatch):
    """Starts a training, and notes whether it came as far as its base model."""
    reached: list[str] = []

    def obtain(name: str) -> None:
        reached.append(name)
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "find_base_model", lambda name: SimpleNamespace(config=None, tokenizer=None))
    monkeypatch.setattr(pipeline.preflight, "check_run", lambda *given: None)
    monkeypatch.setattr(pipeline, "fetch_base_model", obtain)

    def start(out: Path, work: Path) -> list[str]:
        reached.clear()
        with suppress(KeyboardInterrupt):
            pipeline.train_model(world[1], "smoke", out, work=work)
        return list(reached)

    return start


def test_two_trainings_share_neither_model_nor_work(training, tmp_path, monkeypatch):
    out, work = tmp_path / "model", tmp_path / "work"
    for name in ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert training(out, work)
    for place, option in ((out, "--out"), (work, "--work")):
        with (
            output_lock(place, "training into"),
            pytest.raises(ArtifactError, match=f"{place.name} .*another {option}$"),
        ):
            training(out, work)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["RANK", "OMPI_COMM_WORLD_RANK"])
def test_processes_of_one_distributed_training_share_what_the_first_one_holds(training, name, tmp_path, monkeypatch):
    out, work = tmp_path / "model", tmp_path / "work"
    monkeypatch.setenv(name, "0")
    with output_lock(out, "training into"), pytest.raises(ArtifactError, match="another process is training"):
        training(out, work)
    monkeypatch.setenv(name, "1")
    with output_lock(out, "training into"), output_lock(work, "training in"):
        assert training(out, work)
