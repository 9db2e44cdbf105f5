"""Report sections of the suites: tables and charts from result files, for one data set at a time."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llmrec.eval.report import plots
from llmrec.eval.report.page import Block, Paragraph, Picture, Section, Table
from llmrec.eval.report.results import Result, merge_results
from llmrec.eval.result_file import Estimate
from llmrec.eval.slices import SLICE_DESCRIPTIONS

Rows = Mapping[str, Mapping[str, Estimate]]

MAIN = ("recall@10", "ndcg@10", "mrr@10", "coverage@10", "ndcg@10/seen_kept", "recall@1/of20")
CUTS = tuple(tuple(f"{name}@{k}" for k in (1, 3, 5, 10, 20, 50)) for name in ("recall", "ndcg", "mrr"))
BEYOND = ("coverage@10", "gini@10", "novelty@10", "diversity@10", "popularity_lift@10")
AGREEMENT = ("kendall_tau", "rbo", "overlap@10", "top1_flip", "ndcg@10", "ndcg@10_spread", "answered")
GROUNDED = ("exists", "satisfied", "all_satisfied", "off_list_titles", "contradicted_claims", "answered")


def accuracy(results: Sequence[Result], folder: Path) -> list[Section]:
    """Main table, cut-offs, slices, and properties of the lists beyond accuracy."""
    rows, source, protocol = merge_results(results), sources(results), results[0].protocol
    stem = folder / results[0].path.stem
    title = f"Accuracy, {results[0].dataset}, {protocol.get('split', 'held out')}"
    own = protocol.get("encoder", "sasrec")
    p = protocol.get(f"p_ndcg@10_vs_{own}", {})
    there = [metric for metric in MAIN if any(metric in metrics for metrics in rows.values())]
    main = [[name, *_cells(metrics, there, True), _p(p.get(name))] for name, metrics in rows.items()]
    whole = {metric: [rows[name].get(metric) for name in rows] for metric in MAIN[:2]}
    drawn = bars(_svg(stem), list(rows), whole, "mean over users", "Recall and NDCG at 10", source)
    table = Table(["", *there, f"p (ndcg@10) against {own}"], main, source)
    return [
        Section(title, [Paragraph(protocol_paragraph(protocol)), table, drawn]),
        Section(f"{title}: every cut-off", [_wide(rows, cuts, source) for cuts in CUTS]),
        Section(f"{title}: slices", _slices(rows, protocol, stem, source)),
        Section(f"{title}: popularity, coverage, diversity", [_wide(rows, BEYOND, source), *_bias(rows, stem, source)]),
    ]


def _slices(rows: Rows, protocol: Mapping[str, Any], stem: Path, source: str) -> list[Block]:
    """NDCG@10 of every row over every slice that has users."""
    there = [name for name in SLICE_DESCRIPTIONS if any(f"ndcg@10/{name}" in metrics for metrics in rows.values())]
    labels = [f"{name} ({protocol.get(f'users_{name}', '?')})" for name in there]
    metrics = [f"ndcg@10/{name}" for name in there]
    meant = "; ".join(f"{name}: {SLICE_DESCRIPTIONS[name]}" for name in there)
    lines = [[name, *_cells(own, metrics, True)] for name, own in rows.items()]
    drawn = {name: [rows[name].get(one) for one in metrics] for name in _shown(rows, protocol)}
    return [
        Paragraph(f"NDCG@10 of the users of each slice, their number in brackets. {meant}."),
        Table(["", *labels], lines, source),
        bars(_svg(stem, "slices"), labels, drawn, "ndcg@10", "NDCG@10 by slice", source),
    ]


def _bias(rows: Rows, stem: Path, source: str) -> list[Block]:
    """How much more popular the shown items are than the user's history, plotted against accuracy."""
    found = {n: (m["popularity_lift@10"].mean, m["ndcg@10"].mean) for n, m in rows.items() if "popularity_lift@10" in m}
    if not found:
        return []
    path = _svg(stem, "popularity")
    plots.points(path, found, "popularity lift of the list over the history", "ndcg@10")
    return [Picture(path, "Popularity bias: 0 is as popular as what the user took before", source)]


def _shown(rows: Rows, protocol: Mapping[str, Any]) -> list[str]:
    """The rows shown in a picture: the model's, the encoder, the best baseline."""
    wanted = {"hybrid", "llm", str(protocol.get("encoder", "sasrec")), str(protocol.get("best_baseline"))}
    return [name for name in rows if name in wanted] or list(rows)[:4]


def stability(results: Sequence[Result], folder: Path) -> list[Section]:
    """Agreement under each kind of change, for every row."""
    rows, source, stem = merge_results(results), sources(results), results[0].path.stem
    groups = list(dict.fromkeys(m.partition("/")[0] for one in rows.values() for m in one if "/top1_flip" in m))
    lines = [
        [f"{name}, {group}", *_cells(metrics, [f"{group}/{one}" for one in AGREEMENT], False)]
        for name, metrics in rows.items()
        for group in groups
        if f"{group}/top1_flip" in metrics
    ]
    blocks: list[Block] = [Paragraph(protocol_paragraph(results[0].protocol)), Table(["", *AGREEMENT], lines, source)]
    for metric, shows in (
        ("overlap@10", "Overlap of the first ten"),
        ("top1_flip", "How often the first place changes"),
    ):
        series = {name: [metrics.get(f"{group}/{metric}") for group in groups] for name, metrics in rows.items()}
        path = folder / f"{stem}-{metric.replace('@', '')}.svg"
        blocks.append(bars(path, groups, series, metric, shows, source))
    return [Section(f"Stability, {results[0].dataset}", blocks)]


def retention(results: Sequence[Result], folder: Path) -> list[Section]:
    """Language ability before and after tuning."""
    rows, source = merge_results(results), sources(results)
    header = ("base", "tuned", "difference", "se_difference", "ratio", "n")
    main = {f"{task} {metric}" for task, metric in dict(results[0].protocol.get("main", {})).items()}
    shown = [name for name in rows if name in main and {"base", "tuned"} <= set(rows[name])]
    series = {side: [rows[name][side] for name in shown] for side in ("base", "tuned")}
    path = folder / f"{results[0].path.stem}.svg"
    return [
        Section(f"Language retention, {results[0].dataset}", [
            Paragraph(protocol_paragraph(results[0].protocol)),
            _wide(rows, header, source),
            bars(path, shown, series, "accuracy", "Language benchmarks before (base) and after tuning", source),
        ])
    ]  # fmt: skip


def grounding(results: Sequence[Result], folder: Path) -> list[Section]:
    """Existence, constraints and claims, and how the semantic IDs are used."""
    rows, source, dataset = merge_results(results), sources(results), results[0].dataset
    asked = {name: metrics for name, metrics in rows.items() if "satisfied" in metrics}
    met = {"satisfied": [metrics["satisfied"] for metrics in asked.values()]}
    stem = results[0].path.stem
    sections = [
        Section(f"Grounding, {dataset}", [
            Paragraph(protocol_paragraph(results[0].protocol)),
            _wide(asked, GROUNDED, source),
            bars(folder / f"{stem}.svg", list(asked), met, "share of a list's items", "Constraints satisfied", source),
        ])
    ]  # fmt: skip
    codes = rows.get("semantic IDs")
    if codes:
        used = {name: value for name, value in codes.items() if re.fullmatch(r"usage_level_\d+", name)}
        table = Table(["", "value"], [[name, _number(value.mean)] for name, value in codes.items()], source)
        levels = [name.replace("_", " ") for name in used]
        shown = bars(folder / f"{stem}-ids.svg", levels, {"used": list(used.values())}, "share of codes in use",
                     "Use of the semantic-ID code book", source)  # fmt: skip
        sections.append(Section(f"Semantic IDs, {dataset}", [table, shown]))
    return sections


def generic_section(result: Result) -> Section:
    """All numbers of a result without a section of its own, such as a bench."""
    rows = [
        [f"{name}: {metric}", _number(value.mean), f"{_number(value.ci95[0])} to {_number(value.ci95[1])}"]
        for name, metrics in result.rows.items()
        for metric, value in metrics.items()
    ]
    table = Table(["", "value", "interval"], rows, result.source)
    return Section(f"{result.suite}, {result.dataset}", [Paragraph(protocol_paragraph(result.protocol)), table])


def target_tables(results: Iterable[Result]) -> Section:
    """The numbers that the project is held to, by file."""
    blocks = []
    for result in results:
        rows = [[name, "not measured" if value is None else _number(value)] for name, value in result.targets.items()]
        if rows:
            blocks.append(Table([result.path.stem, "value"], rows, result.source))
    return Section("Targets", blocks)


def curves(lines: Sequence[Mapping[str, Any]], path: Path, source: str) -> list[Block]:
    """Losses and validation metrics against the number of tokens trained on, from the journal of a training run."""
    names = sorted({name for line in lines for name in line if not name.startswith("task/")})
    losses = [name for name in names if name not in ("step", "tokens", "seconds", "ndcg10")]
    blocks: list[Block] = []
    for stem, wanted, up in (("losses", losses, "nats"), ("validation", ["ndcg10"], "validation ndcg@10")):
        series = {n: [(float(one["tokens"]), float(one[n])) for one in lines if n in one] for n in wanted}
        series = {name: some for name, some in series.items() if some}
        if series:
            picture = _svg(path, stem)
            plots.lines(picture, series, "tokens trained on", up)
            blocks.append(Picture(picture, f"Learning curves: {stem}", source))
    return blocks


def protocol_paragraph(protocol: Mapping[str, Any]) -> str:
    """The protocol in one paragraph: all its entries except tables of numbers."""
    said = []
    for name, value in protocol.items():
        if isinstance(value, Mapping):
            flat = all(isinstance(one, str | int | float) for one in value.values())
            value = ", ".join(f"{n} {v}" for n, v in value.items()) if flat and not name.startswith("p_") else ""
        if isinstance(value, list | tuple):
            value = ", ".join(map(str, value))
        if value != "":
            said.append(f"{name.replace('_', ' ')}: {value}")
    return "; ".join(said) + "."


def bars(
    path: Path,
    labels: Sequence[str],
    series: Mapping[str, Sequence[Estimate | None]],
    unit: str,
    shows: str,
    source: str,
) -> Block:
    """A bar chart, or a paragraph if there is nothing to draw."""
    drawn = {name: values for name, values in series.items() if any(value is not None for value in values)}
    if not labels or not drawn:
        return Paragraph(f"{shows}: nothing to draw.")
    plots.bars(path, labels, drawn, unit)
    sure = all(value.ci95[0] == value.ci95[1] for values in drawn.values() for value in values if value is not None)
    return Picture(path, shows if sure else f"{shows}, with 95 % intervals", source)


def _svg(stem: Path, what: str = "") -> Path:
    return stem.with_name(f"{stem.name}-{what}.svg" if what else f"{stem.name}.svg")


def sources(results: Sequence[Result]) -> str:
    """The origins of the numbers of several files."""
    return " | ".join(result.source for result in results)


def _wide(rows: Rows, metrics: Sequence[str], source: str) -> Table:
    """A table of the rows, with those metrics that at least one row has."""
    there = [metric for metric in metrics if any(metric in one for one in rows.values())]
    return Table(["", *there], [[name, *_cells(one, there, True)] for name, one in rows.items()], source)


def _cells(metrics: Mapping[str, Estimate], names: Sequence[str], intervals: bool) -> list[str]:
    return [_cell(metrics[name], intervals) if name in metrics else "" for name in names]


def _cell(value: Estimate, interval: bool) -> str:
    low, high = value.ci95
    text = _number(value.mean)
    return f"{text} ({_number(low)} to {_number(high)})" if interval and low != high else text


def _number(value: float) -> str:
    """Format a number with four decimals below ten, as is usual in the field, and fewer above.

    >>> _number(0.12345), _number(943.0), _number(31.25)
    ('0.1235', '943', '31.25')
    """
    if value == int(value) and abs(value) >= 10:
        return f"{value:.0f}"
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.2f}"


def _p(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
