"""Asks a ranker for its list for every user of a split, and refuses lists that would spoil the metrics."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from llmrec.errors import RequestError
from llmrec.interactions import Split
from llmrec.rank import Mask, Ranker, Rows, Scores, unseen

Part = Literal["valid", "test"]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Lists:
    """What a ranker answered: u users (numbers), their targets, and k rows and scores each, best first."""

    users: Rows
    targets: Rows
    rows: Rows
    scores: Scores


def rank_all(
    ranker: Ranker,
    split: Split,
    part: Part,
    n_items: int,
    k: int = 50,
    seen_filtered: bool = True,
    users: Rows | None = None,
    batch: int = 64,
    progress: Progress | None = None,
) -> Lists:
    """Rank the whole catalogue for every user of a part.

    Histories of `test` include the validation item. With `seen_filtered` nothing that is in the history is
    allowed, a repeated target included. `users` are numbers, None takes all that have a target; `batch` of
    them go into one call. `progress` is told the ranker's name, the users done and the users in all.

    Raises:
        ValueError: the ranker answered with a wrong shape, a forbidden, repeated or unsorted row: such
            lists would give metrics that mean nothing.
    """
    chosen = target_users(split, part) if users is None else users
    rows = np.full((len(chosen), k), -1, dtype=np.int64)
    scores = np.full((len(chosen), k), -np.inf, dtype=np.float32)
    for start in range(0, len(chosen), batch):
        histories = [split.history(int(user), part) for user in chosen[start : start + batch]]
        allowed = unseen(histories, n_items) if seen_filtered else np.ones((len(histories), n_items), np.bool_)
        found = ranker.rank(histories, k, allowed)
        _check_lists(ranker.name, *found, allowed, k)
        rows[start : start + batch], scores[start : start + batch] = found
        if progress is not None:
            progress(ranker.name, min(start + batch, len(chosen)), len(chosen))
    return Lists(chosen, targets_of(split, part)[chosen], rows, scores)


def target_users(split: Split, part: Part, limit: int | None = None, seed: int = 0) -> Rows:
    """Numbers of the users who have a target, in order; with a limit, that many of them drawn by the seed.

    Raises:
        RequestError: nobody has a target, or the limit is below 1.
    """
    users = np.flatnonzero(targets_of(split, part) >= 0).astype(np.int64)
    if users.size == 0:
        raise RequestError(f"no user has a {part} target; a user needs at least 3 interactions")
    if limit is not None and limit < 1:
        raise RequestError(f"limit is {limit}; evaluate at least 1 user")
    if limit is None or limit >= users.size:
        return users
    return np.sort(np.random.default_rng(seed).choice(users, limit, replace=False))


def targets_of(split: Split, part: Part) -> Rows:
    """Target row of every user number, -1 for none: int64[n_users]."""
    return split.test if part == "test" else split.valid


def _check_lists(name: str, rows: Rows, scores: Scores, allowed: Mask, k: int) -> None:
    if rows.shape != (len(allowed), k) or scores.shape != rows.shape:
        raise ValueError(f"{name} returned rows {rows.shape} and scores {scores.shape}; {(len(allowed), k)} was asked")
    real = rows >= 0
    if (rows >= allowed.shape[1]).any() or (real & ~np.take_along_axis(allowed, np.where(real, rows, 0), axis=1)).any():
        raise ValueError(f"{name} returned a row that does not exist or is not allowed")
    ordered = np.sort(rows, axis=1)
    if ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any():
        raise ValueError(f"{name} returned the same row twice for one user")
    if np.isnan(scores).any() or (scores[:, 1:] > scores[:, :-1]).any() or (real & np.isneginf(scores)).any():
        raise ValueError(f"{name} returned scores that are not numbers in falling order")
