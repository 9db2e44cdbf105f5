"""Loads and validates the result files of a directory, and decides which of them may share a table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmrec.errors import DataError
from llmrec.eval.result_file import Estimate, check_result
from llmrec.storage.artifacts import fingerprint_bytes

# Protocol fields that must agree before rows of two accuracy files may share a table; other suites have one file per
# data set.
COMPARED = ("split", "part", "candidates", "seen_filtered", "ties", "users")
UNKNOWN = "not recorded"


@dataclass(frozen=True)
class Result:
    """One result file.

    Attributes:
        path: the file that it was read from.
        suite, dataset: as stated in the file.
        protocol: how it was measured.
        rows: name to metric to estimate, in the file's order.
        targets: name to value, None if not measured.
        provenance: commit, seed, command, seconds, n, versions, machine; fingerprints if they were recorded.
    """

    path: Path
    suite: str
    dataset: str
    protocol: Mapping[str, Any]
    rows: Mapping[str, Mapping[str, Estimate]]
    targets: Mapping[str, float | None]
    provenance: Mapping[str, Any]

    def fingerprint(self, of: str) -> str:
        """Sha256 hex of the catalogue, train part or model, or a text that says there is none."""
        return str(self.provenance.get("fingerprints", {}).get(of, UNKNOWN))

    @property
    def protocol_fingerprint(self) -> str:
        """Sha256 hex of the protocol fields that decide whether numbers are comparable."""
        accurate = self.suite.startswith("accuracy")
        told = {key: self.protocol.get(key) for key in COMPARED} if accurate else dict(self.protocol)
        return fingerprint_bytes(json.dumps(told, sort_keys=True).encode())

    @property
    def source(self) -> str:
        """One line on the origin of its numbers, shown with every table and picture."""
        came = self.provenance
        versions = ", ".join(f"{name} {version}" for name, version in came["versions"].items())
        commit = str(came["commit"])[:12] if came["commit"] else "no commit"
        return (
            f"n = {came['n']}, seed {came['seed']}, commit {commit}, {came['command']}, {versions}; "
            f"catalogue {self.fingerprint('catalog')[:16]}, model {self.fingerprint('model')[:16]}; "
            f"{came['seconds']:.0f} s on {came['machine']['cores']} cores ({self.path.name})"
        )


def load_results(folder: Path) -> list[Result]:
    """Load every result file of a directory, ordered by name.

    Raises:
        DataError: the directory does not exist, or a JSON file is not a result; names the file.
    """
    if not folder.is_dir():
        raise DataError(f"no directory {str(folder)!r}; the report is made from the result files in --out")
    return [_read(path) for path in sorted(folder.glob("*.json"), key=lambda path: path.stem)]


def _read(path: Path) -> Result:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        check_result(value, path.stem)
    except (OSError, ValueError, RecursionError) as error:  # DataError is a ValueError, too
        raise DataError(f"{path.name}: {' '.join(str(error).split())}") from None
    told = value["protocol"]
    return Result(
        path,
        value["suite"],
        value["dataset"],
        {"protocol": told} if isinstance(told, str) else told,
        {
            row["name"]: {name: Estimate(one["mean"], tuple(one["ci95"])) for name, one in row["metrics"].items()}
            for row in value["rows"]
        },
        {target["name"]: target["value"] for target in value["targets"]},
        value["provenance"],
    )


def merge_results(results: Sequence[Result]) -> dict[str, Mapping[str, Estimate]]:
    """Merge the rows of results of one suite and one data set into one table.

    Row names are used as they are. If two files have the same row name, the later row gets its file's name appended.

    Raises:
        DataError: the results have different catalogues or protocols; names both fingerprints.
    """
    rows: dict[str, Mapping[str, Estimate]] = {}
    for result in results:
        _same(results[0], result, "protocol", lambda one: one.protocol_fingerprint)
        for name, metrics in result.rows.items():
            rows[name if name not in rows else f"{name} ({result.path.stem})"] = metrics
    return rows


def check_one_catalogue(results: Iterable[Result]) -> None:
    """Check that all results of one data set are of the same catalogue.

    Raises:
        DataError: two results differ; names files and fingerprints.
    """
    first: dict[str, Result] = {}
    for result in results:
        if result.fingerprint("catalog") != UNKNOWN:
            known = first.setdefault(result.dataset, result)
            _same(known, result, "catalogue", lambda one: one.fingerprint("catalog"))


def _same(one: Result, other: Result, what: str, of: Any) -> None:
    ours, theirs = of(one), of(other)
    if ours != theirs:
        raise DataError(
            f"{one.path.name} and {other.path.name} cannot stand in one report: their {what}s are {ours[:16]} and "
            f"{theirs[:16]}; measure one of them again or move it out of {one.path.parent}"
        )


def models(results: Iterable[Result]) -> dict[str, list[str]]:
    """File names by the model that was measured, for data sets with more than one model."""
    found: dict[str, dict[str, list[str]]] = {}
    for result in results:
        if result.fingerprint("model") != UNKNOWN:
            found.setdefault(result.dataset, {}).setdefault(result.fingerprint("model"), []).append(result.path.name)
    return {name: files for by in found.values() if len(by) > 1 for name, files in by.items()}
