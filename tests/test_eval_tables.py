"""Every suite's table on a console of 80 columns: each number stands whole on one line."""

import io
import re

import numpy as np
import pytest
from conftest import make_interactions
from rich.console import Console

from llmrec.data.interactions import leave_one_out
from llmrec.encoders.item_knn import item_counts
from llmrec.eval import console_tables
from llmrec.eval.accuracy.measurement import EXTRA_COLUMNS, evaluate, print_accuracy
from llmrec.eval.baselines.rankers import Popularity
from llmrec.eval.crs.suite import KS, VIEWS, print_crs
from llmrec.eval.grounding.suite import print_grounding
from llmrec.eval.result_file import Estimate, Row, print_result
from llmrec.eval.retention.comparison import ComparedMetric, print_retention
from llmrec.eval.semantic_ids.model_comparison import METRICS, print_model_comparison
from llmrec.eval.semantic_ids.suite import print_semantic_ids
from llmrec.eval.stability.suite import print_stability

NAMES = ("popularity", "llm, no user vector", "hybrid, no neighbours", "hybrid of a name that is longer than most are")


class Named(Popularity):
    def __init__(self, counts, name):
        super().__init__(counts)
        self.name = name


def rows(metrics, low=-0.1234, high=0.9876):
    """A row a name; every value differs from every other."""
    numbers = iter(np.linspace(0.1111, 0.9999, len(NAMES) * len(metrics)))
    return [Row(name, {m: Estimate(float(next(numbers)), (low, high)) for m in metrics}) for name in NAMES]


def accuracy(console):
    split = leave_one_out(make_interactions())
    counts = item_counts(split.train, 12)
    table = evaluate([Named(counts, name) for name in NAMES], split, 12)
    print_accuracy(table, console)
    for name in NAMES:
        for metric in ("recall@10", "ndcg@10"):
            one = table.estimates[name][metric]
            yield f"{one.mean:.4f} ({one.ci95[0]:.4f}-{one.ci95[1]:.4f})"
        yield from (f"{table.estimates[name][metric].mean:.4f}" for metric in EXTRA_COLUMNS
                    if metric in table.estimates[name])  # fmt: skip
    yield from (f"{key} {value}" for key, value in table.measured.protocol.items() if len(str(value)) < 60)


def stability(console):
    names = [f"paraphrase/{name}" for name in ("kendall_tau", "overlap@10", "top1_flip", "ndcg@10", "ndcg@10_spread")]
    found = rows([*names, *(f"position/ndcg_{n}" for n in range(4))])
    print_stability(found, console)
    yield from (f"{row.metrics[name].mean:.3f}" for row in found for name in names)
    yield from (", ".join(f"{row.metrics[f'position/ndcg_{n}'].mean:.3f}" for n in range(4)) for row in found)


def retention(console):
    one, other, gap = (Estimate(value, (0.1, 0.9)) for value in (0.4321, 0.1234, -0.3087))
    name, metric = "own-instructions-of-a-long-name", "prompt_strict_accuracy"
    compared = [ComparedMetric(name, metric, one, other, gap, 0.0123, 12345, main=True)]
    numbers = {"base": 15.4321, "tuned": 16.5432, "n": 400, "ratio": 1.0720}
    ppl = Row("wikitext2 perplexity", {n: Estimate(v, (v, v)) for n, v in numbers.items()})
    print_retention(compared, ppl, {"wikitext2_ppl_ratio": 1.072, "task_mean_ratio": None}, console)
    yield from ("12345", "0.4321", "0.1234", "-0.3087", "0.0123", "15.4321", "16.5432", "x 1.0720")
    yield from ("wikitext2_ppl_ratio 1.0720", "task_mean_ratio -")


def constraints(console):
    names = ("exists", "satisfied", "all_satisfied", "off_list_titles", "off_catalogue_titles", "contradicted_claims")
    found = rows(names)
    print_grounding(found, console)
    yield from (f"{row.metrics[name].mean:.3f}" for row in found for name in names)


def dialogues(console):
    names = [f"{prefix}recall@{k}" for prefix in VIEWS for k in KS]
    found = rows(names)
    print_crs(found, console)
    yield from (f"{row.metrics[name].mean:.3f}" for row in found for name in names)


def codes(console):
    names = ("perplexity_level_1", "what_uniqueness_moved_and_more", "hourglass")
    found = rows(names)
    print_semantic_ids(found, console)
    yield from (f"{row.metrics[name].mean:.4g}" for row in found for name in names)


def two_models(console):
    found = rows(METRICS)
    print_model_comparison(found, console)
    yield from (f"{row.metrics[m].mean:.4f} (-0.1234 to 0.9876)" for row in found for m in METRICS)


def published(console):
    values = {name: {f"a_metric_of_a_very_long_name_{n}": (0.1234 + n, -1.234e-05, 1.235e-05) for n in range(2)}
              for name in NAMES}  # fmt: skip
    print_result(values, {"dialogue_constraints": 0.987, "p95_items_seconds": None}, console)
    yield from ("0.1234", "1.123", "-1.234e-05 - 1.235e-05", "dialogue_constraints: 0.987")


@pytest.mark.parametrize(
    "suite", [accuracy, stability, retention, constraints, dialogues, codes, two_models, published]
)
@pytest.mark.parametrize("width", [80, 60])
def test_no_number_is_cut_or_wrapped(suite, width):
    console = Console(width=width, file=io.StringIO())
    expected = list(suite(console))
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= width and not any("…" in line for line in lines)
    squeezed = [re.sub(r"\s+", " ", line) for line in lines]
    assert len(expected) >= 4
    for number in expected:
        whole = re.compile(rf"(?<![\w.]){re.escape(number)}(?![\w.])")
        assert any(whole.search(line) for line in squeezed), (number, lines)


def test_labels_are_repeated_and_columns_kept_in_order():
    console = Console(width=30, file=io.StringIO())
    console_tables.print_columns(
        ["", "one", "two", "three"], [["a", "1" * 12, "2" * 12, "[b]3[/b]"], ["b", "4", "5", "6"]], console
    )
    blocks = [block.splitlines() for block in console.file.getvalue().split("\n\n")]
    assert [[line.split() for line in block] for block in blocks] == [
        [["one", "two"], ["a", "1" * 12, "2" * 12], ["b", "4", "5"]],
        [["three"], ["a", "[b]3[/b]"], ["b", "6"]],
    ]
