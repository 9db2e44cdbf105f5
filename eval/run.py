"""Runs evaluation suites for the command line: a model directory and data in, a result file out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from llmrec.checkpoint.pretrained import MODEL_KIND, read_settings
from llmrec.errors import ArtifactError, RequestError
from llmrec.eval.accuracy.suite import SPLITS, chosen_baselines
from llmrec.eval.report.build import run_report
from llmrec.eval.result_file import is_current, stamp_result
from llmrec.lm.runtime.onednn import MatmulDtype, parse_matmul_dtype
from llmrec.recommender import SHIPPED
from llmrec.storage.artifacts import fingerprint_bytes, read_manifest

ALL = "all"
REPORT = "report"
RELIABILITY = "reliability"  # runs the promises' tests of a checkout


@dataclass(frozen=True)
class Job:
    """The arguments of the command line; see `run_suite`."""

    model: str | Path | None
    data: str | Path | None
    out: Path
    limit: int | None = None
    data_dir: Path | None = None
    split: str = SPLITS[0]
    workers: int = 1
    matmul_dtype: MatmulDtype = "float32"
    ablations: int | None = None
    beside: Path | None = None
    baselines: str | None = None

    @property
    def path(self) -> Path:
        """The model directory.

        Raises:
            ArtifactError: no model was given, and the shipped one is missing.
        """
        if self.model is None and not SHIPPED.is_dir():
            raise ArtifactError("no model given, and the shipped one is not beside this installation: give --model")
        return SHIPPED if self.model is None else Path(self.model)

    @property
    def dataset(self) -> str:
        """Name of the data, as used in the names of result files."""
        return Path(str(read_settings(self.path)["data"] if self.data is None else self.data)).name


def _accuracy(job: Job) -> None:
    from llmrec.eval.accuracy.suite import run_accuracy

    run_accuracy(
        job.model,
        job.data,
        job.out,
        job.limit,
        split=job.split,
        workers=job.workers,
        matmul_dtype=job.matmul_dtype,
        ablations=job.ablations,
        baselines=job.baselines,
    )


def _stability(job: Job) -> None:
    from llmrec.eval.stability.suite import run_stability

    run_stability(job.model, job.data, job.out, job.limit)


def _retention(job: Job) -> None:
    from llmrec.eval.retention.suite import run_retention

    run_retention(job.model, job.data, job.data_dir, job.out, job.limit)


def _grounding(job: Job) -> None:
    from llmrec.eval.grounding.suite import run_grounding

    run_grounding(job.model, job.data, job.out, job.limit)


def _conversation(job: Job) -> None:
    from llmrec.eval.conversation.suite import run_conversation

    run_conversation(job.model, job.data, job.out, job.limit)


def _semantic_ids(job: Job) -> None:
    if job.beside is None:
        from llmrec.eval.semantic_ids.suite import run_semantic_ids

        run_semantic_ids(job.model, job.data, job.out, job.limit)
    else:
        from llmrec.eval.semantic_ids.model_comparison import run_model_comparison

        run_model_comparison(job.model, job.beside, job.data, job.out, job.limit, job.matmul_dtype)


def _knowledge(job: Job) -> None:
    from llmrec.eval.knowledge.suite import run_knowledge

    run_knowledge(job.model, job.data, job.data_dir, job.out, job.limit)


# In the order in which `all` runs them; a suite is imported only when it runs.
MEASURING: Mapping[str, Callable[[Job], None]] = {
    "accuracy": _accuracy,
    "stability": _stability,
    "retention": _retention,
    "grounding": _grounding,
    "conversation": _conversation,
}
# Published dialogues with their own films: no model directory is measured, and the data set is in --data-dir.
DIALOGUES = ("redial", "inspired")
# Limits that `all` uses for a thousand users: about the same share of each suite's own size.
OF_A_THOUSAND: Mapping[str, int] = {
    "accuracy": 1000, "stability": 20, "retention": 100, "grounding": 60, "conversation": 120,
}  # fmt: skip
SEMANTIC_IDS = "semantic-ids"  # compares two ways to make codes from a model's vectors
KNOWLEDGE = "knowledge"  # measures notes on items, which not every catalogue has
SUITES = (*MEASURING, KNOWLEDGE, SEMANTIC_IDS, *DIALOGUES, RELIABILITY, REPORT, ALL)


def run_suite(
    suite: str,
    model: str | Path | None,
    data: str | Path | None,
    out: Path,
    limit: int | None = None,
    data_dir: Path | None = None,
    split: str = SPLITS[0],
    workers: int = 1,
    matmul_dtype: str = "float32",
    ablations: int | None = None,
    beside: Path | None = None,
    baselines: str | None = None,
) -> None:
    """Run one suite by name, the report on existing results, or everything in order.

    Args:
        suite: one of `SUITES`; "all" skips suites already measured on the same model by the same code.
        model: model directory, None for the shipped one.
        data: prepared data, None for the model's own.
        out: directory of the results.
        limit: measure this many users, or items of a task; for "all", users of the accuracy suite, with the other
            suites scaled in proportion (`OF_A_THOUSAND`).
        data_dir: directory of the data files of the suites that need some, such as the language benchmarks of
            retention.
        split: how the accuracy suite holds out items.
        workers: number of processes of the accuracy suite that rank with the model.
        matmul_dtype: number format of the language model's matrix products in the accuracy suite, and with `beside`:
            float32, bfloat16, or auto for the faster one on this machine.
        ablations: number of users for whom the accuracy suite ranks the ablation rows; None for all.
        beside: another model for the suite semantic-ids, which then compares how well both rank validation items.
        baselines: baselines of the accuracy suite: comma-separated names, "none", or None for all.

    Raises:
        RequestError: the suite does not exist; two models are given to a suite that does not compare models; or
            baselines do not exist or are given to another suite.
    """
    if suite not in SUITES:
        raise RequestError(f"no suite '{suite}'; there are: {', '.join(SUITES)}")
    if beside is not None and suite != SEMANTIC_IDS:
        raise RequestError(f"--beside {beside} was given with --suite {suite}; only {SEMANTIC_IDS} compares two models")
    if baselines is not None and suite not in ("accuracy", ALL):
        raise RequestError(f"--baselines {baselines} was given with --suite {suite}; only accuracy has baselines")
    chosen_baselines(baselines)  # reject a wrong name before anything is loaded
    numbers = parse_matmul_dtype(matmul_dtype)
    job = Job(model, data, out, limit, data_dir, split, workers, numbers, ablations, beside, baselines)
    if suite == ALL:
        run_all(job)
    elif suite == SEMANTIC_IDS:
        _semantic_ids(job)
    elif suite == KNOWLEDGE:
        _knowledge(job)
    elif suite in DIALOGUES:
        from llmrec.eval.crs.suite import run_crs

        run_crs(suite, job.data_dir, job.out, job.limit)
    elif suite == RELIABILITY:
        from llmrec.eval.reliability.suite import run_reliability_suite

        run_reliability_suite(job.model, job.out, job.limit)
    elif suite == REPORT:
        run_report(job.out, SHIPPED if model is None else Path(model))
    else:
        measure(suite, job)


def run_all(job: Job) -> None:
    """Run all suites in order, then the report; suites that have a current result or lack their files are skipped."""
    console = Console(stderr=True)
    whole = job.limit
    for suite in MEASURING:
        job = replace(job, limit=None if whole is None else max(1, whole * OF_A_THOUSAND[suite] // 1000))
        if suite == "retention" and job.data_dir is None:
            console.print("retention: passed over; say with --data-dir where the language benchmarks are")
        elif is_current(_result(suite, job), fingerprints(job), _arguments(suite, job)):
            console.print(f"{suite}: already measured, see {_result(suite, job)}")
        else:
            console.print(f"{suite}: measuring")
            measure(suite, job)
    run_report(job.out, job.path)


def measure(suite: str, job: Job) -> None:
    """Run one measuring suite, and stamp its result file with what was measured."""
    job = job if suite == "accuracy" else replace(job, split=SPLITS[0])
    MEASURING[suite](job)
    stamp_result(_result(suite, job), fingerprints(job), _arguments(suite, job))


def fingerprints(job: Job) -> dict[str, str]:
    """Sha256 hex of the catalogue, of the train part on which the model was trained, and of the model's files."""
    manifest = read_manifest(job.path, MODEL_KIND, verify=False)
    # The model card is a text about the model and not part of it.
    files = {name: list(entry) for name, entry in manifest.files.items() if not name.endswith(".md")}
    return {
        "catalog": manifest.fingerprints["catalog"],
        "train": str(manifest.meta.get("train_fingerprint")),
        "model": fingerprint_bytes(json.dumps(files, sort_keys=True).encode()),
    }


def _arguments(suite: str, job: Job) -> dict[str, Any]:
    given = {"limit": job.limit, "split": job.split if suite == "accuracy" else None}
    of_accuracy = {"ablations": job.ablations, "baselines": job.baselines} if suite == "accuracy" else {}
    return given | {name: one for name, one in of_accuracy.items() if one}


def _result(suite: str, job: Job) -> Path:
    stem = "accuracy-time" if suite == "accuracy" and job.split == "time" else suite
    return job.out / f"{stem}-{job.dataset}.json"
