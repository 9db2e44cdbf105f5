"""The suite counts what the tests tried, and a promise that a test breaks is a violation, not a silence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmrec.errors import RequestError
from llmrec.eval.reliability import suite
from llmrec.eval.reliability.promises import Claim
from llmrec.eval.result_file import check_result

TOY = """
import os
import pytest
from hypothesis import given, settings, strategies as st


def test_holds(record_property):
    record_property("cases", 7)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_three(n):
    assert n


@settings(max_examples=25, deadline=None, database=None, derandomize=True)
@given(st.integers())
def test_examples(n):
    assert n == n


def test_breaks():
    assert os.environ.get("LLMREC_TEST_TOY") != "20"


@pytest.mark.skip(reason="no browser here")
def test_skipped():
    assert False
"""


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_toy.py").write_text(TOY)
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    monkeypatch.setattr(suite, "TESTS", tmp_path / "tests")
    monkeypatch.setattr(suite, "PROMISES", {
        1: Claim("holds", ("test_toy.py::test_holds", "test_toy.py::test_three", "test_toy.py::test_examples")),
        2: Claim("is not shown here", ("test_toy.py::test_skipped",)),
        3: Claim("has no such test", ("test_toy.py::test_gone",)),
    })  # fmt: skip
    monkeypatch.setattr(suite, "FAULTS", {
        "a kill": Claim("breaks when tried often", ("test_toy.py::test_breaks",), {"LLMREC_TEST_TOY": "20"}),
        "another": Claim("holds", ("test_toy.py::test_holds",)),
    })  # fmt: skip
    return tmp_path


def test_cases_violations_and_losses_are_counted(toy: Path) -> None:
    load = toy / "load.json"
    load.write_text(json.dumps({"load_seconds_p95": 0.25}))
    suite.PROMISES.pop(3)  # type: ignore[attr-defined]
    suite.run_reliability(toy / "out", {"load": load}, {"median_rise_wishes": 0.0})
    found = json.loads((toy / "out" / "reliability.json").read_text())
    check_result(found, "reliability")
    rows = {row["name"]: {name: one["mean"] for name, one in row["metrics"].items()} for row in found["rows"]}
    assert rows["promise 1"]["cases"] == 7 + 3 + 25
    assert rows["promise 2"] | {"seconds": 0} == {
        "cases": 0, "violations": 0, "tests_skipped": 1, "seconds": 0, "violation_rate": 0,
    }  # fmt: skip
    assert (rows["fault: a kill"]["losses"], rows["fault: another"]["runs"]) == (1, 7)
    assert rows["load"] == {"load_seconds_p95": 0.25}
    assert {one["name"]: one["value"] for one in found["targets"]} == {
        "promises_tested": 1, "violations": 0, "faults_injected": 8, "faults_with_loss": 1,
    }  # fmt: skip
    assert found["protocol"]["failed"] == {"fault: a kill": ["test_toy.py::test_breaks"]}
    low, high = next(row for row in found["rows"] if row["name"] == "promise 1")["metrics"]["violation_rate"]["ci95"]
    assert low == 0
    assert 0.05 < high < 0.15  # nothing in 35 cases: the rate may still be a tenth


def test_a_test_that_is_gone_is_an_error_and_no_success(toy: Path) -> None:
    with pytest.raises(RequestError, match="test_gone"):
        suite.run_reliability(toy / "out")
    assert not (toy / "out").exists()


def test_without_the_projects_tests_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "TESTS", tmp_path / "nowhere")
    with pytest.raises(RequestError, match="in a checkout"):
        suite.run_reliability(tmp_path)
