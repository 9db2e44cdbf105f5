"""Operations of the stages around fine-tuning, for a plan that covers the whole run.

Counts are of the arithmetic that cannot be left out, as in `cost`. What share of a plain product's rate a stage reaches
is rounded: a plan is to tell minutes from hours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from llmrec.data.interactions import Split, fusion_users, model_selection_users
from llmrec.encoders.training import FULL_LIMIT, SAMPLE
from llmrec.finetune.plan.cost import Body
from llmrec.finetune.recipe import Recipe
from llmrec.finetune.train.validation import BEAM_WIDTH
from llmrec.ranking.fusion import PRIOR_WEIGHTS
from llmrec.ranking.fusion_candidates import MAX_USERS, TOP_PER_PART, UNIFORM_SAMPLE
from llmrec.ranking.scorer import SMALL_TRIE_NODES
from llmrec.semantic_ids.rqvae import RqVaeConfig

# Share of a plain product's rate. Measured with one thread on MovieLens-100k, in CPU time: 400 descriptions 2.7 s, an
# epoch of HSTU 5.4 s, codes .4 to .9 s, a request of the fusion .6 s, beside 45 GFLOP/s. Replay from 250 tokens/s of
# SmolLM2-135M. The others are guesses: validation decodes beams, and fitting weights is sums, not products.
REACHED: Mapping[str, float] = {
    "text": 0.8,
    "encoder": 0.45,
    "crossfit": 0.45,
    "semantic_ids": 0.25,
    "replay": 0.4,
    "validation": 0.3,
    "fusion": 0.75,
    "fusion weights": 0.01,
}
OF_THE_LANGUAGE_MODEL = ("replay", "fine-tuning", "validation", "fusion")  # run where it lies: on a GPU if there is one
_MINILM = 2.0 * 6 * (4 * 384 * 384 + 2 * 384 * 1536)  # operations a token
_CHARACTERS = 4.0  # a token
_CUT = 256  # tokens of a description at most
_AROUND = 24  # tokens of a prompt beside the items
_KMEANS = 4 * 30  # starts times rounds
_FITS, _ROUNDS, _EACH_NUMBER = 11, 60, 8.0  # fits of a fusion, looks at its likelihood, operations a number


@dataclass(frozen=True)
class Sizes:
    """What the counts depend on.

    Attributes:
        recipe: all settings.
        body: the base model.
        split: the interactions.
        items: of the catalogue.
        new_texts: descriptions that have no vector yet.
    """

    recipe: Recipe
    body: Body
    split: Split
    items: int
    new_texts: Sequence[str]


def operations(of: Sizes) -> dict[str, float]:
    """Operations of every stage but fine-tuning, by name; what the recipe does not ask for is left out."""
    recipe = of.recipe
    encoder = _encoder(of)
    folds = recipe.traffic.folds
    replay = recipe.traffic.passages * recipe.traffic.passage_tokens if "replay" in recipe.traffic.shares else 0
    out = {
        "text": _MINILM * sum(min(len(text) / _CHARACTERS, _CUT) + 2 for text in of.new_texts),
        "encoder": encoder,
        "crossfit": encoder * max(0, folds - 1),  # each fold is fitted on the users of the others
        "semantic_ids": _semantic_ids(of),
        "replay": replay * 2.0 * (of.body.weights + of.body.words * of.body.hidden),
        "validation": _validation(of),
        "fusion": 2 * len(_asked(of)) * (_prompt(of) + _nodes(of)) * 2.0 * of.body.weights,
        "fusion weights": 2.0 * len(_asked(of)) * _columns(of) * len(PRIOR_WEIGHTS) * _FITS * _ROUNDS * _EACH_NUMBER,
    }
    return {name: count for name, count in out.items() if count or name in ("text", "encoder", "semantic_ids")}


def _encoder(of: Sizes) -> float:
    """All epochs; training may stop earlier."""
    config, train = of.recipe.encoder, of.split.train
    targets = max(0, len(train) - len(train.users))
    softmax = config.negatives or (SAMPLE if of.items > FULL_LIMIT else of.items)
    each = 0.0
    for part in config.parts:
        each += 6.0 * softmax * part.dim + 6.0 * part.layers * 6 * part.dim**2
    return config.epochs * targets * each


def _semantic_ids(of: Sizes) -> float:
    settings = of.recipe.semantic_ids
    dims = settings.text_dims + of.recipe.encoder.dim
    if settings.method == "kmeans":
        return 2.0 * of.items * settings.size * dims * settings.depth * _KMEANS
    config = RqVaeConfig()
    widths = (dims, *config.hidden, config.latent)
    weights = 2 * sum(a * b for a, b in pairwise(widths))
    return 6.0 * of.items * config.epochs * (weights + settings.depth * settings.size * config.latent)


def _prompt(of: Sizes) -> float:
    """Tokens of a mean prompt."""
    lengths = np.diff(of.split.train.offsets).clip(max=of.recipe.traffic.window)
    shape = of.recipe.semantic_ids
    return float(lengths.mean() if len(lengths) else 0.0) * shape.depth + of.recipe.model.user_slots + _AROUND


def _validation(of: Sizes) -> float:
    schedule = of.recipe.schedule
    if not schedule.validate_tokens:
        return 0.0
    users = min(schedule.validate_users, len(model_selection_users(of.split)))
    read = _prompt(of) + BEAM_WIDTH * (of.recipe.semantic_ids.depth - 1)
    times = max(1, schedule.tokens // schedule.validate_tokens)  # a shorter run validates at its end
    return times * users * read * 2.0 * of.body.weights


def _levels(of: Sizes) -> list[int]:
    """Nodes of each level above the items."""
    shape = of.recipe.semantic_ids
    return [min(shape.size ** (level + 1), of.items) for level in range(shape.depth - 1)]


def _small(of: Sizes) -> bool:
    return sum(_levels(of)) <= SMALL_TRIE_NODES


def _columns(of: Sizes) -> int:
    """Items that weights are fitted on, a request."""
    return of.items if _small(of) else min(of.items, TOP_PER_PART * (len(PRIOR_WEIGHTS) - 2) + UNIFORM_SAMPLE)


def _nodes(of: Sizes) -> int:
    """Nodes that the language model reads, a request."""
    return sum(min(level, _columns(of)) for level in _levels(of))


def _asked(of: Sizes) -> np.ndarray:
    users = fusion_users(of.split)
    return users if _small(of) else users[:MAX_USERS]
