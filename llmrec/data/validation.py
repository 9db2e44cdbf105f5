"""Validates prepared data before training: computes statistics, and reports findings with their consequences.

An `error` makes training impossible, and training refuses such data. A `warning` is a problem that makes results worse,
or makes them look better than they are. Everything else is a statistic.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from llmrec.data.catalog import Catalog
from llmrec.data.dataset import dataset_statistics
from llmrec.data.interactions import Interactions, id_order, leave_one_out
from llmrec.data.readers.common import NO_TIME
from llmrec.data.time_units import find_mixed_units
from llmrec.errors import DataError

Level = Literal["error", "warning"]

_FEW_TARGETS = 100  # below this, the 95 % interval of recall@10 is wider than most differences
_MANY = 0.2
_CORRELATED = 0.9
_SORTED = 0.99  # least share of steps in one direction (up or down), from one interaction of a user to the next
_STEPS = 20  # fewest such steps, or fewest values of an attribute, to judge by
_MARKS = (";", "|", ",", "/", "_")  # possible separators of words, the most reliable first
_OFTEN = 0.5  # least share of an attribute's values that contain a separator
_LONG = 0.2  # least share of values that it splits into three or more parts: `Doe, John` is no list
_UNLIKE = 0.3  # least number of distinct values per item: several tags in one cell rarely repeat as a whole
_UNIQUE = 0.9  # least ratio of distinct values to all values for "nearly every value is unique"
_MOST_PARTS = 0.5  # largest ratio of distinct parts to distinct values after splitting
_MEANS = "sequence models and leave-one-out measures mean little"


@dataclass(frozen=True)
class Finding:
    """One finding: its severity, a stable name, and a sentence with the numbers."""

    level: Level
    name: str
    text: str


@dataclass(frozen=True)
class ValidationReport:
    """The statistics of `dataset_statistics`, and the findings, errors first."""

    numbers: dict[str, Any]
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Findings that make training impossible."""
        return tuple(one for one in self.findings if one.level == "error")


def validate_dataset(catalog: Catalog, interactions: Interactions, notes: Sequence[str] = ()) -> ValidationReport:
    """Validate data as training will use it, that is, without each user's last two interactions.

    Args:
        catalog: the items.
        interactions: the interactions with these items.
        notes: notes of the report that was saved with the data.
    """
    numbers = dataset_statistics(catalog, interactions)
    numbers["kinds"] = {name: catalog.attribute_type(name) for name in catalog.attribute_names}
    found = [*_sizes(catalog, interactions, numbers), *_times(catalog, interactions, numbers, notes)]
    found += [*_items(catalog, numbers), *_uncut_values(catalog, numbers), *_leaks(catalog, interactions)]
    return ValidationReport(numbers, tuple(sorted(found, key=lambda one: one.level != "error")))


def refuse_invalid(catalog: Catalog, interactions: Interactions) -> None:
    """Refuse data with an error among the findings.

    Raises:
        DataError: there are errors; the message has the first one and the number of others.
    """
    errors = validate_dataset(catalog, interactions).errors
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


def _times(catalog: Catalog, x: Interactions, numbers: dict[str, Any], notes: Sequence[str]) -> Iterator[Finding]:
    """Yield findings on whether the order of each user's interactions is known."""
    constant = len(x) > 1 and numbers["time_range"][0] == numbers["time_range"][1]
    taken = f"the order of the rows is taken as time; unless they stand in the order of time, {_MEANS}"
    if NO_TIME in notes:
        yield Finding("warning", "no-time", f"there was no column of times: {taken}")
    elif constant:
        yield Finding("warning", "no-order", f"all interactions have the same time: {taken}")
    elif (ties := numbers["ties_in_time"]) > _MANY * len(x):
        text = f"{ties} of {len(x)} interactions have the time of the user's one before: their order is a guess"
        yield Finding("warning", "ties-in-time", text)
    if (NO_TIME in notes or constant) and (by := _sorted_by(catalog, x)):
        text = f"the rows of a user stand sorted by {by}, and that order is taken as time: {_MEANS}"
        yield Finding("warning", "sorted-rows", f"{text}; give a column of times, or sort the table by it")
    if found := find_mixed_units(x.time):
        text = f"times around {found.low} and around {found.high} stand side by side, and do not count in one unit"
        yield Finding("warning", "two-clocks", f"{text}: {_MEANS}; bring them to one unit and prepare the data again")


def _sorted_by(catalog: Catalog, x: Interactions) -> str:
    """Return "value" or "item" if interactions within users are sorted by it, up or down; "" for neither."""
    texts = sorted(range(len(catalog)), key=lambda row: catalog[row].id)
    numbers = sorted(range(len(catalog)), key=lambda row: id_order(catalog[row].id))
    places = [np.arange(len(catalog)), np.argsort(texts), np.argsort(numbers)]
    values: list[tuple[str, np.ndarray]] = [("value", x.value), *(("item", place[x.row]) for place in places)]
    same = np.diff(x.user) == 0
    for name, value in values:
        steps = np.diff(value)[same]
        moved = int((steps != 0).sum())
        if moved >= _STEPS and max((steps > 0).sum(), (steps < 0).sum()) >= _SORTED * moved:
            return name
    return ""


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


def _uncut_values(catalog: Catalog, numbers: dict[str, Any]) -> Iterator[Finding]:
    """Yield findings on category attributes with so many distinct values that they look like unsplit lists."""
    for name in catalog.attribute_names:
        cells = [value for item in catalog.items if isinstance(value := item.attributes.get(name), tuple)]
        found = Counter(word for words in cells for word in words)
        many = len(found)
        if numbers["kinds"][name] != "category" or len(cells) < _STEPS or many < _UNLIKE * len(cells):
            continue
        said = f"attribute {name!r} has {many:,} different values on {len(cells):,} items, e.g. {next(iter(found))!r}"
        if guess := _guess_separator(found):
            mark, parts = guess
            right = f"give --separator {mark!r} (separator = {mark!r} under [items] of a mapping)"
            lists = found and sum(word.startswith("[") for word in found) > _OFTEN * many
            right += ", without brackets and quotation marks in the cells" if lists else ""
            text = f"{said}: cut at {mark!r} they would be {parts:,}; prepare the data again and {right}"
            yield Finding("warning", "uncut-values", text)
        elif many >= _UNIQUE * found.total():
            text = f"{said}: nearly every one is there once, so that no constraint on it finds more than an item"
            yield Finding("warning", "unique-values", text)


def _guess_separator(values: Counter[str]) -> tuple[str, int] | None:
    """Guess the separator of unsplit lists; return it and the number of distinct words, or None for no lists."""
    for mark in _MARKS:
        cut = [value.split(mark) for value in values]
        often, long = (sum(len(one) >= least for one in cut) for least in (2, 3))
        parts = {part for one in cut for word in one if (part := word.strip(" '\"[]"))}
        if often >= _OFTEN * len(cut) and long >= _LONG * len(cut) and len(parts) <= _MOST_PARTS * len(cut):
            return mark, len(parts)
    return None


def _leaks(catalog: Catalog, x: Interactions) -> Iterator[Finding]:
    """Yield findings on held-out items that leak into the training data, or that a ranked list can never contain."""
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
        if catalog.attribute_type(name) == "number" and (rho := _rank_correlation(catalog, name, taken)) > _CORRELATED:
            text = (
                f"attribute {name!r} follows how often items are taken (rank correlation {rho:.2f}): if it was counted "
                "after the held-out interactions, it gives them away"
            )
            yield Finding("warning", "counts-in-attributes", text)


def _rank_correlation(catalog: Catalog, name: str, taken: np.ndarray) -> float:
    """Absolute Spearman correlation of an attribute with interaction counts; 0 if fewer than 20 items have it."""
    from scipy.stats import spearmanr

    rows = [row for row, item in enumerate(catalog.items) if name in item.attributes]
    values = np.array([float(str(catalog[row].attributes[name])) for row in rows])
    if len(rows) < 20 or np.ptp(values) == 0 or np.ptp(taken[rows]) == 0:
        return 0.0
    return abs(float(spearmanr(values, taken[rows]).statistic))
