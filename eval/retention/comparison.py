"""Compares the tuned with the base model on the same items: paired differences, standard errors and targets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Console

from llmrec.eval.console_tables import print_columns
from llmrec.eval.result_file import Estimate, Row, Target
from llmrec.eval.retention.store import Values

WORSE = 2.0  # a task counts as worse if it is this many standard errors below the base
Z95 = 1.959964


@dataclass(frozen=True)
class ComparedMetric:
    """One metric of one task, base and tuned on the same n items.

    Attributes:
        task, metric: names.
        base, tuned: means with 95 % normal intervals.
        difference: tuned minus base, with the interval of the paired difference.
        se: standard error of the paired difference.
        n: number of items.
        main: whether this metric represents its task among the accuracies.
    """

    task: str
    metric: str
    base: Estimate
    tuned: Estimate
    difference: Estimate
    se: float
    n: int
    main: bool

    @property
    def worse(self) -> bool:
        """Lower by more than two standard errors."""
        return self.difference.mean < -WORSE * self.se

    @property
    def better(self) -> bool:
        """Higher by more than two standard errors."""
        return self.difference.mean > WORSE * self.se

    @property
    def row(self) -> Row:
        """A line of the result file."""
        metrics = {"base": self.base, "tuned": self.tuned, "difference": self.difference}
        metrics |= {"se_difference": _plain(self.se), "n": _plain(float(self.n))}
        return Row(f"{self.task} {self.metric}", metrics)


def compare(task: str, base: Values, tuned: Values, main: str | None) -> list[ComparedMetric]:
    """Compare every metric of a task; text columns are skipped.

    Raises:
        ValueError: the two sides have different numbers of items.
    """
    if len(base) != len(tuned) or not base:
        raise ValueError(f"{task}: {len(base)} items of the base and {len(tuned)} of the tuned model are no pairs")
    out = []
    for metric in (name for name, value in base[0].items() if not isinstance(value, str)):
        b, t = (np.array([float(one[metric]) for one in side]) for side in (base, tuned))
        gain = t - b
        out.append(ComparedMetric(task, metric, _mean(b), _mean(t), _mean(gain), _error(gain), len(b), metric == main))
    return out


def perplexity(nats: ComparedMetric, tokens: int, words: int) -> Row:
    """Word-level perplexity and its ratio, from nats per token and the length of the whole text in tokens and words.

    Nats per token are estimated from sampled blocks; tokens per word are known exactly. The intervals follow from those
    of the nats.
    """
    scale = tokens / words
    base, tuned, ratio = (_exp(one, scale) for one in (nats.base, nats.tuned, nats.difference))
    return Row(f"{nats.task} word_ppl", {"base": base, "tuned": tuned, "ratio": ratio, "n": _plain(float(nats.n))})


def targets(compared: Sequence[ComparedMetric], ppl_ratio: float) -> list[Target]:
    """The numbers that the project is held to.

    `task_mean_ratio` is the tuned model's mean accuracy over the tasks divided by the base model's. A task counts as
    worse if its main accuracy is lower by more than two standard errors of the paired difference.
    """
    mains = [one for one in compared if one.main]
    below = sum(one.base.mean for one in mains)
    return [
        Target("wikitext2_ppl_ratio", ppl_ratio),
        Target("task_mean_ratio", sum(one.tuned.mean for one in mains) / below if below else None),
        Target("tasks_significantly_worse", float(sum(one.worse for one in mains)) if mains else None),
    ]


def print_retention(
    compared: Sequence[ComparedMetric], ppl: Row, named: Mapping[str, float | None], console: Console
) -> None:
    """Print the comparison, with main metrics marked by *, and the targets."""
    rows = []
    for one in compared:
        verdict = "worse" if one.worse else "better" if one.better else ""
        cells = (f"{value:.4f}" for value in (one.base.mean, one.tuned.mean, one.difference.mean, one.se))
        judged = verdict if one.main else ""
        rows.append([f"{one.task} {one.metric}{'*' if one.main else ''}", str(one.n), *cells, judged])
    cells = (f"{ppl.metrics[name].mean:.4f}" for name in ("base", "tuned"))
    rows.append([ppl.name, f"{ppl.metrics['n'].mean:.0f}", *cells, f"x {ppl.metrics['ratio'].mean:.4f}", "", ""])
    print_columns(["", "n", "base", "tuned", "difference", "SE", ""], rows, console)
    for name, value in named.items():
        console.print(f"{name} {'-' if value is None else f'{value:.4f}'}", markup=False)


def _mean(values: np.ndarray) -> Estimate:
    mean, half = float(values.mean()), Z95 * _error(values)
    return Estimate(mean, (mean - half, mean + half))


def _error(values: np.ndarray) -> float:
    """Standard error of a mean; 0 for a single value."""
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else 0.0


def _exp(value: Estimate, scale: float) -> Estimate:
    low, high = (math.exp(scale * end) for end in value.ci95)
    return Estimate(math.exp(scale * value.mean), (low, high))


def _plain(value: float) -> Estimate:
    return Estimate(value, (value, value))
