"""What to know of prepared data before training on it: numbers, and findings that say what they mean.

An `error` is what training cannot do anything with; it is refused. A `warning` is what makes results worse, or look
better than they are. Everything else is a number to look at.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from llmrec.catalog import Catalog
from llmrec.errors import DataError
from llmrec.interactions import Interactions, leave_one_out
from llmrec.sources import check

Level = Literal["error", "warning"]

_FEW_TARGETS = 100  # below this a 95 % interval of recall@10 is wider than most differences
_MANY = 0.2
_CORRELATED = 0.9


@dataclass(frozen=True)
class Finding:
    """One thing found: how bad, a name that does not change, and a sentence with the numbers."""

    level: Level
    name: str
    text: str


@dataclass(frozen=True)
class Examined:
    """Numbers of `sources.check`, and findings, errors first."""

    numbers: dict[str, Any]
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """What stands in the way of training."""
        return tuple(one for one in self.findings if one.level == "error")


def examine(catalog: Catalog, interactions: Interactions) -> Examined:
    """Look at data as training will use it: everything but each user's last two interactions."""
    numbers = check(catalog, interactions)
    numbers["kinds"] = {name: catalog.kind(name) for name in catalog.attribute_names}
    found = [*_sizes(catalog, interactions, numbers), *_items(catalog, numbers), *_leaks(catalog, interactions)]
    return Examined(numbers, tuple(sorted(found, key=lambda one: one.level != "error")))


def refuse_errors(catalog: Catalog, interactions: Interactions) -> None:
    """Raise when there is an error among the findings.

    Raises:
        DataError: the first one, and how many there are.
    """
    errors = examine(catalog, interactions).errors
    if errors:
        more = f" ({len(errors) - 1} more; see `llmrec data check`)" if len(errors) > 1 else ""
        raise DataError(f"this data cannot be trained on: {errors[0].text}{more}")


def _sizes(catalog: Catalog, x: Interactions, numbers: dict[str, Any]) -> Iterator[Finding]:
    lengths = np.diff(x.offsets)
    targets, few, users = int((lengths >= 3).sum()), int((lengths < 3).sum()), len(lengths)
    if len(catalog) < 2:
        yield Finding("error", "too-few-items", f"the catalogue has {len(catalog)} item: nothing to choose from")
    if not (np.diff(leave_one_out(x).train.offsets) >= 2).any():
        text = f"none of {users} users has two interactions beside a validation and a test item: nothing to learn"
        yield Finding("error", "nothing-to-learn", text)
    if targets == 0:
        yield Finding("error", "no-targets", "no user has 3 interactions: nothing can be validated or measured")
    elif targets < _FEW_TARGETS:
        yield Finding("warning", "few-targets", f"{targets} users have a test item: comparisons are noise")
    if few > _MANY * users:
        text = f"{few} of {users} users have fewer than 3 interactions: trained on, never measured"
        yield Finding("warning", "short-histories", text)
    if len(x) > 1 and numbers["time_range"][0] == numbers["time_range"][1]:
        yield Finding("warning", "no-order", "all interactions have the same time: the order of the files stands in")
    elif (ties := numbers["ties_in_time"]) > _MANY * len(x):
        text = f"{ties} of {len(x)} interactions have the time of the user's one before: their order is a guess"
        yield Finding("warning", "ties-in-time", text)


def _items(catalog: Catalog, numbers: dict[str, Any]) -> Iterator[Finding]:
    n, cold, twins = max(1, len(catalog)), numbers["cold_items"], numbers["duplicate_labels"]
    bare = sum(not item.text and not item.attributes for item in catalog.items)
    untitled = sum(item.title in (item.id, f"Item {item.id}", f"Film {item.id}") for item in catalog.items)
    if cold > _MANY * n:
        yield Finding("warning", "cold-items", f"{cold} of {n} items were never taken: only their text can find them")
    if bare > _MANY * n:
        text = f"{bare} of {n} items have neither text nor attributes: words cannot find them, and reasons stay bare"
        yield Finding("warning", "no-text", text)
    if untitled:
        yield Finding("warning", "no-title", f"{untitled} of {n} items are called by their id")
    if twins:
        text = f"{twins} of {n} items share title and year with another: naming one in words is ambiguous"
        yield Finding("warning", "duplicate-titles", text)
    for name in catalog.attribute_names:
        if n > 1 and len(only := catalog.values(name)) == 1:
            text = f"attribute {name!r} is {only[0]!r} wherever it is given: no constraint can use it"
            yield Finding("warning", "constant-attribute", text)


def _leaks(catalog: Catalog, x: Interactions) -> Iterator[Finding]:
    """Hints that a held-out item can be known before it is asked for, or can never be hit."""
    split = leave_one_out(x)
    users = np.flatnonzero(split.test >= 0)
    again = sum(bool((split.history(int(u), "test") == split.test[u]).any()) for u in users)
    if len(users) and again > 0.01 * len(users):
        text = f"{again} of {len(users)} test items were taken before by their user: lists of unseen items miss them"
        yield Finding("warning", "repeated-targets", text)
    last = x.offsets[1:][np.diff(x.offsets) >= 3] - 1
    tied = int((x.time[last] == x.time[last - 1]).sum()) if len(last) else 0
    if len(last) and tied > _MANY * len(last):
        text = f"{tied} of {len(last)} test items have the time of the item before: which one is held out is a guess"
        yield Finding("warning", "tied-targets", text)
    taken = np.bincount(x.row, minlength=len(catalog))
    for name in catalog.attribute_names:
        if catalog.kind(name) == "number" and (rho := _rank_correlation(catalog, name, taken)) > _CORRELATED:
            text = (
                f"attribute {name!r} follows how often items are taken (rank correlation {rho:.2f}): if it was counted "
                "after the held-out interactions, it gives them away"
            )
            yield Finding("warning", "counts-in-attributes", text)


def _rank_correlation(catalog: Catalog, name: str, taken: np.ndarray) -> float:
    """|Spearman| between an attribute and the number of interactions, 0 where fewer than 20 items have it."""
    from scipy.stats import spearmanr

    rows = [row for row, item in enumerate(catalog.items) if name in item.attributes]
    values = np.array([float(str(catalog[row].attributes[name])) for row in rows])
    if len(rows) < 20 or np.ptp(values) == 0 or np.ptp(taken[rows]) == 0:
        return 0.0
    return abs(float(spearmanr(values, taken[rows]).statistic))
