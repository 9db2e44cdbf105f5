"""Nightly refresh: fits encoder, neighbours and prior to new interactions, and keeps the language model.

Training of the encoder continues from its present weights. This is cheaper than training from scratch, and it keeps the
vector space: the adapter was trained to read the user vectors of this encoder and would not understand those of a new
one. The refresh measures how far the user vectors moved, and reports when they moved so far that fine-tuning must be
repeated.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from llmrec.checkpoint.parts import ModelParts, read_parts, write_parts
from llmrec.checkpoint.pretrained import MODEL_KIND
from llmrec.data.dataset import dataset_reference, open_data
from llmrec.data.interactions import Interactions, Split, leave_one_out, model_selection_users
from llmrec.encoders import ease
from llmrec.encoders.item_knn import NeighbourSettings, fit_neighbours, item_counts
from llmrec.encoders.sequential import SequenceEncoder
from llmrec.encoders.training import train_encoder
from llmrec.errors import RequestError, UserError
from llmrec.finetune.stages import encoder_validation
from llmrec.progress import Say, silent
from llmrec.semantic_ids.trie import log_mass
from llmrec.storage.artifacts import check_replaceable
from llmrec.storage.locks import output_lock

LEAST_COSINE = 0.8  # mean cosine of user vectors below which the adapter should be trained again
_SAMPLE = 2000


@dataclass(frozen=True)
class RefreshReport:
    """Result of a refresh.

    Attributes:
        interactions: number of interactions in the new data.
        new_users: users that the model's former data did not have; None if that data cannot be found.
        ndcg_before: NDCG@10 of the former encoder on the new validation items, without seen items.
        ndcg_after: the same for the encoder that is kept.
        refitted: whether the refitted encoder is kept; one that validates worse is discarded.
        user_cosine: mean cosine of former and new user vectors over the same histories; 1 if the encoder is unchanged.
        rebuild: whether the user vectors moved so far that fine-tuning should be repeated.
    """

    interactions: int
    new_users: int | None
    ndcg_before: float
    ndcg_after: float
    refitted: bool
    user_cosine: float
    rebuild: bool


def refresh_model(
    model: Path,
    data: str | Path,
    out: Path,
    epochs: int = 4,
    rate: float = 0.3,
    seed: int = 0,
    say: Say = silent,
) -> RefreshReport:
    """Write a model directory with everything except the language model fitted to the interactions of `data`.

    Args:
        model: the model directory.
        data: prepared data with the same catalogue and more interactions.
        out: directory to write; it may be the model directory itself, which is then replaced in one step.
        epochs: largest number of epochs over the whole train part.
        rate: learning rate as a share of the recipe's.
        seed: seed of the example order and of dropout.
        say: called with a line of progress at each step.

    Raises:
        ArtifactError: the catalogue differs (run `items add` or `items remove` first), the directory is damaged, or
            another process is writing to `out`.
        RecipeError: neighbours use ridge regression and there are more items than fit into memory.
        RequestError: settings are out of range, or no user in the data has a validation item.
    """
    if epochs < 0 or not 0.0 < rate <= 1.0:
        raise RequestError(f"--epochs {epochs} must be at least 0 and --rate {rate} lie in (0, 1]")
    check_replaceable(out, MODEL_KIND)
    with output_lock(out, "refreshing"):
        return _refresh(model, data, out, epochs, rate, seed, say)


def _refresh(model: Path, data: str | Path, out: Path, epochs: int, rate: float, seed: int, say: Say) -> RefreshReport:
    say(f"reading {data} and {model}")
    catalog, interactions = open_data(data)
    parts = read_parts(model, catalog)
    split = leave_one_out(interactions)
    former = _former(parts, catalog.fingerprint)
    users = _unseen_targets(split, former)
    if not len(users):
        raise RequestError("no user has a validation item that the model was not trained on: nothing can be compared")
    say(f"{len(interactions)} interactions; validating on {len(users)} users")
    settings = NeighbourSettings(**_recipe(parts).get("neighbours", {}))
    if settings.ridge:
        ease.check_size(len(catalog))
    kept, before, after = refit_encoder(parts, split, len(catalog), users, epochs, rate, seed, say)
    cosine = mean_user_cosine(parts.encoder, kept, split)
    counts = item_counts(split.train, len(catalog))
    fresh = replace(
        parts,
        encoder=kept,
        neighbours=fit_neighbours(split.train, len(catalog), settings),
        prior=log_mass(counts),
        counts=counts,
    )
    new_users = None if former is None else len(set(interactions.users) - set(former.users))
    done = RefreshReport(
        len(interactions), new_users, before, after, kept is not parts.encoder, cosine, cosine < LEAST_COSINE
    )
    event = {"what": "refresh", "train_fingerprint": split.train.fingerprint, **asdict(done)}
    write_parts(out, fresh, catalog, dataset_reference(data), event)
    return done


def mean_user_cosine(before: SequenceEncoder, after: SequenceEncoder, split: Split) -> float:
    """Return the mean cosine between the user vectors of two encoders over (a sample of) the same histories."""
    if before is after:
        return 1.0
    lengths = np.diff(split.train.offsets)
    users = np.flatnonzero(lengths)
    users = users[:: max(1, len(users) // _SAMPLE)]
    histories = [split.train.rows_of(int(user)) for user in users]
    one, two = before.encode(histories), after.encode(histories)
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1)
    return float(((one * two).sum(axis=1) / np.maximum(norms, 1e-12)).mean())


def refit_encoder(
    parts: ModelParts,
    split: Split,
    n: int,
    users: np.ndarray,
    epochs: int,
    rate: float,
    seed: int,
    say: Say,
) -> tuple[SequenceEncoder, float, float]:
    """Return the better of the former and the refitted encoder, the former's NDCG@10, and that of the one kept."""
    validate = encoder_validation(split, users)
    before = validate(parts.encoder)
    if not epochs:
        return parts.encoder, before, before
    config = parts.encoder.config
    towers = tuple(replace(tower, text_dims=0) for tower in config.towers)  # item vectors already include the text
    config = replace(
        config, epochs=epochs, lr=config.lr * rate, evaluate_every=1, patience=epochs, text_dims=0, towers=towers
    )
    found, _ = train_encoder(split.train, n, config, seed, validate, say, start=parts.encoder)
    after = validate(found)
    if after < before:
        say(f"the refitted encoder validates worse ({after:.4f} beside {before:.4f}): the former one is kept")
        return parts.encoder, before, before
    return found, before, after


def _former(parts: ModelParts, catalog: str) -> Interactions | None:
    """Return the interactions that the model was trained on, or None if they can no longer be found."""
    try:
        known, interactions = open_data(str(parts.config["settings"]["data"]))
    except UserError:
        return None
    trained = parts.manifest.meta.get("train_fingerprint")
    same = known.fingerprint == catalog and leave_one_out(interactions).train.fingerprint == trained
    return interactions if same else None


def _unseen_targets(split: Split, former: Interactions | None) -> np.ndarray:
    """Return the model-selection users whose validation item was not in the former train part.

    A user with only two interactions is trained on in full; one more interaction turns the second into a validation
    item.
    """
    users = model_selection_users(split)
    if former is None:
        return users
    train = leave_one_out(former).train
    names = split.train.users
    numbers = {user: number for number, user in enumerate(train.users)}
    known = [set(train.rows_of(numbers[names[u]]).tolist()) if names[u] in numbers else set() for u in users]
    return (
        users[[int(split.valid[u]) not in seen for u, seen in zip(users, known, strict=True)]] if len(users) else users
    )


def _recipe(parts: ModelParts) -> dict[str, Any]:
    recipe: dict[str, Any] = dict(parts.manifest.meta.get("recipe", {}))
    return recipe


__all__ = ["LEAST_COSINE", "RefreshReport", "mean_user_cosine", "refresh_model"]
