"""The format of result files: written atomically, validated, and with their provenance.

A file holds suite, dataset, protocol, rows (a name and its metrics, each a mean and a 95 % interval), targets (the few
numbers that the project is held to) and provenance. Per-user values go to Parquet files beside it, outside version
control, because their user numbers refer to data that may not be ours to publish.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
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
from rich.console import Console

import llmrec
from llmrec.errors import DataError
from llmrec.eval.console_tables import print_columns
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
    "stamp_result",
    "write_per_user",
    "write_result",
]


DEFAULT_OPTIONS: Mapping[str, str] = {
    "split": "loo",
    "products": "float32",
}  # defaults of `llmrec eval`


@dataclass(frozen=True)
class Estimate:
    """A mean over users with its 95 % interval; for a number that is not a mean, both ends equal the number."""

    mean: float
    ci95: tuple[float, float]

    @classmethod
    def over(cls, values: npt.NDArray[np.float64], seed: int) -> Self:
        """Estimate from float64[b], one value per user, with the bootstrap interval of the mean."""
        return cls(float(values.mean()), bootstrap_ci(values, seed))


@dataclass(frozen=True)
class Row:
    """One line of a result: a ranker's name and its metrics, such as `ndcg@10`."""

    name: str
    metrics: Mapping[str, Estimate]


@dataclass(frozen=True)
class Target:
    """A number that the project is held to; None if not measured."""

    name: str
    value: float | None


@dataclass(frozen=True)
class Provenance:
    """What is needed to repeat a measurement: code, seed, command and machine. Never a host or user name."""

    commit: str | None
    seed: int
    command: str
    seconds: float
    n: int
    versions: Mapping[str, str]
    machine: Mapping[str, str | int | float]


def provenance(seed: int, command: str | None, seconds: float, n: int) -> Provenance:
    """Record where a result comes from, as of now.

    Args:
        seed: the seed given to the command.
        command: as typed by a person, `llmrec ...`; None takes it from this process.
        seconds: wall-clock time of the measurement.
        n: number of users, prompts or steps measured.
    """
    line = command or shlex.join(["llmrec", *sys.argv[1:]])
    made, dirty = commit()
    version = llmrec.__version__ + ("+dirty" if dirty else "")
    versions = {"python": platform.python_version(), "llmrec": version}
    for package in ("torch", "numpy", "transformers"):
        versions[package] = importlib.metadata.version(package)
    return Provenance(made, seed, line, seconds, n, versions, _machine())


def eval_command(suite: str, **given: str | Path | int | None) -> str:
    """Return the `llmrec eval` command as a person would type it, with the options that differ from their defaults.

    Only the last component of directories is kept, so that their location is not disclosed.

    >>> eval_command("accuracy", split="loo", model="somewhere/mine", data=None, limit=3)
    'llmrec eval --suite accuracy --model mine --limit 3'
    """
    said = {name: one for name, one in given.items() if one is not None and one != DEFAULT_OPTIONS.get(name)}
    words = [f"--{name.replace('_', '-')} {Path(str(one)).name}" for name, one in said.items()]
    return " ".join([f"llmrec eval --suite {suite}", *words])


def commit() -> tuple[str | None, bool]:
    """Return the commit of the repository that tracks this code, and whether the code was changed since."""
    root = Path(llmrec.__file__).resolve().parents[1]
    # An installed copy may lie inside another project's repository: only a tracked file proves that the repository is
    # ours.
    if _git(root, "ls-files", "--error-unmatch", "llmrec/__init__.py") is None:
        return None, False
    changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", "*.py", "*.yaml", "*.toml")
    return _git(root, "rev-parse", "HEAD"), bool(changed)


def _git(root: Path, *args: str) -> str | None:
    """Output of a git command; None without git, without a repository, or if the command fails."""
    try:
        done = subprocess.run(["git", *args], cwd=root, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _machine() -> dict[str, str | int | float]:
    """Processor, number of cores available to this process, memory in GB (10^9 bytes)."""
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
    """Check a result and write it as JSON with sorted keys and 6 decimals; on any failure the old file is kept.

    Raises:
        DataError: the result is malformed, or lacks a target that the file's name requires.
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
    """Convert to plain Python values, with floats rounded to 6 decimals."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, Mapping):
        return {str(k): _rounded(v) for k, v in value.items()}
    return [_rounded(v) for v in value] if isinstance(value, list | tuple) else value


def stamp_result(path: Path, fingerprints: Mapping[str, str], arguments: Mapping[str, Any]) -> None:
    """Add fingerprints and arguments to the provenance of a written result.

    Args:
        path: the result file.
        fingerprints: sha256 hex of catalogue, train part and model, by name.
        arguments: the arguments as plain values; together with the fingerprints they decide whether to measure again.
    """
    value = json.loads(path.read_text(encoding="utf-8"))
    value["provenance"] |= {"fingerprints": dict(fingerprints), "arguments": dict(arguments)}
    check_result(value, path.stem)
    write_bytes_atomic(path, _bytes(value))


def is_current(path: Path, fingerprints: Mapping[str, str], arguments: Mapping[str, Any]) -> bool:
    """True if a result has this stamp and was measured by the current version of the code."""
    try:
        came = json.loads(path.read_text(encoding="utf-8"))["provenance"]
        stamped = came["fingerprints"] == dict(fingerprints) and came["arguments"] == dict(arguments)
        made = came["commit"], came["versions"]["llmrec"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    now = provenance(0, "llmrec", 0.0, 0)
    return stamped and made == (now.commit, now.versions["llmrec"])


def write_per_user(out: Path, dataset: str, columns: Mapping[str, npt.NDArray[Any]]) -> Path:
    """Write per-user values to `<out>/per_user/per-user-<dataset>.parquet`; the folder gets a `.gitignore`.

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


def publish(
    path: Path,
    dataset: str,
    protocol: Mapping[str, Any],
    rows: Mapping[str, Mapping[str, tuple[float, float, float]]],
    targets: Mapping[str, float | None],
    seed: int,
    command: str,
    seconds: float,
    n: int,
    suite: str | None = None,
) -> None:
    """Check and write a result, then print it.

    Args:
        path: the file, `<suite>.json`.
        dataset: name of the data.
        protocol: how the result was measured.
        rows: row -> metric -> (value, low, high).
        targets: name -> number, None if not measured.
        seed: the seed given to the command.
        command: as typed by a person, `llmrec ...`.
        seconds: wall-clock time of the measurement.
        n: number of users, prompts or steps measured.
        suite: name of the suite, None for the file's stem.

    Raises:
        DataError: the result lacks a target that the file's name requires.
    """
    lines = [
        Row(name, {m: Estimate(v, (low, high)) for m, (v, low, high) in one.items()}) for name, one in rows.items()
    ]
    named = [Target(name, value) for name, value in targets.items()]
    write_result(path, suite or path.stem, dataset, protocol, lines, named, provenance(seed, command, seconds, n))
    print_result(rows, targets)


def print_result(
    rows: Mapping[str, Mapping[str, tuple[float, float, float]]],
    targets: Mapping[str, float | None],
    console: Console | None = None,
) -> None:
    shown = [
        [name if not place else "", metric, f"{value:.4g}", f"{low:.4g} - {high:.4g}"]
        for name, metrics in rows.items()
        for place, (metric, (value, low, high)) in enumerate(metrics.items())
    ]
    out = console or Console(highlight=False)
    print_columns(["", "", "value", "95 %"], shown, out, labels=2)
    for name, target in targets.items():
        out.print(f"{name}: {'not measured' if target is None else f'{target:.3g}'}")


# Targets that each published file must contain, by file stem; a value that was not measured is null, never absent.
TARGETS: Mapping[str, tuple[str, ...]] = {
    "accuracy-ml-100k": (
        "hybrid_over_sasrec_recall10",
        "hybrid_over_sasrec_ndcg10",
        "hybrid_over_best_baseline_ndcg10",
    ),
    "accuracy-beauty": (
        "hybrid_recall10",
        "hybrid_ndcg10",
        "hybrid_vs_encoder_p",
        "cold_recall10_over_encoder",
    ),
    "accuracy-toys": (
        "hybrid_recall10",
        "hybrid_ndcg10",
        "hybrid_vs_encoder_p",
        "cold_recall10_over_encoder",
    ),
    "bench-decode": (
        "speedup_beams50_prompt256",
        "speedup_beams10_prompt256",
        "floor_ratio_beams50_users16",
        "text_speedup_fp32",
        "text_speedup_int8",
        "peak_memory_ratio_beams50",
        "mask_time_1e7_over_1e4",
    ),
    "bench-train": ("targets_per_s_ratio", "tokens_per_s_ratio", "peak_memory_ratio", "floor_ratio"),
    "stability-ml-100k": (
        "order_kendall_tau",
        "order_top1_flip",
        "paraphrase_overlap10",
        "paraphrase_top1_flip",
        "noise_overlap10",
    ),
    "retention-ml-100k": ("wikitext2_ppl_ratio", "task_mean_ratio", "tasks_significantly_worse"),
    "grounding-ml-100k": (
        "existing_share",
        "constraints1",
        "constraints2",
        "constraints3",
        "off_list_titles",
    ),
    "conversation-ml-100k": (
        "dialogue_constraints",
        "excluded_shown_again",
        "references_resolved",
        "clarifying_asked",
        "off_list_titles",
        "words_only_over_text_lookup",
        "p95_items_seconds",
    ),
    "knowledge-ml-100k": (
        "described_share",
        "director_agreement",
        "cast_agreement",
        "second_pass_disagreement",
        "tag_wish_recall10_over_before",
        "tag_wish_ndcg10",
        "questions_answered",
        "questions_wrong",
        "constraint_satisfaction",
    ),
    "conversation-redial": ("novel_recall1", "novel_recall10", "novel_recall50"),
    "conversation-inspired": ("novel_recall1", "novel_recall10", "novel_recall50"),
    "reliability": ("promises_tested", "violations", "faults_injected", "faults_with_loss"),
    "bench-rank": ("speedup_over_generate", "memory_ratio_100x_input", "ray_two_workers_speedup"),
}


def check_result(value: Mapping[str, Any], stem: str | None = None) -> None:
    """Check that a value read from JSON is a valid result.

    Args:
        value: the parsed file.
        stem: file name without `.json`; a known stem (see TARGETS) requires its targets.

    Raises:
        DataError: the value is malformed; one line says where.
    """
    _keys(value, {"suite", "dataset", "protocol", "rows", "targets", "provenance"}, "the result")
    _need(isinstance(value["suite"], str) and value["suite"] != "", "suite", value["suite"], "a name")
    _need(isinstance(value["dataset"], str), "dataset", value["dataset"], "a name")
    told = isinstance(value["protocol"], str | Mapping) and bool(value["protocol"])
    _need(told, "protocol", value["protocol"], "words or an object that say how it was measured")
    _need(isinstance(value["rows"], list), "rows", value["rows"], "a list")
    _need(isinstance(value["targets"], list), "targets", value["targets"], "a list")
    for row in value["rows"]:
        _check_row(row)
    for target in value["targets"]:
        _keys(target, {"name", "value"}, "a target")
        _need(isinstance(target["name"], str), "name of a target", target["name"], "a string")
        fine = target["value"] is None or _number(target["value"])
        _need(fine, str(target["name"]), target["value"], "a number or null")
    for what in ("rows", "targets"):
        names = [entry["name"] for entry in value[what]]
        _need(len(set(names)) == len(names), f"names of {what}", names, "different names")
    missing = sorted(set(TARGETS.get(stem or "", ())) - {target["name"] for target in value["targets"]})
    _need(not missing, f"targets of {stem}", missing, "no missing target (null when not measured)")
    _check_provenance(value["provenance"])


def _check_row(row: Any) -> None:
    _keys(row, {"name", "metrics"}, "a row")
    _need(isinstance(row["name"], str), "name of a row", row["name"], "a string")
    _need(isinstance(row["metrics"], Mapping), f"metrics of {row['name']}", row["metrics"], "an object")
    for metric, entry in row["metrics"].items():
        where = f"{metric} of {row['name']}"
        _keys(entry, {"mean", "ci95"}, where)
        ends = entry["ci95"]
        _need(_number(entry["mean"]), where, entry["mean"], "a number")
        fine = isinstance(ends, list) and len(ends) == 2 and all(map(_number, ends)) and ends[0] <= ends[1]
        _need(fine, f"ci95 of {where}", ends, "[low, high]")


def _check_provenance(value: Any) -> None:
    _keys(value, {"commit", "seed", "command", "seconds", "n", "versions", "machine"}, "provenance")
    commit = value["commit"]
    fine = commit is None or (isinstance(commit, str) and len(commit) >= 7)
    _need(fine, "commit", commit, "a git hash or null")
    _need(isinstance(value["seed"], int), "seed", value["seed"], "a whole number")
    command = value["command"]
    typed = isinstance(command, str) and command.startswith(("llmrec", "make "))
    _need(typed, "command", command, "`llmrec ...` or `make ...`")
    _need(_number(value["seconds"]) and value["seconds"] >= 0, "seconds", value["seconds"], "a number >= 0")
    _need(isinstance(value["n"], int) and value["n"] >= 0, "n", value["n"], "a count")
    _keys(value["versions"], {"python", "torch", "numpy", "transformers", "llmrec"}, "versions")
    _keys(value["machine"], {"cpu", "cores"}, "machine")


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _need(fine: bool, what: str, value: Any, right: str) -> None:
    if not fine:
        raise DataError(f"{what} is {value!r}; a result file needs {right}")


def _keys(value: Any, keys: set[str], what: str) -> None:
    if not isinstance(value, Mapping) or not keys <= set(value):
        lacks = sorted(keys - set(value)) if isinstance(value, Mapping) else sorted(keys)
        raise DataError(f"{what} lacks {', '.join(lacks)}")
