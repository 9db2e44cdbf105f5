"""Measures rankers on the same users and the whole catalogue: per-user values, then means, intervals and tests."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from rich.console import Console

from llmrec.data.interactions import Split
from llmrec.encoders.item_knn import item_counts
from llmrec.errors import RequestError
from llmrec.eval import metrics
from llmrec.eval.console_tables import print_columns
from llmrec.eval.ranked_lists import (
    CANDIDATES,
    Condition,
    Progress,
    RankedLists,
    SplitPart,
    all_items,
    rank_each,
    sampled_candidates,
    target_users,
    targets_of,
    unseen_items,
)
from llmrec.eval.result_file import Estimate, Row, write_per_user
from llmrec.eval.slices import sampled, slices_of
from llmrec.ranker import Mask, Ranker, Rows, Scores

__all__ = ["AccuracyTable", "UserMetrics", "evaluate", "measure", "tabulate"]

Floats = npt.NDArray[np.float64]
Number = TypeVar("Number", bound=np.generic)
Protocol = Mapping[str, str | int | bool]

MAIN = ("recall@10", "ndcg@10")
SEEN_KEPT, OF_FEW = "seen_kept", f"of{CANDIDATES}"
CUTS: Mapping[str, Sequence[int]] = {"": metrics.KS, SEEN_KEPT: (10,), OF_FEW: (1, 5, 10)}


@dataclass(frozen=True)
class UserMetrics:
    """Metric values of every user under every ranker, before averaging.

    Attributes:
        users: int64[u], user numbers.
        targets: int64[u], rows.
        histories: u arrays of rows.
        values: ranker to metric to float64[u]; NaN where a metric is not defined for a user, or where the ranker was
            not run for that user. A suffix names the candidate set when it is not the unseen items:
            `ndcg@10/seen_kept`, `ndcg@10/of20`.
        whole: ranker to metrics over all its lists together, such as coverage@10; empty for rankers run on a sample of
            users.
        tops: ranker to int64[u, 10], the top unseen items; -1 for users for whom the ranker was not run.
        ranks: ranker to int64[u], 0-based rank of the target within the top 51 unseen items; -1 if it ranks lower or
            the ranker was not run.
        slices: name to bool[u].
        protocol: how the values were measured, for the result file.
    """

    users: Rows
    targets: Rows
    histories: Sequence[Rows]
    values: Mapping[str, Mapping[str, Floats]]
    whole: Mapping[str, Mapping[str, float]]
    tops: Mapping[str, Rows]
    ranks: Mapping[str, Rows]
    slices: Mapping[str, Mask]
    protocol: Protocol

    def asked(self, ranker: str) -> Mask:
        """bool[u], the users for whom the ranker was run."""
        return ~np.isnan(self.values[ranker][MAIN[0]])

    def save(self, out: Path, dataset: str) -> Path:
        """Write all values and the slices to `<out>/per_user/per-user-<dataset>.parquet`."""
        columns = {f"{ranker} {m}": value for ranker, own in self.values.items() for m, value in own.items()}
        slices = {f"slice {name}": mask for name, mask in self.slices.items()}
        return write_per_user(out, dataset, {"user": self.users, **slices, **columns})


@dataclass(frozen=True)
class AccuracyTable:
    """Statistics computed from the per-user values.

    Attributes:
        measured: the per-user values.
        estimates: ranker to metric to mean and interval; `ndcg@10/cold` is the mean over that slice's users.
        pairs: metric to ranker to ranker to the two-sided p-value of their difference, not corrected for multiple
            tests.
        reference: the row that the others are compared with.
    """

    measured: UserMetrics
    estimates: Mapping[str, Mapping[str, Estimate]]
    pairs: Mapping[str, Mapping[str, Mapping[str, float]]]
    reference: str

    @property
    def rows(self) -> list[Row]:
        """The rows of a result file."""
        return [Row(name, estimates) for name, estimates in self.estimates.items()]

    def p(self, metric: str) -> dict[str, float]:
        """P-values of every other ranker's difference from the reference."""
        return {name: p for name, p in self.pairs[metric][self.reference].items() if name != self.reference}

    def mean(self, ranker: str, metric: str) -> float:
        """The mean of one ranker and metric, such as `mean("sasrec", "ndcg@10")`."""
        return self.estimates[ranker][metric].mean

    def ratio(self, ours: str, theirs: str, metric: str) -> float | None:
        """Our mean divided by theirs; None when a row or its slice is missing, or theirs is 0."""
        if any(metric not in self.estimates.get(name, {}) for name in (ours, theirs)):
            return None
        below = self.mean(theirs, metric)
        return self.mean(ours, metric) / below if below else None


def evaluate(
    rankers: Sequence[Ranker],
    split: Split,
    n_items: int,
    *,
    part: SplitPart = "test",
    limit: int | None = None,
    seed: int = 0,
    reference: str | None = None,
    vectors: Scores | None = None,
    batch: int = 64,
    progress: Progress | None = None,
) -> AccuracyTable:
    """Run `measure` and `tabulate`."""
    against = _reference([ranker.name for ranker in rankers], reference)
    measured = measure(
        rankers, split, n_items, part=part, limit=limit, seed=seed, vectors=vectors, batch=batch, progress=progress
    )
    return tabulate(measured, against, seed)


def measure(
    rankers: Sequence[Ranker],
    split: Split,
    n_items: int,
    *,
    part: SplitPart = "test",
    limit: int | None = None,
    seed: int = 0,
    vectors: Scores | None = None,
    batch: int = 64,
    progress: Progress | None = None,
    ranked: Mapping[str, Mapping[str, RankedLists]] | None = None,
) -> UserMetrics:
    """Rank for the same users under three conditions: unseen items (the main one), all items, 20 candidates.

    Ties count against the target, so equal scores never help. `limit` restricts the measurement to that many users,
    drawn by `seed`, which also draws the candidates. With `vectors`, float32[n, d] of unit length, diversity@10 is
    measured. `ranked` holds rows whose lists already exist for these users or some of them. The other arguments are
    those of `rank_each`.

    Raises:
        RequestError: two rankers have the same name, or there are no users to measure on.
    """
    _reference([*(ranker.name for ranker in rankers), *(ranked or ())], None)
    users = target_users(split, part, limit, seed)
    histories = [split.history(int(user), part) for user in users]
    targets, counts = targets_of(split, part)[users], item_counts(split.train, n_items)
    lists = rank_each(rankers, split, part, n_items, conditions(seed), users, batch, progress) | dict(ranked or {})
    main = {name: own[""] for name, own in lists.items()}
    at = {name: np.searchsorted(users, own.users) for name, own in main.items()}
    values = {name: _values(own, [histories[i] for i in at[name]], counts, vectors) for name, own in lists.items()}
    slices = slices_of(targets, histories, counts) | sampled(users, [own.users for own in main.values()])
    return UserMetrics(
        users,
        targets,
        histories,
        {name: {m: _spread(v, at[name], len(users), np.nan) for m, v in own.items()} for name, own in values.items()},
        {name: _whole(own, n_items) if len(own.users) == len(users) else {} for name, own in main.items()},
        {name: _spread(own.rows[:, :10], at[name], len(users), -1) for name, own in main.items()},
        {name: _spread(own.ranks(), at[name], len(users), -1) for name, own in main.items()},
        slices,
        _protocol(split, part, n_items, targets, histories, slices),
    )


def _spread(values: npt.NDArray[Number], at: Rows, n: int, empty: float) -> npt.NDArray[Number]:
    """Scatter [m, ...] into [n, ...] of the same type: line i goes to `at[i]`, all other lines are `empty`."""
    out = np.full((n, *values.shape[1:]), empty, values.dtype)
    out[at] = values
    return out


def conditions(seed: int) -> dict[str, Condition]:
    """The candidate sets, by the suffix of their metrics; `seed` draws the sampled candidates."""
    deep = max(metrics.KS) + 1  # one more than the largest cut-off because of ties, see ranks_of
    return {
        "": Condition(deep, unseen_items),
        SEEN_KEPT: Condition(max(CUTS[SEEN_KEPT]) + 1, all_items),
        OF_FEW: Condition(CANDIDATES, sampled_candidates(seed)),
    }


def tabulate(measured: UserMetrics, reference: str, seed: int) -> AccuracyTable:
    """Compute means, 95 % bootstrap intervals over users, and paired tests between all rows, all seeded with `seed`."""
    estimates = {
        name: _estimates(own, measured.slices, measured.asked(name), seed)
        | {metric: Estimate(value, (value, value)) for metric, value in measured.whole[name].items()}
        for name, own in measured.values.items()
    }
    names = list(measured.values)
    pairs = {}
    for metric in MAIN:
        p = _paired(np.stack([measured.values[name][metric] for name in names], axis=1), seed)
        pairs[metric] = {
            one: {other: float(p[i, j]) for j, other in enumerate(names) if i != j} for i, one in enumerate(names)
        }
    return AccuracyTable(measured, estimates, pairs, reference)


def _paired(values: Floats, seed: int) -> Floats:
    """float64[m, m]: p-values of all pairs of columns.

    If one of the two columns lacks users, the test uses the users that every column has.
    """
    missing = np.isnan(values)
    p = metrics.paired_ps(values[~missing.any(axis=1)], seed)
    full = np.flatnonzero(~missing.any(axis=0))
    if len(full) < values.shape[1]:
        p[np.ix_(full, full)] = metrics.paired_ps(values[:, full], seed)
    return p


def _reference(names: Sequence[str], reference: str | None) -> str:
    against = names[0] if reference is None and names else reference
    if against is None or against not in names or len(set(names)) != len(names):
        raise RequestError(
            f"rankers are {list(names)}, the reference {reference!r}; names differ and it is one of them"
        )
    return against


def _values(
    lists: Mapping[str, RankedLists], histories: Sequence[Rows], counts: Rows, vectors: Scores | None
) -> dict[str, Floats]:
    values: dict[str, Floats] = {}
    for condition, own in lists.items():
        found = metrics.per_user(own.ranks(), CUTS[condition])
        values |= {f"{name}/{condition}" if condition else name: value for name, value in found.items()}
    rows = lists[""].rows
    values["novelty@10"] = metrics.novelty(rows, counts, 10)
    values["popularity_lift@10"] = metrics.popularity_lift(rows, histories, counts, 10)
    if vectors is not None:
        values["diversity@10"] = metrics.diversity(rows, vectors, 10)
    return values


def _estimates(
    everyone: Mapping[str, Floats], slices: Mapping[str, Mask], asked: Mask, seed: int
) -> dict[str, Estimate]:
    """Means and intervals over the users for whom the ranker was run; the main metrics also per non-empty slice."""
    values = {name: value[asked] for name, value in everyone.items()}
    whole = [name for name, value in values.items() if not np.isnan(value).any()]
    partly = {name: value[~np.isnan(value)] for name, value in values.items() if name not in whole}
    groups = [(whole, np.stack([values[name] for name in whole], axis=1))]
    groups += [([name], value[:, None]) for name, value in partly.items()]
    for slice_name, mask in slices.items():
        columns = np.stack([everyone[name][mask & asked] for name in MAIN], axis=1)
        groups.append(([f"{name}/{slice_name}" for name in MAIN], columns))
    estimates = {}
    for names, columns in groups:
        if len(columns):
            low, high = metrics.bootstrap_cis(columns, seed)
            for i, name in enumerate(names):
                estimates[name] = Estimate(float(columns[:, i].mean()), (float(low[i]), float(high[i])))
    return estimates


def _whole(lists: RankedLists, n_items: int) -> dict[str, float]:
    """Metrics of all lists together; they have no per-user values, so there is no interval over users."""
    return {
        "coverage@10": metrics.coverage(lists.rows, n_items, 10),
        "gini@10": metrics.gini(lists.rows, n_items, 10),
    }


def _protocol(
    split: Split, part: SplitPart, n_items: int, targets: Rows, histories: Sequence[Rows], slices: Mapping[str, Mask]
) -> dict[str, str | int | bool]:
    return {
        "split": split.name,
        "part": part,
        "candidates": f"all {n_items} items",
        "seen_filtered": True,
        SEEN_KEPT: f"metrics with /{SEEN_KEPT}: the same lists with the items of the history not filtered",
        OF_FEW: f"metrics with /{OF_FEW}: the target among {CANDIDATES - 1} unseen items drawn evenly by seed and user",
        "ties": "count against the target",
        "users": len(targets),
        "repeated_targets": sum(int(target in past) for target, past in zip(targets, histories, strict=True)),
        **{f"users_{name}": int(mask.sum()) for name, mask in slices.items()},
    }


EXTRA_COLUMNS = ("coverage@10", "ndcg@10/seen_kept", f"recall@1/{OF_FEW}", "ndcg@10/cold")


def print_accuracy(table: AccuracyTable, console: Console | None = None) -> None:
    """Print the main means with intervals, some other metrics, p-values against the reference, and the protocol."""
    p, rows = table.p(MAIN[1]), []
    for name, estimates in table.estimates.items():
        cells = [_cell(estimates[metric], True) for metric in MAIN]
        cells += [_cell(estimates[metric], False) if metric in estimates else "" for metric in EXTRA_COLUMNS]
        rows.append([_named(table, name), *cells, f"{p[name]:.4f}" if name in p else ""])
    print_columns(["", *MAIN, *EXTRA_COLUMNS, f"p vs {table.reference}"], rows, console)
    out = console or Console()
    for key, value in table.measured.protocol.items():
        out.print(f"{key} {value}", markup=False)


def _named(table: AccuracyTable, row: str) -> str:
    """The row's name, with the number of users if it does not cover all of them."""
    asked = table.measured.asked(row)
    return row if asked.all() else f"{row} ({asked.sum()} users)"


def _cell(estimate: Estimate, interval: bool) -> str:
    low, high = estimate.ci95
    return f"{estimate.mean:.4f}" + (f" ({low:.4f}-{high:.4f})" if interval else "")
