"""Fills measured results into model cards, taken only from result files."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from llmrec.errors import DataError
from llmrec.storage.artifacts import write_bytes_atomic

START, END = "<!-- results: filled from eval/results -->", "<!-- end of results -->"
_OURS = "hybrid"  # the row of this model; the Hub takes one value per task, data set and metric
_FILLED = ("model-index", "model_name", "eval_results")
# fields of the protocol that say which part of the data and which users were measured
_SAMPLE = ("split", "part", "users", "users_sampled", "candidates", "seen_filtered")
_SHOWN = ("recall@10", "ndcg@10", "mrr@10", "coverage@10")
# name of a base model in llmrec -> its name on the Hub
_HUB_NAMES = {"smollm2-135m-instruct": "HuggingFaceTB/SmolLM2-135M-Instruct"}


def load_results(folder: Path, dataset: str) -> list[dict[str, Any]]:
    """Return the results on one data set, in order of their file names.

    Raises:
        DataError: no such directory, or a file that is not a result.
    """
    if not folder.is_dir():
        raise DataError(f"no directory {str(folder)!r}; --results is where `llmrec eval --out` wrote")
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
            about, _ = (
                str(result["dataset"]),
                (result["suite"], result["rows"], result["targets"], result["provenance"]),
            )
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise DataError(f"{path} is not a result file: {error!r}"[:300]) from None
        if about == dataset:
            found.append(result)
    return found


def fill_card(card: str, results: Sequence[Mapping[str, Any]]) -> str:
    """Replace the results in a card: a section with tables, and the Hub's `model-index`.

    Args:
        card: Markdown with a YAML header, as training writes it.
        results: results from `load_results`; if there are none, the section says so.
    """
    old = ModelCard(card)
    header: dict[str, Any] = dict(old.data.to_dict())  # type: ignore[no-untyped-call]
    settings: dict[str, Any] = {key: value for key, value in header.items() if key not in _FILLED}
    settings["base_model"] = _HUB_NAMES.get(str(settings.get("base_model")), settings.get("base_model"))
    name = next(iter(re.findall(r"^# (.+)$", old.text, re.MULTILINE)), "llmrec model")
    evals = [one for result in results for one in _evals(result)]
    settings |= {"library_name": "llmrec"} | ({"model_name": name, "eval_results": evals} if evals else {})
    data = ModelCardData(**settings)
    text = re.sub(f"{re.escape(START)}.*?{re.escape(END)}\n*", "", old.text, flags=re.DOTALL).strip("\n")
    head, mark, tail = text.partition("\n## Limits")
    return f"---\n{data.to_yaml()}\n---\n{head.rstrip()}\n\n{_section(results)}{mark}{tail}\n"


def save_card(path: Path, card: str) -> None:
    """Write a card atomically."""
    write_bytes_atomic(path, card.encode())


def _section(results: Sequence[Mapping[str, Any]]) -> str:
    lines = [START, "## Results", ""]
    if not results:
        lines += ["Nothing has been measured and published for this model yet.", ""]
    for result in results:
        lines += [f"### {_cell(result['suite'])} on {_cell(result['dataset'])}", "", _measured(result), ""]
        lines += [*_rows(result), *_targets(result), _source(result), ""]
    return "\n".join([*lines, END, ""])


def _rows(result: Mapping[str, Any]) -> list[str]:
    """Return the lines of a results table: one row per system, with the metrics of `_SHOWN`, else the first four."""
    metrics = list(dict.fromkeys(name for row in result["rows"] for name in row["metrics"]))
    shown = [name for name in _SHOWN if name in metrics] or metrics[:4]
    if not shown:
        return []
    lines = ["| | " + " | ".join(map(_cell, shown)) + " |", "|---" * (len(shown) + 1) + "|"]
    for row in result["rows"]:
        if any(name in row["metrics"] for name in shown):
            values = " | ".join(_estimate(row["metrics"].get(name)) for name in shown)
            lines.append(f"| {_cell(row['name'])}{_fewer(result, row['name'])} | {values} |")
    return [*lines, ""]


def _measured(result: Mapping[str, Any]) -> str:
    """Return a sentence on the data and the sample on which a table's numbers were measured."""
    said = [f"{name.replace('_', ' ')} {_cell(value)}" for name, value in _sample(result).items()]
    return f"Measured on {_cell(result['dataset'])}: {'; '.join([*said, _number(result)])}."


def _sample(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the protocol's fields on data and sample whose values are strings, numbers or booleans."""
    protocol = result.get("protocol")
    found = {name: protocol.get(name) for name in _SAMPLE} if isinstance(protocol, Mapping) else {}
    return {name: value for name, value in found.items() if isinstance(value, str | int | float)}


def _number(result: Mapping[str, Any]) -> str:
    return f"n = {result['provenance']['n']}"


def _fewer(result: Mapping[str, Any], row: str) -> str:
    """Return the number of users of a row that was measured on fewer users than the table, else ''."""
    protocol = result.get("protocol")
    if not isinstance(protocol, Mapping) or row not in (protocol.get("rows_of_the_sample") or ()):
        return ""
    return f" ({_cell(protocol.get('users_sampled'))} users)"


def _targets(result: Mapping[str, Any]) -> list[str]:
    lines = [
        f"- {_cell(one['name'])}: {'not measured' if one['value'] is None else format(float(one['value']), '.4g')}"
        for one in result["targets"]
    ]
    return [*lines, ""] if lines else []


def _source(result: Mapping[str, Any]) -> str:
    made = result["provenance"]
    return f"{_number(result)}, commit `{str(made['commit'])[:12]}`, `{_cell(made['command'])}`"


def _estimate(value: Mapping[str, Any] | None) -> str:
    if value is None:
        return ""
    low, high = value["ci95"]
    return f"{float(value['mean']):.4f} ({float(low):.4f} to {float(high):.4f})"


def _cell(text: object) -> str:
    """Return the text without characters that could break out of a table cell."""
    return re.sub(r"[|`<>\n\r]", " ", str(text))


def _evals(result: Mapping[str, Any]) -> list[EvalResult]:
    """Return the results that the Hub shows beside the card: those of the model, not of the baselines."""
    name, suite, sample = str(result["dataset"]), str(result["suite"]), _sample(result)
    return [
        EvalResult(
            task_type="recommendation",
            task_name=suite,
            dataset_type=name,
            dataset_name=name,
            dataset_split=None if sample.get("part") is None else str(sample["part"]),
            dataset_args={**sample, "n": result["provenance"]["n"]},
            metric_type=metric,
            metric_value=float(row["metrics"][metric]["mean"]),
        )
        for row in result["rows"]
        if row["name"] == _OURS
        for metric in _SHOWN
        if metric in row["metrics"]
    ]
