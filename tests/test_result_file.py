import copy
import json
import os
import platform
import socket
import subprocess

import numpy as np
import pyarrow.parquet as pq
import pytest

import llmrec
from llmrec.errors import DataError
from llmrec.eval import result_file
from llmrec.eval.result_file import Estimate, Row, Target, check_result, provenance, write_per_user, write_result

ROWS = [
    Row("popularity", {"ndcg@10": Estimate(0.1234567891, (0.1, 0.15))}),
    Row("hybrid", {"ndcg@10": Estimate(np.float32(0.25), (0.2, 0.3))}),
]
TARGETS = [Target("hybrid_over_popularity", 2.0), Target("not_measured", None)]


@pytest.fixture
def where():
    return provenance(seed=3, command="llmrec eval --suite accuracy", seconds=12.3456789, n=943)


@pytest.fixture
def value(tmp_path, where):
    path = tmp_path / "deep" / "accuracy-toy.json"
    write_result(path, "accuracy", "toy", {"seen_filtered": True}, ROWS, TARGETS, where)
    return json.loads(path.read_text())


def test_a_result_has_the_one_form(value):
    assert set(value) == {"suite", "dataset", "protocol", "rows", "targets", "provenance"}
    assert value["rows"][0] == {
        "name": "popularity",
        "metrics": {"ndcg@10": {"mean": 0.123457, "ci95": [0.1, 0.15]}},
    }
    assert value["targets"] == [
        {"name": "hybrid_over_popularity", "value": 2.0},
        {"name": "not_measured", "value": None},
    ]
    assert set(value["provenance"]) == {"commit", "seed", "command", "seconds", "n", "versions", "machine"}
    assert value["provenance"]["seconds"] == 12.345679 and value["protocol"] == {"seen_filtered": True}
    check_result(value)


def test_the_same_result_gives_the_same_bytes(tmp_path, where):
    for name in ("a", "b"):
        write_result(tmp_path / f"{name}.json", "accuracy", "toy", "whole catalogue", ROWS, TARGETS, where)
    first = (tmp_path / "a.json").read_bytes()
    assert first == (tmp_path / "b.json").read_bytes() and first.endswith(b"}\n")
    assert list(json.loads(first)) == sorted(json.loads(first))


def change(value, path, new):
    changed = copy.deepcopy(value)
    *way, last = path
    place = changed
    for step in way:
        place = place[step]
    if new is KeyError:
        del place[last]
    else:
        place[last] = new
    return changed


@pytest.mark.parametrize(
    ("path", "new", "says"),
    [
        (["suite"], KeyError, "lacks suite"),
        (["suite"], "", "suite is ''"),
        (["protocol"], {}, "protocol is {}"),
        (["rows"], {}, "rows is {}"),
        (["rows", 0], "popularity", "a row lacks metrics, name"),
        (["rows", 0, "name"], 7, "name of a row is 7"),
        (["rows", 0, "metrics"], [], "metrics of popularity is"),
        (["rows", 1, "name"], "popularity", "names of rows"),
        (["rows", 0, "metrics", "ndcg@10"], 0.3, "ndcg@10 of popularity lacks ci95, mean"),
        (["rows", 0, "metrics", "ndcg@10", "mean"], None, "ndcg@10 of popularity is None"),
        (["rows", 0, "metrics", "ndcg@10", "mean"], float("nan"), "ndcg@10 of popularity is nan"),
        (["rows", 0, "metrics", "ndcg@10", "mean"], True, "ndcg@10 of popularity is True"),
        (["rows", 0, "metrics", "ndcg@10", "ci95"], [0.2, 0.1], "ci95 of ndcg@10"),
        (["rows", 0, "metrics", "ndcg@10", "ci95"], [0.2], "ci95 of ndcg@10"),
        (["targets", 0, "value"], "2", "hybrid_over_popularity is '2'"),
        (["targets", 1, "name"], "hybrid_over_popularity", "names of targets"),
        (["provenance", "command"], "python x.py", "command is 'python x.py'"),
        (["provenance", "commit"], 5, "commit is 5"),
        (["provenance", "seed"], "3", "seed is '3'"),
        (["provenance", "seconds"], -1, "seconds is -1"),
        (["provenance", "n"], 1.5, "n is 1.5"),
        (["provenance", "versions", "torch"], KeyError, "versions lacks torch"),
        (["provenance", "machine", "cores"], KeyError, "machine lacks cores"),
    ],
)
def test_every_departure_from_the_form_is_named(value, path, new, says):
    with pytest.raises(DataError) as error:
        check_result(change(value, path, new))
    assert says in str(error.value) and "\n" not in str(error.value)


def test_a_published_file_must_answer_its_targets(tmp_path, where):
    with pytest.raises(DataError, match=r"hybrid_over_best_baseline_ndcg10.*hybrid_over_sasrec_recall10"):
        write_result(tmp_path / "accuracy-ml-100k.json", "accuracy", "ml-100k", "all", ROWS, TARGETS, where)
    asked = [Target(name, None) for name in result_file.TARGETS["accuracy-ml-100k"]]
    write_result(tmp_path / "accuracy-ml-100k.json", "accuracy", "ml-100k", "all", ROWS, asked, where)


def test_results_in_the_repository_have_the_form():
    folder = result_file.Path(llmrec.__file__).parents[1] / "eval" / "results"
    for path in folder.glob("*.json"):
        check_result(json.loads(path.read_text()), path.stem)


@pytest.mark.parametrize("broken", [float("inf"), float("nan")])
def test_a_bad_result_leaves_the_old_file(tmp_path, where, broken):
    path = tmp_path / "x.json"
    write_result(path, "accuracy", "toy", "all", ROWS, TARGETS, where)
    old = path.read_bytes()
    with pytest.raises(DataError):
        write_result(path, "accuracy", "toy", "all", ROWS, [Target("t", broken)], where)
    assert path.read_bytes() == old and [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_a_full_disk_leaves_the_old_file(tmp_path, where, monkeypatch):
    path = tmp_path / "x.json"
    write_result(path, "accuracy", "toy", "all", ROWS, TARGETS, where)
    old = path.read_bytes()

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_result(path, "accuracy", "toy", "all", ROWS[:1], TARGETS, where)
    monkeypatch.undo()
    assert path.read_bytes() == old


def test_provenance_says_what_ran_where_and_no_names(where):
    assert where.versions["python"] == platform.python_version() and where.versions["numpy"] == np.__version__
    assert where.versions["llmrec"].startswith(llmrec.__version__)
    assert where.machine["cores"] >= 1 and where.machine["cpu"]
    told = json.dumps(vars(where))
    assert socket.gethostname() not in told.replace(where.machine["cpu"], "")


def test_the_command_is_taken_from_this_process(monkeypatch):
    monkeypatch.setattr("sys.argv", ["/some/where/bin/llmrec", "eval", "--out", "my dir"])
    assert provenance(0, None, 1.0, 1).command == "llmrec eval --out 'my dir'"


def git(root, *args):
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *who, *args], cwd=root, check=True, capture_output=True, text=True).stdout.strip()


def test_commit_is_ours_or_none(tmp_path, monkeypatch):
    package = tmp_path / "llmrec"
    package.mkdir()
    (package / "__init__.py").write_text("x = 1\n")
    monkeypatch.setattr(llmrec, "__file__", str(package / "__init__.py"))
    assert provenance(0, "llmrec x", 1.0, 1).commit is None
    git(tmp_path, "init", "-q")
    (tmp_path / "other").write_text("y")
    git(tmp_path, "add", "other")
    git(tmp_path, "commit", "-q", "-m", "someone else's project")
    assert provenance(0, "llmrec x", 1.0, 1).commit is None  # an installed copy inside another repository
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "ours")
    clean = provenance(0, "llmrec x", 1.0, 1)
    assert clean.commit == git(tmp_path, "rev-parse", "HEAD") and clean.versions["llmrec"] == llmrec.__version__
    (package / "__init__.py").write_text("x = 2\n")
    assert provenance(0, "llmrec x", 1.0, 1).versions["llmrec"] == f"{llmrec.__version__}+dirty"


def test_per_user_values_stay_out_of_git(tmp_path):
    git(tmp_path, "init", "-q")
    path = write_per_user(tmp_path / "out", "toy", {"user": np.arange(3), "sasrec ndcg@10": np.array([0.0, 1.0, 0.5])})
    assert path == tmp_path / "out" / "per_user" / "per-user-toy.parquet"
    table = pq.read_table(path)
    assert table.column_names == ["user", "sasrec ndcg@10"]
    assert table["sasrec ndcg@10"].to_pylist() == [0.0, 1.0, 0.5]
    assert git(tmp_path, "status", "--porcelain") == ""
