"""Ranking is killed at random moments, in other processes, and comes out the same."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
from test_batch import lines, many
from toy_ranking import load, make_world

from llmrec.batch import process_pool
from llmrec.batch.rank_file import Settings, rank_file

SCRIPT = Path(__file__).with_name("toy_ranking.py")
KILLS = int(os.environ.get("LLMREC_TEST_RANK_KILLS", "0"))
REQUESTS, PART, PAUSE = 48, 2, 0.1


def start(world: Path, source: Path, target: Path, workers: int, pause: float = 0.0) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, SCRIPT, world, source, target, workers, PART, pause]
    return subprocess.Popen([str(word) for word in command], env=environment, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes]) -> None:
    _, said = process.communicate(timeout=200)
    assert process.returncode == 0, said.decode()[-2000:]


def parts(target: Path) -> int:
    work = target.parent / f".{target.name}.parts"
    return len(list(work.glob("part-*"))) if work.is_dir() else 0


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def whole(world, tmp_path_factory):
    """The input, and what an uninterrupted run in this process makes of it."""
    folder = tmp_path_factory.mktemp("whole")
    source = lines(folder / "in.jsonl", many(REQUESTS))
    settings = Settings(model=world, part=REQUESTS)
    rank_file(source, folder / "out.parquet", settings, partial(process_pool.run_local, workers=1, loader=load))
    return source, (folder / "out.parquet").read_bytes()


@pytest.mark.skipif(not KILLS, reason="LLMREC_TEST_RANK_KILLS says how many kills; `make faults-rank` tries twenty")
def test_kill_9_at_random_moments_loses_and_doubles_nothing(world, whole, tmp_path, record_property):
    source, expected = whole
    rng = random.Random(0)
    target = tmp_path / "out.parquet"
    killed = 0
    for kill in range(KILLS):
        if target.exists():
            target.unlink()
        workers = 1 + kill % 2
        process = start(world, source, target, workers, PAUSE)
        before = parts(target)
        # not before it works, or most kills would hit the start of Python; some while it reads what is there
        until = time.monotonic() + 120
        while parts(target) == before and process.poll() is None and time.monotonic() < until and kill % 5 != 4:
            time.sleep(0.005)
        time.sleep(rng.random() * 0.4)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        killed += process.returncode == -signal.SIGKILL
    assert killed >= KILLS / 2
    target.unlink(missing_ok=True)
    finish(start(world, source, target, 1))
    assert target.read_bytes() == expected
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.parquet"]
    record_property("runs", KILLS)


def test_processes_end_with_the_one_that_started_them_and_make_the_same_bytes(world, whole, tmp_path):
    source, expected = whole
    target = tmp_path / "out.parquet"
    process = start(world, source, target, 2, PAUSE)
    while not parts(target):
        assert process.poll() is None
        time.sleep(0.01)
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 2
    process.kill()
    process.communicate(timeout=60)
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive
    done = parts(target)
    settings = Settings(model=world, part=PART)
    rank_file(source, target, settings, partial(process_pool.run_local, workers=1, loader=load))
    assert done and target.read_bytes() == expected
    found = [row["request_id"] for row in pq.read_table(target, columns=["request_id"]).to_pylist()]
    assert list(dict.fromkeys(found)) == [json.loads(line)["request_id"] for line in source.read_text().splitlines()]
