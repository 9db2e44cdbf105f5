"""The one form of a result file: written atomically, checked by a program, with where it came from.

A file holds suite, dataset, protocol, rows (a name and its metrics, each a mean and a 95 % interval),
targets (the few numbers that the project is held to) and provenance. Per-user values go to Parquet beside
it, out of version control: their user numbers are rows of data that may not be ours to publish.
"""

import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

import llmrec
from llmrec.eval.form import TARGETS, check_result
from llmrec.eval.metrics import bootstrap_ci
from llmrec.storage.artifacts import write_bytes_atomic

__all__ = [
    "TARGETS",
    "Estimate",
    "Provenance",
    "Row",
    "Target",
    "check_result",
    "eval_command",
    "is_current",
    "provenance",
    "stamp",
    "write_per_user",
    "write_result",
]


USUAL: Mapping[str, str] = {"split": "loo", "products": "float32"}  # what `llmrec eval` takes when they are left out


@dataclass(frozen=True)
class Estimate:
    """A mean over users with its 95 % interval; for a number that is not a mean both ends are the number."""

    mean: float
    ci95: tuple[float, float]

    @classmethod
    def over(cls, values: npt.NDArray[np.float64], seed: int) -> Self:
        """Of float64[b], one value a user, with the bootstrap interval of their mean."""
        return cls(float(values.mean()), bootstrap_ci(values, seed))


@dataclass(frozen=True)
class Row:
    """One line of a result: a ranker's name and its metrics, such as `ndcg@10`."""

    name: str
    metrics: Mapping[str, Estimate]


@dataclass(frozen=True)
class Target:
    """A number that the project is held to; None when it was not measured."""

    name: str
    value: float | None


@dataclass(frozen=True)
class Provenance:
    """Enough to run it again: code, seed, command, and what it ran on. Never a host or user name."""

    commit: str | None
    seed: int
    command: str
    seconds: float
    n: int
    versions: Mapping[str, str]
    machine: Mapping[str, str | int | float]


def provenance(seed: int, command: str | None, seconds: float, n: int) -> Provenance:
    """Where a result comes from, as of now.

    Args:
        seed: the seed the command was given.
        command: as a person would type it, `llmrec ...`; None takes it from this process.
        seconds: wall-clock time of the measurement.
        n: how many users, prompts or steps were measured.
    """
    line = command or shlex.join(["llmrec", *sys.argv[1:]])
    made, dirty = commit()
    version = llmrec.__version__ + ("+dirty" if dirty else "")
    versions = {"python": platform.python_version(), "llmrec": version}
    for package in ("torch", "numpy", "transformers"):
        versions[package] = importlib.metadata.version(package)
    return Provenance(made, seed, line, seconds, n, versions, _machine())


def eval_command(suite: str, **given: str | Path | int | None) -> str:
    """`llmrec eval` as a person would type it, with the options that are not what they are when left out.

    Of directories the last name is kept: where they lie is nobody's business.

    >>> eval_command("accuracy", split="loo", model="somewhere/mine", data=None, limit=3)
    'llmrec eval --suite accuracy --model mine --limit 3'
    """
    said = {name: one for name, one in given.items() if one is not None and one != USUAL.get(name)}
    words = [f"--{name.replace('_', '-')} {Path(str(one)).name}" for name, one in said.items()]
    return " ".join([f"llmrec eval --suite {suite}", *words])


def commit() -> tuple[str | None, bool]:
    """The commit of the repository that tracks this code, and whether its code was changed since."""
    root = Path(llmrec.__file__).resolve().parents[1]
    # An installed copy may lie inside some other project's repository: only a tracked file proves that it
    # is ours.
    if _git(root, "ls-files", "--error-unmatch", "llmrec/__init__.py") is None:
        return None, False
    changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", "*.py", "*.yaml", "*.toml")
    return _git(root, "rev-parse", "HEAD"), bool(changed)


def _git(root: Path, *args: str) -> str | None:
    """Output of a git command, None when there is no git, no repository or no such thing in it."""
    try:
        done = subprocess.run(["git", *args], cwd=root, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _machine() -> dict[str, str | int | float]:
    """Processor, cores this process may use, memory in GB (10^9 bytes)."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text().splitlines()
        models = [line.split(":", 1)[1] for line in lines if line.startswith("model name")]
        cpu = models[0].strip() if models else cpu
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    machine: dict[str, str | int | float] = {"cpu": cpu, "cores": cores}
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        machine["memory_gb"] = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    return machine


def write_result(
    path: Path,
    suite: str,
    dataset: str,
    protocol: str | Mapping[str, Any],
    rows: Sequence[Row],
    targets: Sequence[Target],
    provenance: Provenance,
) -> None:
    """Check a result and write it as JSON: sorted keys, 6 decimals; the old file stays if anything fails.

    Raises:
        DataError: the result is not in the form, or lacks a target that the file's name asks for.
    """
    value = {
        "suite": suite,
        "dataset": dataset,
        "protocol": protocol if isinstance(protocol, str) else dict(protocol),
        "rows": [
            {"name": row.name, "metrics": {m: vars(estimate) for m, estimate in row.metrics.items()}} for row in rows
        ],
        "targets": [{"name": t.name, "value": t.value} for t in targets],
        "provenance": vars(provenance),
    }
    rounded = _rounded(value)
    check_result(rounded, path.stem)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes_atomic(path, _bytes(rounded))


def _bytes(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _rounded(value: Any) -> Any:
    """Plain Python values with floats rounded to 6 decimals."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, Mapping):
        return {str(k): _rounded(v) for k, v in value.items()}
    return [_rounded(v) for v in value] if isinstance(value, list | tuple) else value


def stamp(path: Path, fingerprints: Mapping[str, str], arguments: Mapping[str, Any]) -> None:
    """Add to the provenance of a written result what it was measured on and with which arguments.

    Args:
        path: the result file.
        fingerprints: sha256 hex by what it is of: catalogue, train part, model.
        arguments: what was asked for, plain values; with the fingerprints they say whether it must be measured again.
    """
    value = json.loads(path.read_text(encoding="utf-8"))
    value["provenance"] |= {"fingerprints": dict(fingerprints), "arguments": dict(arguments)}
    check_result(value, path.stem)
    write_bytes_atomic(path, _bytes(value))


def is_current(path: Path, fingerprints: Mapping[str, str], arguments: Mapping[str, Any]) -> bool:
    """Whether a result was stamped so and measured by this very version of the code."""
    try:
        came = json.loads(path.read_text(encoding="utf-8"))["provenance"]
        stamped = came["fingerprints"] == dict(fingerprints) and came["arguments"] == dict(arguments)
        made = came["commit"], came["versions"]["llmrec"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    now = provenance(0, "llmrec", 0.0, 0)
    return stamped and made == (now.commit, now.versions["llmrec"])


def write_per_user(out: Path, dataset: str, columns: Mapping[str, npt.NDArray[Any]]) -> Path:
    """Write per-user values to `<out>/per_user/per-user-<dataset>.parquet`; git is told to ignore the folder.

    columns: name to array [b]; users are given by number, never by their external id.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = out / "per_user"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".gitignore").write_text("*\n")
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(dict(columns)), sink, compression="zstd")
    path = folder / f"per-user-{dataset}.parquet"
    write_bytes_atomic(path, sink.getvalue().to_pybytes())
    return path
