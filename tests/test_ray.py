"""The same ranking as a Ray Data job on two local workers."""

import os
import sys
from functools import partial
from pathlib import Path

import pytest
from test_batch import lines, many
from test_batch_faults import KILLS
from toy_ranking import load, make_world

from llmrec.batch import process_pool, ray_runner
from llmrec.batch.rank_file import Settings, rank_file
from llmrec.errors import RequestError

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'llmrec[ray]'")


class DiesOnce:
    """Loads the model; the first process that does so is killed while it ranks a part."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __call__(self, model, data):
        recommender = load(model, data)
        if not self.mark.exists():
            self.mark.touch()
            recommender.allowed = lambda request: os.kill(os.getpid(), 9)
        return recommender


@pytest.fixture(scope="module")
def cluster():
    path = {"env_vars": {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR", runtime_env=path)
    yield
    ray.shutdown()


def test_two_actors_make_the_bytes_of_one_process_and_a_dead_one_is_replaced(cluster, tmp_path):
    model = make_world(tmp_path / "world")
    source = lines(tmp_path / "in.jsonl", many(12))
    settings = Settings(model=model, part=2)
    rank_file(source, tmp_path / "one.parquet", settings, partial(process_pool.run_local, workers=1, loader=load))
    loader = DiesOnce(tmp_path / "mark")
    told = []
    report = rank_file(
        source, tmp_path / "ray.parquet", settings, partial(ray_runner.run_on_ray, workers=2, loader=loader),
        lambda *now: told.append(now),
    )  # fmt: skip
    assert loader.mark.exists()
    assert report.requests == 12 and told[-1] == (12, 12)
    assert (tmp_path / "ray.parquet").read_bytes() == (tmp_path / "one.parquet").read_bytes()


@pytest.mark.skipif(not KILLS, reason="ten seconds for a message: a part of `make faults-rank`")
def test_a_part_that_always_fails_is_said_in_one_line(cluster, tmp_path):
    model = make_world(tmp_path / "world")
    source = lines(tmp_path / "in.jsonl", many(4))
    with pytest.raises(RequestError, match="the Ray job failed: ") as error:
        runner = partial(ray_runner.run_on_ray, workers=1, loader=fails)
        rank_file(source, tmp_path / "out.parquet", Settings(model=model), runner)
    assert "no such luck" in str(error.value) and "\n" not in str(error.value)


def fails(model, data):
    raise RuntimeError("no such luck")
