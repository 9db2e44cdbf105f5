"""Baseline rankers: popularity, item neighbours, text similarity and the encoder alone.

All implement `llmrec.ranker.Ranker` and are fitted on the train part alone; none of them removes seen items. On one
kind of machine the output is bit-identical for single users and batches, and for one thread and many.
"""

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from llmrec.data.interactions import Interactions
from llmrec.encoders.item_knn import ItemKNN, item_counts
from llmrec.errors import RequestError
from llmrec.inner_product import inner
from llmrec.ranker import Mask, Rows, Scores, top_k

__all__ = ["EncoderRanker", "ItemKNN", "Popularity", "RecentPopularity", "Scorer", "TextLookup", "item_counts"]


class Popularity:
    """The most interacted-with items first, the same for everyone."""

    name = "popularity"

    def __init__(self, counts: npt.NDArray[np.int64]) -> None:
        """counts: int64[n], train interactions of each row."""
        self.counts = counts

    def rank(self, histories: Sequence[Rows], k: int, allowed: Mask | None = None) -> tuple[Rows, Scores]:
        """See `llmrec.ranker.Ranker.rank`; the score is the count."""
        scores = np.broadcast_to(self.counts.astype(np.float32), (len(histories), len(self.counts)))
        return top_k(scores, k, allowed)


class RecentPopularity:
    """Recent popularity, the same for everyone: the weight of an interaction halves with every half-life."""

    name = "recent-popularity"

    def __init__(self, train: Interactions, n_items: int, half_life: float) -> None:
        """half_life: as a share of the time from the first to the last interaction of the train part, above 0."""
        if not half_life > 0.0:
            raise RequestError(f"half_life is {half_life}; it is a share of the log's time span, above 0")
        counts = item_counts(train, n_items)  # raises for a row outside the catalogue
        span = float(np.ptp(train.time)) if len(train) else 0.0
        age = (train.time.max(initial=0) - train.time) / span if span > 0 else np.zeros(len(train))
        weight = np.bincount(train.row, weights=0.5 ** (age / half_life), minlength=n_items)
        # Items without recent interactions are ordered by their total count, far below one recent interaction.
        self.weight = weight + 1e-6 * counts

    def scores(self, histories: Sequence[Rows]) -> Scores:
        """Decayed counts: float32[b, n]."""
        return np.broadcast_to(self.weight.astype(np.float32), (len(histories), len(self.weight)))

    def rank(self, histories: Sequence[Rows], k: int, allowed: Mask | None = None) -> tuple[Rows, Scores]:
        """See `llmrec.ranker.Ranker.rank`."""
        return top_k(self.scores(histories), k, allowed)


class TextLookup:
    """The items whose text is nearest to the mean text of the latest items of the history."""

    name = "text-lookup"

    def __init__(self, vectors: Scores, recent: int = 10, whiten: bool = False) -> None:
        """Take text vectors float32[n, d]; the last `recent` items of a history form the query.

        `whiten` subtracts the mean and scales every direction to the same variance (Su et al., 2021), which spreads out
        the vectors of sentence encoders.
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
                query = unit(self.vectors[history[-self.recent :]].mean(axis=0, keepdims=True))
                line[:] = inner(query, self.vectors)[0]
        return scores

    def rank(self, histories: Sequence[Rows], k: int, allowed: Mask | None = None) -> tuple[Rows, Scores]:
        """See `llmrec.ranker.Ranker.rank`."""
        return top_k(self.scores(histories), k, allowed)


class Scorer(Protocol):
    """The interface required of an encoder, such as `llmrec.encoders.sequential.SequenceEncoder`."""

    def scores(self, histories: Sequence[Rows]) -> Scores:
        """Scores of the whole catalogue: float32[b, n]."""
        ...


class EncoderRanker:
    """Ranks with a sequential encoder alone, or any other scorer of the catalogue; all items are scored exactly."""

    def __init__(self, encoder: Scorer, name: str = "sasrec") -> None:
        self.encoder, self.name = encoder, name

    def scores(self, histories: Sequence[Rows]) -> Scores:
        """The encoder's scores: float32[b, n]."""
        return self.encoder.scores(histories)

    def rank(self, histories: Sequence[Rows], k: int, allowed: Mask | None = None) -> tuple[Rows, Scores]:
        """See `llmrec.ranker.Ranker.rank`."""
        return top_k(self.scores(histories), k, allowed)


def unit(vectors: Scores) -> Scores:
    """Rows scaled to length 1, zero rows left as they are: float32[n, d]."""
    lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))[:, None]
    return (vectors / np.where(lengths > 0, lengths, 1.0)).astype(np.float32)


def whitened(vectors: Scores) -> Scores:
    """Vectors with mean 0, and variance 1 in every direction with non-zero variance: float32[n, rank]."""
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    variance, directions = np.linalg.eigh(centred.T @ centred / max(len(vectors), 1))
    real = variance > 1e-6 * max(float(variance.max(initial=0.0)), math.ulp(0.0))
    white: Scores = (centred @ (directions[:, real] / np.sqrt(variance[real]))).astype(np.float32)
    return white
