"""User-item interactions as arrays, histories of users, and train, validation and test splits without leakage."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from rapidfuzz import fuzz, process

from llmrec.data.ids import IdVariants
from llmrec.errors import DataError, RequestError
from llmrec.storage.artifacts import fingerprint_arrays, fingerprint_bytes

Ints = np.ndarray[Any, np.dtype[np.int64]]
Floats = np.ndarray[Any, np.dtype[np.float32]]
SplitPart = Literal["valid", "test"]

_STEPS = 21  # most distinct values of a rating scale; with more, values are amounts
_LIKED = 0.7  # share of the highest value from which an item counts as liked: four and five of five stars


class History(tuple[int, ...]):
    """The rows of a user, oldest first, and which of them were not liked.

    Rankers see a plain tuple of rows. Whether an item was liked only affects the text about a list.

    Args:
        rows: the rows, oldest first.
        disliked: rows that were not liked; if None, those of `rows` when that is a `History`, else none.
    """

    disliked: frozenset[int]

    def __new__(cls, rows: Iterable[int] = (), disliked: Iterable[int] | None = None) -> History:
        """Make the tuple; disliked rows that are not in the history are left out."""
        made = super().__new__(cls, rows)
        gone = getattr(rows, "disliked", ()) if disliked is None else disliked
        made.disliked = frozenset(gone) & frozenset(made)
        return made

    def extended_with(self, rows: Iterable[int]) -> History:
        """Return the history followed by further rows, which count as liked; each row occurs once."""
        liked = tuple(rows)
        return History(dict.fromkeys((*self, *liked)), self.disliked - {*liked})


@dataclass(frozen=True, eq=False)
class Interactions:
    """Interactions sorted by user, then time, then input order.

    Attributes:
        users: external user ids; a user's number is its position in this tuple.
        user: int64[m] user numbers.
        row: int64[m] catalogue rows.
        time: int64[m] seconds, or any other number that increases over time.
        value: float32[m] rating or weight.
    """

    users: tuple[str, ...]
    user: Ints
    row: Ints
    time: Ints
    value: Floats

    @staticmethod
    def build(
        user_ids: Sequence[str],
        rows: Sequence[int] | Ints,
        times: Sequence[int] | Ints,
        values: Sequence[float] | Floats,
    ) -> Interactions:
        """Build from unsorted sequences: number the users in the order of their ids, and sort the interactions.

        Numbering users by id makes the result independent of the order of users in a file.

        Raises:
            DataError: the four sequences differ in length, or a row is negative.
        """
        lengths = {len(user_ids), len(rows), len(times), len(values)}
        if len(lengths) != 1:
            raise DataError(f"users, rows, times and values differ in length: {sorted(lengths)}")
        users = tuple(sorted(set(user_ids), key=id_order))
        numbers = {user: number for number, user in enumerate(users)}
        user = np.fromiter((numbers[u] for u in user_ids), np.int64, len(user_ids))
        row, time = np.asarray(rows, np.int64), np.asarray(times, np.int64)
        if len(row) and row.min() < 0:
            raise DataError(f"row {row.min()} is negative; rows count from 0")
        order = np.lexsort((time, user))  # stable: ties keep the order given
        return Interactions(users, user[order], row[order], time[order], np.asarray(values, np.float32)[order])

    def __len__(self) -> int:
        return len(self.row)

    @cached_property
    def offsets(self) -> Ints:
        """int64[n_users + 1]: the interactions of user u are at offsets[u]:offsets[u + 1]."""
        counts = np.bincount(self.user, minlength=len(self.users))
        return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)

    @cached_property
    def fingerprint(self) -> str:
        """Sha256 hex over users and arrays."""
        users = json.dumps(self.users).encode()
        arrays = fingerprint_arrays(user=self.user, row=self.row, time=self.time, value=self.value)
        return fingerprint_bytes(users, arrays.encode())

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {user: number for number, user in enumerate(self.users)}

    def rows_of(self, user: int) -> Ints:
        """Return the rows of a user number in time order, int64[h]."""
        if not 0 <= user < len(self.users):
            raise RequestError(f"user number {user} does not exist; numbers run from 0 to {len(self.users) - 1}")
        return self.row[self.offsets[user] : self.offsets[user + 1]]

    @cached_property
    def _id_variants(self) -> IdVariants:
        return IdVariants(self.users)

    def number_or_none(self, user_id: str) -> int | None:
        """Return the number of a user id, else of the only known id with the same canonical form, else None."""
        number = self._numbers.get(user_id)
        return number if number is not None else self._numbers.get(self._id_variants.unique_variant(user_id) or "")

    @cached_property
    def liked_from(self) -> float:
        """The smallest value that means an item was liked; -inf when values do not tell liked from disliked.

        Between 2 and 21 distinct values are taken as a rating scale, whose upper end means liked. A single value, or
        more than 21, tell nothing: every item in the log then counts as liked.
        """
        values = np.unique(self.value)
        if not 1 < len(values) <= _STEPS:
            return -np.inf
        highest = float(values[-1])
        return _LIKED * highest if highest > 0 else highest

    def disliked(self, user: int) -> frozenset[int]:
        """Return the rows that a user did not like, judged by the latest value of each row."""
        rows = self.rows_of(user).tolist()  # raises for a user number that does not exist
        values = self.value[self.offsets[user] : self.offsets[user + 1]]
        latest = dict(zip(rows, values.tolist(), strict=True))
        return frozenset(row for row, value in latest.items() if value < self.liked_from)

    def history(self, user: int) -> History:
        """Return the history of a user number: its rows, oldest first, and which of them were not liked."""
        return History(self.rows_of(user).tolist(), self.disliked(user))

    def number(self, user_id: str) -> int:
        """Return the number of an external user id, see `number_or_none`.

        Raises:
            RequestError: an unknown id; the message names the three closest ids.
        """
        found = self.number_or_none(user_id)
        if found is not None:
            return found
        near = [str(match[0]) for match in process.extract(user_id, self.users, scorer=fuzz.ratio, limit=3)]
        raise RequestError(f"no user {user_id!r}; the closest are {', '.join(map(repr, near))}")

    def where(self, mask: np.ndarray[Any, np.dtype[np.bool_]]) -> Interactions:
        """Return the interactions where `mask` bool[m] is true; users keep their numbers."""
        return Interactions(self.users, self.user[mask], self.row[mask], self.time[mask], self.value[mask])


@dataclass(frozen=True, eq=False)
class Split:
    """A train part, and one validation and one test target per user.

    Attributes:
        train: everything that a model may be fitted on; users have the same numbers as in the whole log.
        valid: int64[n_users] target row, -1 for none.
        test: int64[n_users] target row, -1 for none.
        name: how the split was made, for reports.
        window: interactions after the train part that are known before the test target.
    """

    train: Interactions
    valid: Ints
    test: Ints
    name: str
    window: Interactions

    def history(self, user: int, part: SplitPart) -> Ints:
        """Return the rows known before a user's target, int64[h] in time order; before `test` they include `valid`."""
        if part == "valid":
            return self.train.rows_of(user)
        if part == "test":
            return np.concatenate([self.train.rows_of(user), self.window.rows_of(user)])
        raise RequestError(f"part {part!r} is unknown; use 'valid' or 'test'")


def leave_one_out(x: Interactions) -> Split:
    """Hold out each user's last interaction for test and the last but one for validation.

    All interactions of users with fewer than 3 stay in the train part; their targets are -1.
    """
    long = np.diff(x.offsets) >= 3
    last = x.offsets[1:] - 1
    valid = np.where(long, x.row[np.where(long, last - 1, 0)], -1) if len(x) else np.full(len(x.users), -1)
    test = np.where(long, x.row[np.where(long, last, 0)], -1) if len(x) else np.full(len(x.users), -1)
    keep, window = np.ones(len(x), bool), np.zeros(len(x), bool)
    keep[last[long]] = keep[last[long] - 1] = False
    window[last[long] - 1] = True
    return Split(x.where(keep), valid.astype(np.int64), test.astype(np.int64), "leave-one-out", x.where(window))


def model_selection_users(split: Split) -> Ints:
    """Return the users whose validation items select the encoder's epoch and settings: those with even numbers."""
    return np.flatnonzero((split.valid >= 0) & (np.arange(len(split.valid)) % 2 == 0))


def fusion_users(split: Split) -> Ints:
    """Return the users whose validation items fit the fusion: those with odd numbers, which select nothing else."""
    return np.flatnonzero((split.valid >= 0) & (np.arange(len(split.valid)) % 2 == 1))


def split_by_time(x: Interactions, valid_from: int, test_from: int) -> Split:
    """Split all users at the same two points in time, given in units of `time`.

    The train part is everything before `valid_from`. A user's validation target is the first interaction in
    [valid_from, test_from), and the test target is the first one at or after `test_from`. A test history holds
    everything before `test_from`.

    Raises:
        DataError: `valid_from` is not before `test_from`.
    """
    if valid_from >= test_from:
        raise DataError(f"valid_from {valid_from} must be before test_from {test_from}")
    window = (x.time >= valid_from) & (x.time < test_from)
    valid = _first_rows(x.where(window))
    test = _first_rows(x.where(x.time >= test_from))
    name = f"by-time {valid_from} {test_from}"
    return Split(x.where(x.time < valid_from), valid, test, name, x.where(window))


def _first_rows(x: Interactions) -> Ints:
    targets = np.full(len(x.users), -1, np.int64)
    some = np.diff(x.offsets) > 0
    targets[some] = x.row[x.offsets[:-1][some]]
    return targets


def id_order(user_id: str) -> tuple[int, int, str, str]:
    """Return a sort key that puts ids of digits first, in numerical order, and all other ids after them."""
    if user_id.isascii() and user_id.isdigit():
        digits = user_id.lstrip("0")
        return 0, len(digits), digits, user_id
    return 1, 0, user_id, ""
