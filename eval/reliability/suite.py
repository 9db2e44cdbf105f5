"""The reliability suite: runs the tests of every promise, counts cases and violations, and injects faults.

It needs the project's tests, so it runs in a checkout. A case is one input that a test tried. A test reports the number
of cases as the JUnit property `cases` (`runs` for faults), hypothesis counts its examples, and a test without either
counts as one case. A promise whose tests were all skipped counts as untested.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from scipy.stats import beta

from llmrec.errors import RequestError
from llmrec.eval.reliability.faults import FAULTS
from llmrec.eval.reliability.hidden_instructions import measure_model
from llmrec.eval.reliability.promises import PROMISES, Claim
from llmrec.eval.result_file import publish

TESTS = Path(__file__).resolve().parents[2] / "tests"
_BUILD = TESTS.parent / "build"  # output of `make soak` and `make soak-shipped`
LOADS = {"load": _BUILD / "load.json", "load, shipped model": _BUILD / "load-shipped.json"}
_SECONDS = 3 * 3600
Metrics = dict[str, tuple[float, float, float]]


@dataclass(frozen=True)
class ClaimResult:
    """The outcome of one claim's tests.

    Attributes:
        cases: number of inputs tried by the tests that ran.
        failed: node ids of the tests that failed.
        skipped: node ids of the tests that did not run.
        seconds: total time of the tests.
    """

    cases: int
    failed: tuple[str, ...]
    skipped: tuple[str, ...]
    seconds: float

    @property
    def tested(self) -> bool:
        """True if any test ran."""
        return self.cases > 0 or bool(self.failed)


def run_reliability_suite(model: str | Path | None, out: Path, limit: int | None = None) -> None:
    """Run the whole suite: promises and faults, hidden instructions on a saved model, and the load test results.

    Args:
        model: directory of the model on which hidden instructions are tried, None for the shipped one.
        out: directory of the result.
        limit: see `run_reliability`.

    Raises:
        RequestError: this installation has no tests beside it.
        ArtifactError: the model does not exist.
    """
    _in_a_checkout()
    loads = {name: path for name, path in LOADS.items() if path.is_file()}
    run_reliability(out, loads, measure_model(model), limit)


def run_reliability(
    out: Path,
    loads: Mapping[str, Path] | None = None,
    movement: Mapping[str, float] | None = None,
    limit: int | None = None,
) -> None:
    """Run all tests of all promises and faults, and write `reliability.json`.

    Args:
        out: directory of the result.
        loads: files written by `tests/load_app.py`, by name, to be reported with the promises; None for none.
        movement: measures of hidden instructions on the served model (see `hidden_instructions`), None for none.
        limit: run only the first `limit` promises and faults, to try out the suite; the targets then cover only these.

    Raises:
        RequestError: this installation has no tests beside it.
    """
    _in_a_checkout()
    started = time.monotonic()
    claims = {f"promise {number}": claim for number, claim in list(PROMISES.items())[:limit]}
    faults = {f"fault: {name}": claim for name, claim in list(FAULTS.items())[:limit]}
    # For promises, the tests try what the quick suite tries; process kills are counted with the faults.
    shown = {**run_claim_tests(claims, without="LLMREC_TEST_KILLS"), **run_claim_tests(faults)}
    rows = {name: _metrics(one, name in faults) for name, one in shown.items()}
    rows |= {name: _plain(json.loads(load.read_text("utf-8"))) for name, load in (loads or {}).items()}
    rows |= {"hidden instructions, served model": _plain(movement)} if movement else {}
    publish(
        out / "reliability.json",
        "toy world",
        _protocol({**claims, **faults}, shown),
        rows,
        targets({name: shown[name] for name in claims}, {name: shown[name] for name in faults}),
        0,
        "llmrec eval --suite reliability",
        time.monotonic() - started,
        sum(one.cases for one in shown.values()),
    )


def _in_a_checkout() -> None:
    if not TESTS.is_dir():
        raise RequestError(f"no tests at {TESTS}: the suite reliability runs in a checkout of the project")


def targets(promises: Mapping[str, ClaimResult], faults: Mapping[str, ClaimResult]) -> dict[str, float | None]:
    """The four numbers that the file must answer."""
    return {
        "promises_tested": float(sum(one.tested for one in promises.values())),
        "violations": float(sum(len(one.failed) for one in promises.values())),
        "faults_injected": float(sum(one.cases for one in faults.values())),
        "faults_with_loss": float(sum(len(one.failed) for one in faults.values())),
    }


def run_claim_tests(claims: Mapping[str, Claim], without: str = "") -> dict[str, ClaimResult]:
    """Run the tests of claims, each test once even if several claims name it, and assign the outcomes to the claims."""
    more = {name: value for claim in claims.values() for name, value in claim.more.items() if name != without}
    tests = list(dict.fromkeys(test for claim in claims.values() for test in claim.tests))
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
        done = subprocess.run(
            [*command, "-o", "junit_family=xunit2", *(f"tests/{test}" for test in tests)],
            cwd=TESTS.parent, env={**os.environ, **more}, timeout=_SECONDS, check=False, capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode not in (0, 1) or not report.is_file():  # 1: some failed; any other code: not all ran
            said = " ".join((done.stdout + done.stderr).split())[-300:]
            raise RequestError(f"pytest ended with {done.returncode}: {said}")
        outcomes = read_junit_report(report)
    return {name: _sorted(claim, outcomes) for name, claim in claims.items()}


@dataclass(frozen=True)
class TestOutcome:
    """The outcome of one test function over all its parameters."""

    cases: int
    failed: bool
    skipped: bool
    seconds: float


def read_junit_report(report: Path) -> dict[str, TestOutcome]:
    """Read outcomes by node id without parameters (`file.py::test`) from pytest's JUnit report.

    Args:
        report: the file written by pytest in the xunit2 family.
    """
    root = ElementTree.parse(report).getroot()
    examples = _examples(root)
    out: dict[str, TestOutcome] = {}
    for case in root.iter("testcase"):
        name = _node(case.get("classname", ""), case.get("name", ""))
        skipped = case.find("skipped") is not None
        failed = case.find("failure") is not None or case.find("error") is not None
        said = [int(one.get("value", "0")) for one in case.iter("property") if one.get("name") in {"cases", "runs"}]
        full = f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name')}"
        cases = 0 if skipped else sum(said) or examples.get(full, 0) or 1
        old = out.get(name, TestOutcome(0, False, True, 0.0))
        seconds = old.seconds + float(case.get("time", "0"))
        out[name] = TestOutcome(old.cases + cases, old.failed or failed, old.skipped and skipped, seconds)
    return out


def _node(module: str, test: str) -> str:
    parts = module.split(".")
    parts = parts[1:] if parts[0] == "tests" else parts
    return f"{'/'.join(parts)}.py::{test.partition('[')[0]}"


def _examples(root: ElementTree.Element) -> Counter[str]:
    """Number of examples generated by hypothesis, by node id; hypothesis adds its statistics to the report itself."""
    out: Counter[str] = Counter()
    prefix = "hypothesis-statistics-"
    for one in root.iter("property"):
        name = one.get("name", "")
        if name.startswith(prefix):
            text = base64.b64decode(one.get("value", "")).decode("utf-8", "replace")
            out[name.removeprefix(prefix)] += sum(map(int, re.findall(r"(\d+) passing", text)))
    return out


def _sorted(claim: Claim, outcomes: Mapping[str, TestOutcome]) -> ClaimResult:
    found = {test: outcomes.get(test) for test in claim.tests}
    ran = [one for one in found.values() if one is not None]
    return ClaimResult(
        sum(one.cases for one in ran),
        tuple(test for test, one in found.items() if one is not None and one.failed),
        tuple(test for test, one in found.items() if one is None or one.skipped),
        sum(one.seconds for one in ran),
    )


def _metrics(shown: ClaimResult, fault: bool) -> Metrics:
    """Counts, and the rate of violations with its exact (Clopper-Pearson) 95 % interval over the cases."""
    bad, cases = len(shown.failed), max(shown.cases, len(shown.failed))
    low = float(beta.ppf(0.025, bad, cases - bad + 1)) if bad else 0.0
    high = float(beta.ppf(0.975, bad + 1, cases - bad)) if bad < cases else 1.0
    counted = {"runs" if fault else "cases": shown.cases, "losses" if fault else "violations": bad}
    rate = {"loss_rate" if fault else "violation_rate": (bad / max(cases, 1), low, high)}
    return {**_plain({**counted, "tests_skipped": len(shown.skipped), "seconds": round(shown.seconds, 1)}), **rate}


def _plain(values: Mapping[str, float]) -> Metrics:
    return {name: (float(value), float(value), float(value)) for name, value in values.items()}


def _protocol(claims: Mapping[str, Claim], shown: Mapping[str, ClaimResult]) -> dict[str, object]:
    return {
        "method": "every test that the table of promises names, on the toy world; a violation is a test that fails",
        "claims": {name: claim.words for name, claim in claims.items()},
        "tests": {name: list(claim.tests) for name, claim in claims.items()},
        "failed": {name: list(one.failed) for name, one in shown.items() if one.failed},
        "skipped": {name: list(one.skipped) for name, one in shown.items() if one.skipped},
    }
