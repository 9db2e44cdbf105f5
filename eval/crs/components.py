"""Scores every film after part of a dialogue: each component is a log-probability.

The components are the project's own tools on other data: item-to-item neighbours, text vectors of the films and of the
turns, and a small network trained on the mentions. `llmrec.ranking.fusion` weights them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import sparse

from llmrec.data.catalog import Catalog
from llmrec.data.interactions import Interactions
from llmrec.encoders.item_knn import ItemKNN, NeighbourSettings, fit_neighbours
from llmrec.eval.crs.data import RECOMMENDER, SEEKER, CrsQuestions, Dialogue, questions_of, tastes
from llmrec.eval.crs.embeddings import CorpusVectors, context_text, turn_vectors
from llmrec.eval.crs.two_tower import TwoTowerEnsemble, TwoTowerSettings, train_two_tower
from llmrec.numerics import log_softmax
from llmrec.ranker import Rows, Scores
from llmrec.ranking.scorer import TEXT_TEMPERATURE

LATEST = 5  # number of latest films that represent a taste
NEIGHBOURS = NeighbourSettings(neighbours=200, shrink=10.0, decay=0.5, alpha=0.85, window=0)
NEW = ("network", "neighbours", "popularity", "wish", "context", "taste", "latest", "people", "genre")
ALL = (*NEW, "named", "named_latest")  # used where films named before may be recommended again
FEATURES: Mapping[str, tuple[str, ...]] = {"people": ("director", "star"), "genre": ("genre",)}
_WISH_DECAY = 0.7
_ABSENT = 1.0  # pseudo-count of each film, divided by three: see `log_popularity`


@dataclass(frozen=True, eq=False)
class FittedComponents:
    """The components fitted to some dialogues.

    Attributes:
        network: trained networks.
        knn: neighbours by co-mention.
        popularity: float32[n], log-probability by how often the recommender named a film.
        features: unit-length attribute vectors by part, csr float32[n, values].
    """

    network: TwoTowerEnsemble
    knn: ItemKNN
    popularity: Scores
    features: Mapping[str, sparse.csr_array] = field(default_factory=dict)


def fit_components(
    dialogues: Sequence[Dialogue], catalog: Catalog, vectors: CorpusVectors, settings: TwoTowerSettings, seed: int
) -> FittedComponents:
    """Fit every component on these dialogues alone."""
    return FittedComponents(
        train_two_tower(dialogues, catalog, vectors, settings, seed),
        fit_neighbours(mention_log(dialogues), len(catalog), NEIGHBOURS),
        log_popularity(questions_of(dialogues).target, len(catalog)),
        {part: attribute_features(catalog, names) for part, names in FEATURES.items()},
    )


def mention_log(dialogues: Sequence[Dialogue]) -> Interactions:
    """Convert mentions to an interaction log: a dialogue is a user, and its order is time."""
    cases = questions_of(dialogues, (RECOMMENDER, SEEKER))
    users = [str(number) for number in cases.dialogue]
    return Interactions.build(users, cases.target, cases.turn, np.ones(len(cases), np.float32))


def log_popularity(targets: Rows, n_items: int) -> Scores:
    """float32[n]: log share of the recommendations, with a third added to every film's count."""
    counts = np.bincount(targets, minlength=n_items) + _ABSENT / 3
    return np.asarray(np.log(counts / counts.sum()), np.float32)


def attribute_features(catalog: Catalog, names: Sequence[str]) -> sparse.csr_array:
    """Attribute values of every film weighted by inverse frequency, length 1 or 0: csr float32[n, values]."""
    numbers: dict[tuple[str, str], int] = {}
    places: list[tuple[int, int]] = []
    for row, item in enumerate(catalog.items):
        for name in names:
            value = item.attributes.get(name)
            words = value if isinstance(value, tuple) else ()
            places += [(row, numbers.setdefault((name, word), len(numbers))) for word in words]
    shape = (len(catalog), max(len(numbers), 1))
    at = np.array(places, np.int64).reshape(-1, 2)
    matrix = sparse.csr_array((np.ones(len(at), np.float32), (at[:, 0], at[:, 1])), shape)
    rarity = np.log(len(catalog) / np.maximum(np.bincount(at[:, 1], minlength=shape[1]), 1))
    matrix = sparse.csr_array(matrix @ sparse.diags_array(rarity.astype(np.float32)))
    length = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    return sparse.csr_array(sparse.diags_array((1 / np.maximum(length, 1e-6)).astype(np.float32)) @ matrix)


def component_scores(learnt: FittedComponents, cases: CrsQuestions, vectors: CorpusVectors) -> dict[str, Scores]:
    """float32[q, n] by component, for every name in `ALL`."""
    liked = [tastes(context)[0] for context in cases.contexts()]
    wish = turn_vectors(cases, vectors, lambda turn: turn.speaker == SEEKER, _WISH_DECAY)
    centred = vectors.items - vectors.items.mean(axis=0)
    unit = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-6)
    out = {
        "network": learnt.network.log_probability(cases, vectors),
        "neighbours": learnt.knn.log_probability(liked),
        "popularity": np.tile(learnt.popularity, (len(cases), 1)),
        "wish": log_softmax(wish @ vectors.items.T, TEXT_TEMPERATURE),
        "context": log_softmax(text_lookup(cases, vectors), TEXT_TEMPERATURE),
        "taste": log_softmax(_means(centred, liked, LATEST) @ centred.T, TEXT_TEMPERATURE),
        "latest": log_softmax(_means(unit, liked, 1) @ unit.T, TEXT_TEMPERATURE),
    }
    for part, matrix in learnt.features.items():
        out[part] = log_softmax(_alike(matrix, liked), TEXT_TEMPERATURE)
    return out | _named(cases, len(vectors.items))


def text_lookup(cases: CrsQuestions, vectors: CorpusVectors) -> Scores:
    """float32[q, n]: similarity of every film's text to the latest turns, unprocessed."""
    found: Scores = vectors.contexts.of([context_text(context) for context in cases.contexts()]) @ vectors.items.T
    return found


def _means(vectors: Scores, histories: Sequence[Rows], latest: int) -> Scores:
    """Mean vector of the latest rows: float32[q, d], 0 for an empty history."""
    none = np.zeros(vectors.shape[1], np.float32)
    means = [vectors[rows[-latest:]].mean(axis=0) if len(rows) else none for rows in histories]
    return np.asarray(means, np.float32).reshape(len(histories), vectors.shape[1])


def _alike(matrix: sparse.csr_array, histories: Sequence[Rows]) -> Scores:
    """Mean similarity to the latest rows: float32[q, n]."""
    lines = [np.full(min(len(rows), LATEST), place) for place, rows in enumerate(histories)]
    columns = [rows[-LATEST:] for rows in histories]
    weights = [np.full(len(line), 1 / max(len(line), 1), np.float32) for line in lines]
    shape = (len(histories), matrix.shape[0])
    flat = [np.concatenate([np.zeros(0, one[0].dtype) if one else np.zeros(0), *one]) for one in (lines, columns)]
    values = np.concatenate([np.zeros(0, np.float32), *weights])
    chosen = sparse.csr_array((values, (flat[0].astype(np.int64), flat[1].astype(np.int64))), shape)
    return np.asarray((chosen @ matrix @ matrix.T).toarray(), np.float32)


def _named(cases: CrsQuestions, n_items: int) -> dict[str, Scores]:
    """Indicators of films named before, and of those named in the latest turn: float32[q, n] of 0 and 1.

    They are not log-probabilities: their weights are the nats by which such a film is more likely to be named again.
    """
    out = {name: np.zeros((len(cases), n_items), np.float32) for name in ("named", "named_latest")}
    for line, context in enumerate(cases.contexts()):
        out["named"][line, [row for turn in context for row in turn.rows]] = 1.0
        out["named_latest"][line, list(context[-1].rows) if context else []] = 1.0
    return out
