"""Promise 25, as far as it can be seen without a network; `make audit` asks the vulnerability database as well."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
FLOORS = {"gradio": "6.31", "transformers": "5", "torch": "2.10"}  # below these there are published vulnerabilities
REFUSED = {"litellm", "lightning", "pytorch-lightning", "torchtune", "recbole", "recommenders", "seaborn", "rank-bm25"}


def requirements() -> list[Requirement]:
    extras = PROJECT["optional-dependencies"].values()
    return [Requirement(one) for one in [*PROJECT["dependencies"], *(one for extra in extras for one in extra)]]


def lines(name: str) -> list[str]:
    """The requirements of a file, each in one line."""
    text = (ROOT / name).read_text("utf-8").replace("\\\n", " ")
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def pins() -> dict[str, str]:
    plain = [Requirement(line) for line in lines("constraints.txt")]
    assert all(re.fullmatch(r"==[\w.+!]+", str(one.specifier)) for one in plain), "only exact versions belong here"
    return {canonicalize_name(one.name): str(one.specifier).removeprefix("==") for one in plain}


def locked() -> dict[str, tuple[str, list[str]]]:
    """name -> (version, sha256 digests) of constraints-hashed.txt."""
    out: dict[str, tuple[str, list[str]]] = {}
    for line in lines("constraints-hashed.txt"):
        head, *hashes = line.split("--hash=sha256:")
        one = Requirement(head)
        version = str(one.specifier).removeprefix("==")
        out[canonicalize_name(one.name)] = (version, [digest.strip() for digest in hashes])
    return out


def installed_on(python: str, file: str) -> set[str]:
    """The names that a file of pins installs on a Python, by its markers."""
    environment = {"python_version": python, "python_full_version": f"{python}.1", "extra": ""}
    named = [Requirement(line.split("--hash")[0]) for line in lines(file)]
    return {canonicalize_name(one.name) for one in named if one.marker is None or one.marker.evaluate(environment)}


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


def supported() -> list[str]:
    """The Python versions that the project names."""
    found = [re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", one) for one in PROJECT["classifiers"]]
    return [match[1] for match in found if match]


def test_the_named_pythons_are_the_allowed_ones() -> None:
    assert supported() == ["3.11", "3.12", "3.13", "3.14"]
    allowed = SpecifierSet(PROJECT["requires-python"])
    assert [f"3.{minor}" for minor in range(9, 15) if f"3.{minor}.9" in allowed] == supported()


@pytest.mark.parametrize("python", supported())
@pytest.mark.parametrize("file", ["constraints.txt", "constraints-hashed.txt"])
def test_on_every_python_all_that_is_needed_is_pinned(python: str, file: str) -> None:
    """What the installed distributions ask for on that Python: with `--no-deps` nothing else would be installed."""
    environment = {"python_version": python, "python_full_version": f"{python}.1", "extra": ""}
    there = installed_on(python, file)
    for distribution in importlib.metadata.distributions():
        if canonicalize_name(distribution.metadata["Name"]) not in there - {"torch"}:
            continue  # a torch with CUDA names its libraries; the one without, which is pinned, needs none
        for asked in map(Requirement, distribution.requires or ()):
            if asked.marker is not None and asked.marker.evaluate(environment):
                name = canonicalize_name(asked.name)
                assert name in there, f"{distribution.metadata['Name']} needs {name} on Python {python}: {file}"


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
