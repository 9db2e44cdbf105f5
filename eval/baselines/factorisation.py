"""Matrix factorisation baselines: ALS and BPR of the `implicit` library, applied to histories of any user.

A ranker receives a history, not the number of a trained user. The user's factors are therefore fitted to the history
with the item factors fixed. For ALS this is the closed form that the library uses for new users. For BPR the same
regularised loss is minimised, which is convex once the item factors are fixed.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any, Unpack

import numpy as np
from scipy import sparse
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits

from llmrec.data.interactions import Interactions, Split
from llmrec.encoders.item_knn import item_counts
from llmrec.errors import RequestError
from llmrec.eval.baselines.tuning import LARGE, Grid, Params, Trial, TuningOptions, tune_on_split
from llmrec.inner_product import inner
from llmrec.ranker import Mask, Rows, Scores, top_k

ALS_GRID: Grid = {"factors": (32, 64, 128), "regularization": (1.0, 3.0, 10.0), "alpha": (1.0, 4.0, 16.0)}
BPR_GRID: Grid = {
    "factors": (32, 64),
    "learning_rate": (0.01, 0.03),
    "regularization": (0.01, 0.03),
    "iterations": (50, 100),
}
# a trial on ten thousand items takes a minute
LARGE_ALS_GRID: Grid = {"factors": (64, 128), "regularization": (1.0, 10.0), "alpha": (4.0, 16.0)}
LARGE_BPR_GRID: Grid = {
    "factors": (64,),
    "learning_rate": (0.01, 0.03),
    "regularization": (0.01, 0.03),
    "iterations": (100,),
}
ABSENT = "not measured: the package implicit is not installed (pip install 'llmrec[baselines]')"
# Negatives drawn and optimiser steps when a user's factors are fitted. With these values, lists for trained users are
# as good as with the library's own factors of those users (MovieLens-100k validation).
NEGATIVES, STEPS = 256, 50


def installed() -> bool:
    """Whether `implicit` can be imported."""
    return importlib.util.find_spec("implicit") is not None


class ALS:
    """Implicit-feedback matrix factorisation by alternating least squares (Hu, Koren & Volinsky, 2008).

    Args:
        train: interactions to learn from; an item counts once per user.
        n_items: rows of the catalogue.
        factors: width of the vectors.
        regularization: weight of the squared norms.
        alpha: how much more weight an interaction has than a missing one.
        seed: random seed for the initial factors.
    """

    name = "als"

    def __init__(
        self, train: Interactions, n_items: int, factors: int, regularization: float, alpha: float, seed: int = 0
    ) -> None:
        from implicit.cpu.als import AlternatingLeastSquares

        # The library recommends a single BLAS thread. Its own training also uses one, so that all machines give the
        # same result.
        with threadpool_limits(1, "blas"):
            self._model = AlternatingLeastSquares(
                factors=factors, regularization=regularization, alpha=alpha, num_threads=1, random_state=seed
            )
            self._model.fit(train_matrix(train, n_items), show_progress=False)

    def scores(self, histories: Sequence[Rows]) -> Scores:
        """Inner products with the whole catalogue: float32[b, n]; all 0 for an empty history."""
        items = np.asarray(self._model.item_factors)
        with threadpool_limits(1, "blas"):
            users = self._model.recalculate_user(np.arange(len(histories)), interaction_matrix(histories, len(items)))
        return inner(users, items)

    def rank(self, histories: Sequence[Rows], k: int, allowed: Mask | None = None) -> tuple[Rows, Scores]:
        """See `llmrec.ranker.Ranker.rank`."""
        return top_k(self.scores(histories), k, allowed)


class BPR:
    """Matrix factorisation by Bayesian personalised ranking (Rendle et al., 2009), with item biases.

    Takes the arguments of `ALS` and `iterations`, the number of passes over the log. Negatives are drawn by popularity,
    as in the library.
    """

    name = "bpr"

    def __init__(
        self,
        train: Interactions,
        n_items: int,
        factors: int,
        regularization: float,
        iterations: int,
        learning_rate: float = 0.05,
        seed: int = 0,
    ) -> None:
        from implicit.cpu.bpr import BayesianPersonalizedRanking
        from implicit.recommender_base import ModelFitError

        # One thread: several threads would overwrite each other's updates in an order that cannot be reproduced.
        model: Any = BayesianPersonalizedRanking(
            factors=factors,
            regularization=regularization,
            iterations=iterations,
            learning_rate=learning_rate,
            num_threads=1,
            random_state=seed,
        )
        self._regularization = regularization
        try:
            model.fit(train_matrix(train, n_items), show_progress=False)
            self._items = np.asarray(model.item_factors, np.float32)  # the last column is the item's bias
        except ModelFitError:  # the training diverged: this setting ranks nothing and loses the search
            self._items = np.zeros((n_items, factors + 1), np.float32)
        counts = item_counts(train, n_items).astype(np.float64)
        self._negatives = np.random.default_rng(seed).choice(n_items, NEGATIVES, p=counts / counts.sum())

    def scores(self, histories: Sequence[Rows]) -> Scores:
        """Inner products with the whole catalogue plus biases: float32[b, n]; only the biases for an empty history."""
        users = [self._user(np.unique(np.asarray(history, np.int64))) for history in histories]
        return inner(np.stack(users) if users else np.zeros((0, self._items.shape[1]), np.float32), self._items)

    def rank(self, histories: Sequence[Rows], k: int, allowed: Mask | None = None) -> tuple[Rows, Scores]:
        """See `llmrec.ranker.Ranker.rank`."""
        return top_k(self.scores(histories), k, allowed)

    def _user(self, liked: Rows) -> Scores:
        """float32[factors + 1], minimiser of the mean pairwise loss plus ridge; the last entry is 1, for the biases."""
        wide = self._items.shape[1]
        negatives = self._negatives[~np.isin(self._negatives, liked)]
        best = np.zeros(wide - 1)
        if len(liked) and len(negatives):
            up, down = (self._items[rows].astype(np.float64) for rows in (liked, negatives))
            loss = (up, down, self._regularization)
            best = minimize(_pairwise, best, loss, "L-BFGS-B", jac=True, options={"maxiter": STEPS}).x
        return np.append(best, 1.0).astype(np.float32)


def _pairwise(user: np.ndarray, up: np.ndarray, down: np.ndarray, ridge: float) -> tuple[float, np.ndarray]:
    """Mean of -log sigmoid(score of a liked item - score of another) over all pairs, plus ridge; and its gradient."""
    high = np.einsum("nd,d->n", up[:, :-1], user) + up[:, -1]
    low = np.einsum("nd,d->n", down[:, :-1], user) + down[:, -1]
    margin = high[:, None] - low[None, :]
    loss = np.logaddexp(0.0, -margin).mean() + 0.5 * ridge * np.square(user).sum()
    push = 1.0 / (1.0 + np.exp(np.clip(margin, -30.0, 30.0))) / margin.size
    gradient = np.einsum("n,nd->d", push.sum(axis=0), down[:, :-1]) - np.einsum("n,nd->d", push.sum(axis=1), up[:, :-1])
    return float(loss), gradient + ridge * user


def train_matrix(train: Interactions, n_items: int) -> sparse.csr_matrix:
    """The binary user-item matrix of the train part: csr float32[users, n]."""
    item_counts(train, n_items)  # raises for a row outside the catalogue
    return interaction_matrix([train.rows_of(user) for user in range(len(train.users))], n_items)


def interaction_matrix(histories: Sequence[Rows], n_items: int) -> sparse.csr_matrix:
    """The binary history-item matrix: csr float32[b, n]."""
    rows = [np.unique(np.asarray(history, np.int64)) for history in histories]
    ends = np.concatenate([[0], np.cumsum([len(one) for one in rows])]).astype(np.int32)
    indices = np.concatenate([np.zeros(0, np.int64), *rows]).astype(np.int32)
    return sparse.csr_matrix((np.ones(len(indices), np.float32), indices, ends), (len(rows), n_items))


def tune_als(
    split: Split,
    n_items: int,
    grid: Grid | None = None,
    **options: Unpack[TuningOptions],
) -> tuple[ALS, list[Trial]]:
    """Search a grid of the arguments of `ALS`, see `tune`; None for the default grid for the size of the catalogue."""
    _need()
    seed = options.get("seed", 0)
    grid = grid or (LARGE_ALS_GRID if n_items > LARGE else ALS_GRID)

    def make(p: Params) -> ALS:
        return ALS(split.train, n_items, int(p["factors"]), p["regularization"], p["alpha"], seed)

    return tune_on_split("als", make, grid, split, n_items, f"seed {seed}", **options)


def tune_bpr(
    split: Split,
    n_items: int,
    grid: Grid | None = None,
    **options: Unpack[TuningOptions],
) -> tuple[BPR, list[Trial]]:
    """Search a grid of the arguments of `BPR`, see `tune`; None for the default grid for the size of the catalogue."""
    _need()
    seed = options.get("seed", 0)
    grid = grid or (LARGE_BPR_GRID if n_items > LARGE else BPR_GRID)

    def make(p: Params) -> BPR:
        iterations, rate = int(p["iterations"]), p["learning_rate"]
        return BPR(split.train, n_items, int(p["factors"]), p["regularization"], iterations, rate, seed)

    return tune_on_split("bpr", make, grid, split, n_items, f"seed {seed}", **options)


def _need() -> None:
    if not installed():
        raise RequestError(ABSENT)
