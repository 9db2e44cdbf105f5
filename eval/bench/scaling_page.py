"""Writes the measured part of the page on scaling from the result of `llmrec bench --rank`.

Usage: python -m llmrec.eval.bench.scaling_page eval/results/bench-rank.json docs/scaling.md
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from llmrec.errors import DataError
from llmrec.eval.result_file import check_result
from llmrec.storage.artifacts import write_bytes_atomic

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
USERS, CORES = 100_000_000, 64  # requests and cores per machine of the sizing example
Metrics = Mapping[str, Mapping[str, float]]


def update_page(text: str, result: Mapping[str, Any]) -> str:
    """Return the page with the text between its two markers regenerated.

    Raises:
        DataError: not a result of the bench, or a page without the markers.
    """
    check_result(result, "bench-rank")
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise DataError(f"the page needs one line {BEGIN} and one line {END}")
    rows: Metrics = {
        row["name"]: {metric: value["mean"] for metric, value in row["metrics"].items()} for row in result["rows"]
    }
    parts = [_where(result["provenance"]), _rates(rows), _sentences(rows), _catalogues(rows), _sized(rows)]
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    return f"{before}{BEGIN}\n" + "\n\n".join(part for part in parts if part) + f"\n{END}{after}"


def _where(provenance: Mapping[str, Any]) -> str:
    machine, commit = provenance["machine"], str(provenance["commit"])[:7]
    return f"`{provenance['command']}` on {machine['cpu']}, {machine['cores']} cores, commit {commit}:"


def _rates(rows: Metrics) -> str:
    lines = ["| how | users a second | with loading | top 10 in common |", "|---|---|---|---|"]
    for name, metrics in rows.items():
        if "users_per_s" not in metrics:
            continue
        kind, rest = name.split("_", 1)
        if kind == "generate":
            label = f"`generate`, {rest.removeprefix('beams')} beams, batches of 8, all cores"
            loading, common = "", f"{metrics['overlap10']:.2f}"
        else:
            label = f"`llmrec rank{' --ray' if kind == 'ray' else ''}`, {rest.replace('_', ' ')}, a thread each"
            loading, common = f"{metrics['users_per_s_with_loading']:.2f}", "1"
        lines.append(f"| {label} | {metrics['users_per_s']:.2f} | {loading} | {common} |")
    return "\n".join(lines)


def _sentences(rows: Metrics) -> str:
    memory = rows["memory"]
    small, large = memory["peak_bytes"] / 1e6, memory["peak_bytes_100x_input"] / 1e6
    return (
        f"Memory of a ranking process: {small:.0f} MB over {memory['requests']:.0f} requests, "
        f"{large:.0f} MB over a hundred times as many."
    )


def _catalogues(rows: Metrics) -> str:
    found = {int(name.split("_")[1]): metrics for name, metrics in rows.items() if name.startswith("catalogue_")}
    if not found:
        return ""
    lines: dict[str, Callable[[int, Mapping[str, float]], str]] = {
        "items": lambda n, m: f"{n:,}",
        "tokens read, list of everything": lambda n, m: f"{m['all_tokens']:.0f}",
        "tokens read, list of 500 candidates": lambda n, m: f"{m['candidates_tokens']:.0f}",
        "seconds, list of everything": lambda n, m: f"{m['all_seconds']:.2f}",
        "seconds, list of 500 candidates": lambda n, m: f"{m['candidates_seconds']:.2f}",
        "seconds of one pass over all scores": lambda n, m: f"{m['dense_seconds']:.3f}",
        "seconds to build the trie": lambda n, m: f"{m['trie_build_seconds']:.2f}",
        "milliseconds of an exact look-up": lambda n, m: f"{1e3 * m['exact_query_seconds']:.2f}",
        "... on disk, 1 of 64 lists": lambda n, m: f"{1e3 * m['query_seconds_1_of_64']:.2f}",
        "its recall at 100": lambda n, m: f"{m['recall100_1_of_64']:.3f}",
        "... on disk, 1 of 16 lists": lambda n, m: f"{1e3 * m['query_seconds_1_of_16']:.2f}",
        "its recall at 100 ": lambda n, m: f"{m['recall100_1_of_16']:.3f}",
        "seconds to build the index": lambda n, m: f"{m['index_build_seconds']:.1f}",
    }
    table = [
        f"| {name.strip()} | " + " | ".join(show(n, m) for n, m in found.items()) + " |" for name, show in lines.items()
    ]
    return "\n".join([table[0], "|---" * (len(found) + 1) + "|", *table[1:]])


def _sized(rows: Metrics) -> str:
    """The sizing paragraph, extrapolated from the measured rate of one core."""
    rate = rows["rank_1_processes"]["users_per_s"]
    hours = USERS / rate / 3600
    largest = max((int(name.split("_")[1]) for name in rows if name.startswith("catalogue_")), default=None)
    out = f"At {rate:.2f} users a second a core, {USERS / 1e6:.0f} million users with this model and catalogue are "
    out += f"{hours:,.0f} core hours: {hours / CORES:,.0f} hours of one machine of {CORES} such cores, "
    out += f"{hours / CORES / 24:,.0f} hours of 24 machines."
    if largest is not None:
        seconds = rows[f"catalogue_{largest}"]["candidates_seconds"]
        hours = USERS * seconds / 3600
        out += f" With {largest:,} items and 500 candidates a user it is {seconds:.2f} s a user in the language model, "
        out += f"{hours:,.0f} core hours: {hours / CORES / 24:,.0f} hours of 24 machines."
    return out


def main(arguments: list[str]) -> None:
    """Rewrite the page."""
    result, path = (Path(one) for one in arguments)
    text = update_page(path.read_text(encoding="utf-8"), json.loads(result.read_text(encoding="utf-8")))
    write_bytes_atomic(path, text.encode())


if __name__ == "__main__":
    main(sys.argv[1:])
