"""The form of a result file as a program checks it: keys, types, and the targets each file must answer."""

import math
from collections.abc import Mapping
from typing import Any

from llmrec.errors import DataError

# What each published file must answer, by file stem; a value that was not measured is null, never absent.
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
    "conversation-redial": ("novel_recall1", "novel_recall10", "novel_recall50"),
    "conversation-inspired": ("novel_recall1", "novel_recall10", "novel_recall50"),
    "reliability": ("promises_tested", "violations", "faults_injected", "faults_with_loss"),
    "bench-rank": ("speedup_over_generate", "memory_ratio_100x_input", "ray_two_workers_speedup"),
}


def check_result(value: Mapping[str, Any], stem: str | None = None) -> None:
    """Check that a value read from JSON is a result in the one form.

    Args:
        value: the parsed file.
        stem: file name without `.json`; a known one (see TARGETS) must hold its targets.

    Raises:
        DataError: one line that says where it departs from the form.
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
