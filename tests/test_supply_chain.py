"""Promise 25, as far as it can be seen without a network; `make audit` asks the vulnerability database as well."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
FLOORS = {"gradio": "6.31", "transformers": "5", "torch": "2.10"}  # below these there are published vulnerabilities
REFUSED = {"litellm", "lightning", "pytorch-lightning", "torchtune", "recbole", "recommenders", "seaborn", "rank-bm25"}


def requirements() -> list[Requirement]:
    extras = PROJECT["optional-dependencies"].values()
    return [Requirement(one) for one in [*PROJECT["dependencies"], *(one for extra in extras for one in extra)]]


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    plain = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.+!]+", line) for line in plain), "only exact versions belong here"
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in plain)}


def locked() -> dict[str, tuple[str, list[str]]]:
    """name -> (version, sha256 digests) of constraints-hashed.txt."""
    out: dict[str, tuple[str, list[str]]] = {}
    text = (ROOT / "constraints-hashed.txt").read_text("utf-8").replace("\\\n", " ")
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            head, *hashes = line.split("--hash=sha256:")
            name, _, version = head.strip().partition("==")
            out[canonicalize_name(name)] = (version, [one.strip() for one in hashes])
    return out


def test_every_requirement_is_pinned_above_its_floor() -> None:
    pinned = pins()
    for one in requirements():
        name = canonicalize_name(one.name)
        assert name in pinned, f"{one} has no exact version in constraints.txt"
        assert pinned[name] in one.specifier, f"{name}=={pinned[name]} is not {one.specifier}"
    for name, floor in FLOORS.items():
        assert Version(pinned[name]) >= Version(floor)
        lowest = next(one for one in requirements() if one.name == name).specifier
        major, _, minor = floor.partition(".")
        older = f"{major}.{int(minor) - 1}.99" if minor else f"{int(major) - 1}.999"
        assert older not in lowest, f"{name} {older} would be taken"


def test_every_pin_has_hashes_and_nothing_else_is_installed_with_it() -> None:
    hashed, pinned = locked(), pins()
    assert set(hashed) == set(pinned)
    for name, (version, digests) in hashed.items():
        assert version == pinned[name], f"{name} is {version} with hashes and {pinned[name]} without"
        assert digests, f"{name} has no hash"
        assert all(re.fullmatch(r"[0-9a-f]{64}", one) for one in digests)


def test_nothing_that_was_compromised_is_required() -> None:
    names = {canonicalize_name(one.name) for one in requirements()} | set(pins())
    assert not names & REFUSED
    assert not [name for name in pins() if name.startswith(("nvidia-", "cuda", "triton"))], "a torch with CUDA"


@pytest.mark.skipif("LLMREC_TEST_AUDIT" not in os.environ, reason="LLMREC_TEST_AUDIT is not set; `make audit` runs it")
def test_the_audit_is_clean() -> None:
    """bandit, deptry and, where the database of vulnerabilities can be reached, pip-audit."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "audit.py")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4_000:]


def test_every_waiver_of_the_audit_says_why() -> None:
    import audit

    assert all(len(reason.split()) >= 5 for reason in audit.WAIVED.values())
    for file, _ in audit.WAIVED:
        assert (ROOT / file).is_file(), f"{file} is gone: so is its waiver"
