"""Rankers that a recommender has to beat: popularity, item neighbours, text similarity, the bare encoder.

All obey `llmrec.rank.Ranker` and are fitted on the train part alone; none of them removes seen items. For
one user and for a batch, and with one thread or many, they give the same bytes.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from llmrec.errors import RequestError
from llmrec.eval.metrics import per_user, target_ranks
from llmrec.interactions import Split
from llmrec.neighbours import ItemKNN, cooccurrence, item_counts, neighbour_matrix
from llmrec.rank import Mask, Rows, Scores, top_k, unseen

__all__ = [
    "KNN_GRID",
    "TEXT_GRID",
    "EncoderRanker",
    "ItemKNN",
    "Popularity",
    "TextLookup",
    "Trial",
    "item_counts",
    "tune_item_knn",
    "tune_text_lookup",
]

Grid = Mapping[str, Sequence[float]]

KNN_GRID: Grid = {
    "window": (0, 5, 20, 50),
    "shrink": (0.0, 3.0, 10.0),
    "alpha": (0.4, 0.5),
    "neighbours": (100, 500),
    "decay": (0.75, 1.0, 1.25, 1.5),
    "recent": (10, 50),
}
TEXT_GRID: Grid = {"recent": (1, 2, 3, 5, 10, 20, 50), "whiten": (False, True)}


class Popularity:
    """The most interacted-with items first, the same for everyone."""

    name = "popularity"

    def __init__(self, counts: npt.NDArray[np.int64]) -> None:
        """counts: int64[n], train interactions of each row."""
        self.counts = counts

    def rank(self, histories: Sequence[Rows], k: int, allowed: Mask | None = None) -> tuple[Rows, Scores]:
        """See `llmrec.rank.Ranker.rank`; the score is the count."""
        scores = np.broadcast_to(self.counts.astype(np.float32), (len(histories), len(self.counts)))
        return top_k(scores, k, allowed)


class TextLookup:
    """The items whose text is nearest to the mean text of the latest items of the history."""

    name = "text-lookup"

    def __init__(self, vectors: Scores, recent: int = 10, whiten: bool = False) -> None:
        """Take text vectors float32[n, d]; the last `recent` items of a history make the query.

        `whiten` takes out the mean and gives every direction one variance (Su et al., 2021), which spreads
        out the vectors of sentence encoders.
        """
        if recent < 1:
            raise RequestError(f"recent is {recent}; a text query needs at least 1 item of the history")
        self.recent = recent
        self.vectors = unit(whitened(vectors) if whiten else vectors)

    def scores(self, histories: Sequence[Rows]) -> Scores:
        """Cosines of the query with the whole catalogue: float32[b, n]; all 0 for an empty history."""
        scores = np.zeros((len(histories), len(self.vectors)), dtype=np.float32)
        for line, history in zip(scores, histories, strict=True):
            if len(history):
                query = unit(self.vectors[history[-self.recent :]].mean(axis=0, keepdims=True))[0]
                # einsum and one user at a time: a BLAS product's bytes depend on batch size and threads.
                np.einsum("nd,d->n", self.vectors, query, out=line)
        return scores

    def rank(self, histories: Sequence[Rows], k: int, allowed: Mask | None = None) -> tuple[Rows, Scores]:
        """See `llmrec.rank.Ranker.rank`."""
        return top_k(self.scores(histories), k, allowed)


class Scorer(Protocol):
    """What is asked of an encoder, such as `llmrec.sequence.SequenceEncoder`."""

    def scores(self, histories: Sequence[Rows]) -> Scores:
        """Scores of the whole catalogue: float32[b, n]."""
        ...


class EncoderRanker:
    """A sequential encoder on its own, all items scored exactly."""

    def __init__(self, encoder: Scorer, name: str = "sasrec") -> None:
        self.encoder, self.name = encoder, name

    def rank(self, histories: Sequence[Rows], k: int, allowed: Mask | None = None) -> tuple[Rows, Scores]:
        """See `llmrec.rank.Ranker.rank`."""
        return top_k(self.encoder.scores(histories), k, allowed)


def unit(vectors: Scores) -> Scores:
    """Lines scaled to length 1, zero lines left as they are: float32[n, d]."""
    lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))[:, None]
    return (vectors / np.where(lengths > 0, lengths, 1.0)).astype(np.float32)


def whitened(vectors: Scores) -> Scores:
    """Vectors with mean 0 and variance 1 in every direction that has any: float32[n, rank]."""
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    variance, directions = np.linalg.eigh(centred.T @ centred / max(len(vectors), 1))
    real = variance > 1e-6 * max(float(variance.max(initial=0.0)), math.ulp(0.0))
    white: Scores = (centred @ (directions[:, real] / np.sqrt(variance[real]))).astype(np.float32)
    return white


@dataclass(frozen=True)
class Trial:
    """One line of a tuning log: what was tried and what it scored on validation users."""

    params: Mapping[str, float]
    metrics: Mapping[str, float]


def tune_item_knn(
    split: Split, n_items: int, grid: Grid = KNN_GRID, seed: int = 0, users: int = 2000
) -> tuple[ItemKNN, list[Trial]]:
    """Search a whole grid for the best validation NDCG@10, seen items filtered; test targets play no part.

    Args:
        split: fits on its train part, scores on its validation targets; the winner is not refitted.
        n_items: rows of the catalogue.
        grid: values to try of every argument of `ItemKNN`, all combinations.
        seed: picks the validation users when there are more than `users`.
        users: how many validation users to score at most.

    Returns:
        The best ranker (of equals the first tried) and every trial in order.
    """
    check, counts = _Validation(split, n_items, seed, users), item_counts(split.train, n_items)
    trials: list[Trial] = []
    best: tuple[float, ItemKNN] | None = None
    for window in grid["window"]:
        pairs = cooccurrence(split.train, n_items, int(window))
        for shrink, alpha, neighbours in itertools.product(grid["shrink"], grid["alpha"], grid["neighbours"]):
            similarity = neighbour_matrix(pairs, counts, int(neighbours), shrink, alpha)
            for decay, recent in itertools.product(grid["decay"], grid["recent"]):
                ranker = ItemKNN.of(similarity, counts, decay, int(recent))
                metrics = check(ranker)
                params = {"window": window, "shrink": shrink, "alpha": alpha, "neighbours": neighbours}
                trials.append(Trial(params | {"decay": decay, "recent": recent}, metrics))
                if best is None or metrics["ndcg@10"] > best[0]:
                    best = metrics["ndcg@10"], ranker
    if best is None:
        raise RequestError(f"the grid {dict(grid)} holds no combination; give every parameter a value")
    return best[1], trials


def tune_text_lookup(
    split: Split, vectors: Scores, grid: Grid = TEXT_GRID, seed: int = 0, users: int = 2000
) -> tuple[TextLookup, list[Trial]]:
    """As `tune_item_knn`, for `TextLookup` over text vectors float32[n, d]."""
    check = _Validation(split, len(vectors), seed, users)
    trials: list[Trial] = []
    best: tuple[float, TextLookup] | None = None
    for whiten, recent in itertools.product(grid["whiten"], grid["recent"]):
        ranker = TextLookup(vectors, int(recent), bool(whiten))
        metrics = check(ranker)
        trials.append(Trial({"whiten": whiten, "recent": recent}, metrics))
        if best is None or metrics["ndcg@10"] > best[0]:
            best = metrics["ndcg@10"], ranker
    if best is None:
        raise RequestError(f"the grid {dict(grid)} holds no combination; give every parameter a value")
    return best[1], trials


class _Validation:
    """Scores rankers on validation targets: whole catalogue, seen items filtered, ties against the target."""

    def __init__(self, split: Split, n_items: int, seed: int, users: int) -> None:
        chosen = np.flatnonzero(split.valid >= 0)
        if chosen.size == 0:
            raise RequestError("no user has a validation target; a user needs at least 3 interactions")
        if chosen.size > users:
            chosen = np.sort(np.random.default_rng(seed).choice(chosen, users, replace=False))
        self.targets, self.n_items = split.valid[chosen], n_items
        self.histories = [split.history(int(user), "valid") for user in chosen]

    def __call__(self, ranker: Scorer) -> dict[str, float]:
        ranks = np.concatenate(list(self._ranks(ranker)))
        return {name: float(value.mean()) for name, value in per_user(ranks, ks=(10,)).items()}

    def _ranks(self, ranker: Scorer, batch: int = 512) -> Iterator[Rows]:
        for start in range(0, len(self.histories), batch):
            histories = self.histories[start : start + batch]
            allowed = unseen(histories, self.n_items)
            yield target_ranks(ranker.scores(histories), self.targets[start : start + batch], allowed)
