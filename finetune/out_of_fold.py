"""Out-of-fold user vectors for training: from encoders that were not fitted on the user.

The encoder has been fitted on the very positions that the language model is trained on: there its vectors rank the next
item far better than they do for a new item (MovieLens-100k, NDCG@10 .165 against .115), and a model that learns from
them learns to trust them too much. So the users are dealt into folds, every fold gets its vectors from an encoder that
was fitted on the other folds (cross-fitting, as in stacked generalisation: Wolpert, 1992), and that encoder's space is
turned onto the full one's by the rotation that brings their item vectors closest together (orthogonal Procrustes:
Schoenemann, 1966). Served are the full encoder's vectors.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from llmrec.data.interactions import model_selection_users
from llmrec.encoders.config import encoder_config_dict
from llmrec.encoders.sequential import SequenceEncoder
from llmrec.encoders.training import train_encoder
from llmrec.finetune import stages
from llmrec.finetune.stages import Inputs, settings_hash
from llmrec.progress import counted
from llmrec.storage.artifacts import fingerprint_arrays


def assign_folds(users: int, folds: int, seed: int) -> np.ndarray:
    """int64[users]: the fold of each user, sizes equal but for one."""
    return np.random.default_rng(seed).permutation(users) % folds


def procrustes_rotation(source: np.ndarray, target: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """float32[d, d]: the orthogonal R for which `source` @ R is closest to `target`.

    Args:
        source: float32[n, d], item vectors of the space to be turned.
        target: float32[n, d], vectors of the same items in the other space.
        weight: float[n], how much an item counts in the squared distance.
    """
    left, _, right = np.linalg.svd((source * weight[:, None]).astype(np.float64).T @ target.astype(np.float64))
    out: np.ndarray = (left @ right).astype(np.float32)
    return out


def out_of_fold_vectors(
    inputs: Inputs, full: SequenceEncoder, folds: int, text: np.ndarray | None = None
) -> list[np.ndarray]:
    """For each user float32[t, d]: the vector after each item of the train part, from an encoder fitted without them.

    Args:
        inputs: data, recipe and the place of the artifact (`crossfit`).
        full: the encoder fitted on everyone, whose space the vectors are in.
        folds: at least 2; that many encoders are fitted.
        text: float32[n, e], vectors of the items' texts, where the encoder's settings ask for them.
    """
    train, n = inputs.split.train, len(inputs.catalog)
    fold = assign_folds(len(train.users), folds, inputs.recipe.seed)
    weight = np.bincount(train.row, minlength=n).astype(np.float64)

    def make() -> Mapping[str, np.ndarray]:
        vectors = np.zeros((len(train), full.item_vectors.shape[1]), np.float32)
        for number in range(folds):
            inputs.say(f"crossfit {number + 1} of {folds}: encoder without {int((fold == number).sum())} users")
            encoder = _fit(inputs, fold != number, text)
            turn = procrustes_rotation(encoder.item_vectors, full.item_vectors, weight)
            for user in counted(np.flatnonzero(fold == number), "crossfit: user vectors", inputs.say, "users"):
                a, b = train.offsets[user], train.offsets[user + 1]
                vectors[a:b] = encoder.trajectory(train.rows_of(int(user))) @ turn
        return {"vectors": vectors}

    config = encoder_config_dict(inputs.recipe.encoder)
    fingerprint = settings_hash(
        train=train.fingerprint,
        full=fingerprint_arrays(**full.state()),
        text=stages.text_fingerprint(inputs, text),
        config=config,
        folds=folds,
        seed=inputs.recipe.seed,
    )
    vectors = stages.run_stage(inputs, "crossfit", fingerprint, make)["vectors"]
    return np.split(vectors, train.offsets[1:-1])


def _fit(inputs: Inputs, kept: np.ndarray, text: np.ndarray | None) -> SequenceEncoder:
    """An encoder on the kept users' train part; the epoch is chosen as for the full one, on kept users."""
    train, recipe = inputs.split.train, inputs.recipe
    validate = stages.encoder_validation(inputs.split, (u for u in model_selection_users(inputs.split) if kept[u]))
    part = train.where(kept[train.user])
    return train_encoder(part, len(inputs.catalog), recipe.encoder, recipe.seed, validate, inputs.say, text)[0]
