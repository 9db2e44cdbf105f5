"""The accuracy suite: all rankers over the same users and the whole catalogue, with intervals, p values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from llmrec.errors import RequestError
from llmrec.eval import metrics
from llmrec.eval.lists import Lists, Part, Progress, rank_all, target_users, targets_of
from llmrec.eval.protocol import Estimate, Row, write_per_user
from llmrec.interactions import Split
from llmrec.neighbours import item_counts
from llmrec.rank import Mask, Ranker, Rows, Scores

__all__ = ["AccuracyTable", "Lists", "evaluate", "print_table", "rank_all", "target_users"]

Floats = npt.NDArray[np.float64]

COLD = 5  # a target with fewer train interactions than this is cold
MAIN = ("recall@10", "ndcg@10")


@dataclass(frozen=True)
class AccuracyTable:
    """Per-user values of every ranker over the same users, and what follows from them.

    Attributes:
        users: int64[u], user numbers.
        values: ranker to metric to float64[u]; NaN where a metric is not defined for a user.
        estimates: ranker to metric to mean and interval; `ndcg@10/cold` is the mean over that slice's users.
        p: ranker to metric to the two-sided p of its difference from the reference (the reference has none).
        slices: name to bool[u].
        reference: the row that p values compare with.
        repeats: users whose target is in their history already. With seen items filtered nobody can hit it;
            they stay in the mean, as misses.
        protocol: how it was measured, for the result file.
    """

    users: Rows
    values: Mapping[str, Mapping[str, Floats]]
    estimates: Mapping[str, Mapping[str, Estimate]]
    p: Mapping[str, Mapping[str, float]]
    slices: Mapping[str, Mask]
    reference: str
    repeats: int
    protocol: Mapping[str, str | int | bool]

    @property
    def rows(self) -> list[Row]:
        """The rows of a result file."""
        return [Row(name, estimates) for name, estimates in self.estimates.items()]

    def mean(self, ranker: str, metric: str) -> float:
        """One cell, such as `mean("sasrec", "ndcg@10")`."""
        return self.estimates[ranker][metric].mean

    def ratio(self, ours: str, theirs: str, metric: str) -> float:
        """Our mean over theirs; not a number when theirs is 0."""
        below = self.mean(theirs, metric)
        return self.mean(ours, metric) / below if below else float("nan")

    def save_per_user(self, out: Path, dataset: str) -> Path:
        """Write every per-user value to `<out>/per_user/per-user-<dataset>.parquet`."""
        columns = {f"{ranker} {m}": value for ranker, own in self.values.items() for m, value in own.items()}
        return write_per_user(out, dataset, {"user": self.users, **columns})


def evaluate(
    rankers: Sequence[Ranker],
    split: Split,
    n_items: int,
    *,
    part: Part = "test",
    seen_filtered: bool = True,
    limit: int | None = None,
    seed: int = 0,
    reference: str | None = None,
    vectors: Scores | None = None,
    batch: int = 64,
    progress: Progress | None = None,
) -> AccuracyTable:
    """Measure rankers on the same users; what is not said here of the arguments is said in `rank_all`.

    Ties count against the target, so equal scores help nobody. `reference` names the row that the others
    are compared with (None takes the first). `limit` draws that many users by `seed`, which also seeds
    bootstrap and paired test. With `vectors`, float32[n, d] of unit length, diversity@10 is measured.

    Raises:
        RequestError: names of rankers that are equal or lack the reference, or nobody to measure on.
    """
    against = _reference(rankers, reference)
    users = target_users(split, part, limit, seed)
    people = _People.of(split, part, n_items, users)
    deep = max(metrics.KS) + 1  # one more than the largest cut-off: see ranks_of about ties
    values: dict[str, dict[str, Floats]] = {}
    estimates: dict[str, dict[str, Estimate]] = {}
    for ranker in rankers:
        lists = rank_all(ranker, split, part, n_items, deep, seen_filtered, users, batch, progress)
        values[ranker.name] = own = _per_user(lists, people, vectors)
        estimates[ranker.name] = _estimates(own, people.slices, seed) | _whole(lists, n_items)
    protocol = _protocol(split, part, n_items, seen_filtered, people)
    p = _p_values(values, against, seed)
    return AccuracyTable(users, values, estimates, p, people.slices, against, people.repeats, protocol)


@dataclass(frozen=True)
class _People:
    """Whom it is measured on: u users' histories and targets, and the train counts int64[n] of the items."""

    histories: list[Rows]
    targets: Rows
    counts: Rows

    @staticmethod
    def of(split: Split, part: Part, n_items: int, users: Rows) -> "_People":
        histories = [split.history(int(user), part) for user in users]
        return _People(histories, targets_of(split, part)[users], item_counts(split.train, n_items))

    @property
    def slices(self) -> dict[str, Mask]:
        """Users with a cold target, and users with a short or a long history, cut at the median."""
        lengths = np.array([len(history) for history in self.histories])
        short = lengths <= np.median(lengths)
        return {"cold": self.counts[self.targets] < COLD, "short": short, "long": ~short}

    @property
    def repeats(self) -> int:
        return sum(int(target in past) for target, past in zip(self.targets, self.histories, strict=True))


def _reference(rankers: Sequence[Ranker], reference: str | None) -> str:
    names = [ranker.name for ranker in rankers]
    against = names[0] if reference is None and names else reference
    if against is None or against not in names or len(set(names)) != len(names):
        raise RequestError(f"rankers are {names}, the reference {reference!r}; names differ and it is one of them")
    return against


def _p_values(values: Mapping[str, Mapping[str, Floats]], against: str, seed: int) -> dict[str, dict[str, float]]:
    base = values[against]
    return {
        name: {metric: metrics.paired_p(own[metric], base[metric], seed) for metric in MAIN}
        for name, own in values.items()
        if name != against
    }


def _per_user(lists: Lists, people: _People, vectors: Scores | None) -> dict[str, Floats]:
    values = metrics.per_user(metrics.ranks_of(lists.rows, lists.targets, lists.scores))
    values["novelty@10"] = metrics.novelty(lists.rows, people.counts, 10)
    values["popularity_lift@10"] = metrics.popularity_lift(lists.rows, people.histories, people.counts, 10)
    if vectors is not None:
        values["diversity@10"] = metrics.diversity(lists.rows, vectors, 10)
    return values


def _estimates(values: Mapping[str, Floats], slices: Mapping[str, Mask], seed: int) -> dict[str, Estimate]:
    """Means and intervals over all users, and of the main metrics over each slice that has any."""
    whole = [name for name, value in values.items() if not np.isnan(value).any()]
    partly = {name: value[~np.isnan(value)] for name, value in values.items() if name not in whole}
    groups = [(whole, np.stack([values[name] for name in whole], axis=1))]
    groups += [([name], value[:, None]) for name, value in partly.items()]
    for slice_name, mask in slices.items():
        columns = np.stack([values[name][mask] for name in MAIN], axis=1)
        groups.append(([f"{name}/{slice_name}" for name in MAIN], columns))
    estimates = {}
    for names, columns in groups:
        if len(columns):
            low, high = metrics.bootstrap_cis(columns, seed)
            for i, name in enumerate(names):
                estimates[name] = Estimate(float(columns[:, i].mean()), (float(low[i]), float(high[i])))
    return estimates


def _whole(lists: Lists, n_items: int) -> dict[str, Estimate]:
    """Properties of all lists together; no user has one, so there is no interval over users."""
    found = {
        "coverage@10": metrics.coverage(lists.rows, n_items, 10),
        "gini@10": metrics.gini(lists.rows, n_items, 10),
    }
    return {name: Estimate(value, (value, value)) for name, value in found.items()}


def _protocol(
    split: Split, part: Part, n_items: int, seen_filtered: bool, people: _People
) -> dict[str, str | int | bool]:
    return {
        "split": split.name,
        "part": part,
        "candidates": f"all {n_items} items",
        "seen_filtered": seen_filtered,
        "ties": "count against the target",
        "users": len(people.targets),
        "repeated_targets": people.repeats,
        **{f"users_{name}": int(mask.sum()) for name, mask in people.slices.items()},
    }


def print_table(table: AccuracyTable, console: Console | None = None) -> None:
    """Print the main means with intervals, coverage, and p against the reference; the rest is in the result file."""
    out = console or Console()
    view = Table("", *MAIN, "coverage@10", f"p vs {escape(table.reference)}", box=None)
    for name, estimates in table.estimates.items():
        p = "" if name == table.reference else f"{table.p[name]['ndcg@10']:.4f}"
        view.add_row(
            escape(name), *(_cell(estimates[m], True) for m in MAIN), _cell(estimates["coverage@10"], False), p
        )
    out.print(view)
    out.print(escape(", ".join(f"{key} {value}" for key, value in table.protocol.items())))


def _cell(estimate: Estimate, interval: bool) -> str:
    low, high = estimate.ci95
    return f"{estimate.mean:.4f}" + (f" ({low:.4f}-{high:.4f})" if interval else "")
