"""Collects ranked lists for every user of a split, and rejects lists that would distort the metrics."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from llmrec.data.interactions import Split
from llmrec.errors import RequestError
from llmrec.eval.metrics import ranks_of
from llmrec.ranker import Mask, Ranker, Rows, Scores, unseen

SplitPart = Literal["valid", "test"]
Progress = Callable[[str, int, int], None]
CANDIDATES = 20


@dataclass(frozen=True)
class RankingQuery:
    """One user to rank for: the number, the history, the target, and the number of rows in the catalogue."""

    user: int
    history: Rows
    target: int
    n_items: int


@dataclass(frozen=True)
class Condition:
    """What a ranker may choose from: the list length, and bool[n] for each user."""

    k: int
    allowed: Callable[[RankingQuery], Mask]


def unseen_items(ask: RankingQuery) -> Mask:
    """All items outside the history; a target that is in the history cannot be found."""
    mask: Mask = unseen([ask.history], ask.n_items)[0]
    return mask


def all_items(ask: RankingQuery) -> Mask:
    """The whole catalogue, including the history."""
    return np.ones(ask.n_items, np.bool_)


def sampled_candidates(seed: int, count: int = CANDIDATES) -> Callable[[RankingQuery], Mask]:
    """The target and `count` - 1 other unseen items drawn uniformly.

    A user's candidates do not depend on the ranker or on which users are sampled.
    """

    def allowed(ask: RankingQuery) -> Mask:
        pool = unseen_items(ask)
        pool[ask.target] = False
        others = np.flatnonzero(pool)
        rng = np.random.default_rng([seed, ask.user])
        mask = np.zeros(ask.n_items, np.bool_)
        mask[rng.choice(others, min(count - 1, len(others)), replace=False)] = True
        mask[ask.target] = True
        return mask

    return allowed


@dataclass(frozen=True)
class RankedLists:
    """A ranker's answers: u users (numbers), their targets, and k rows and scores each, best first."""

    users: Rows
    targets: Rows
    rows: Rows
    scores: Scores

    def ranks(self) -> Rows:
        """Position of each target, ties counted against it: see `metrics.ranks_of`."""
        return ranks_of(self.rows, self.targets, self.scores)


def rank_each(
    rankers: Sequence[Ranker],
    split: Split,
    part: SplitPart,
    n_items: int,
    conditions: Mapping[str, Condition],
    users: Rows | None = None,
    batch: int = 64,
    progress: Progress | None = None,
) -> dict[str, dict[str, RankedLists]]:
    """Return every ranker's lists under every condition, by name of the ranker and of the condition.

    Histories of `test` include the validation item. `users` are numbers, None takes all that have a target. Each call
    ranks `batch` users, and all rankers rank one batch before the next begins, so that state shared between rankers
    need not be kept longer. `progress` receives the ranker's name, the number of users done and their total.

    Raises:
        ValueError: a ranker answered with a wrong shape, a forbidden, repeated or unsorted row: the metrics of such
            lists would be meaningless.
    """
    chosen = target_users(split, part) if users is None else users
    targets = targets_of(split, part)[chosen]
    found = {
        ranker.name: {name: _empty(chosen, targets, one.k) for name, one in conditions.items()} for ranker in rankers
    }
    for start in range(0, len(chosen), batch):
        here = slice(start, min(start + batch, len(chosen)))
        asked = [
            RankingQuery(int(user), split.history(int(user), part), int(target), n_items)
            for user, target in zip(chosen[here], targets[here], strict=True)
        ]
        masks = {name: np.stack([one.allowed(ask) for ask in asked]) for name, one in conditions.items()}
        for ranker in rankers:
            for name, one in conditions.items():
                rows, scores = ranker.rank([ask.history for ask in asked], one.k, masks[name])
                _check_lists(ranker.name, rows, scores, masks[name], one.k)
                lists = found[ranker.name][name]
                lists.rows[here], lists.scores[here] = rows, scores
            if progress is not None:
                progress(ranker.name, here.stop, len(chosen))
    return found


def _empty(users: Rows, targets: Rows, k: int) -> RankedLists:
    shape = (len(users), k)
    return RankedLists(users, targets, np.full(shape, -1, np.int64), np.full(shape, -np.inf, np.float32))


def target_users(split: Split, part: SplitPart, limit: int | None = None, seed: int = 0) -> Rows:
    """Return the numbers of the users who have a target, in order; with a limit, that many drawn by the seed.

    Raises:
        RequestError: no user has a target, or the limit is below 1.
    """
    users = np.flatnonzero(targets_of(split, part) >= 0).astype(np.int64)
    if users.size == 0:
        raise RequestError(f"no user has a {part} target; a user needs at least 3 interactions")
    if limit is not None and limit < 1:
        raise RequestError(f"limit is {limit}; evaluate at least 1 user")
    return sample_users(users, limit, seed)


def sample_users(users: Rows, n: int | None, seed: int) -> Rows:
    """Return `n` of the users, drawn by the seed, in order; all of them for None or if there are no more."""
    if n is None or n >= users.size:
        return users
    return np.sort(np.random.default_rng(seed).choice(users, n, replace=False))


def targets_of(split: Split, part: SplitPart) -> Rows:
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
