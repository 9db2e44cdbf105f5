"""The stages before fine-tuning; each result is an artifact, and a stage is skipped if its artifact already exists."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter
from safetensors.numpy import load_file, save_file

from llmrec.data.catalog import Catalog
from llmrec.data.interactions import Split, model_selection_users
from llmrec.encoders import text_cache
from llmrec.encoders.config import encoder_config_dict
from llmrec.encoders.sequential import SequenceEncoder
from llmrec.encoders.text import Embedder
from llmrec.encoders.training import next_item_ndcg, train_encoder
from llmrec.errors import ArtifactError
from llmrec.finetune.recipe import Recipe
from llmrec.progress import Say
from llmrec.semantic_ids import rqvae
from llmrec.semantic_ids.residual_kmeans import SemanticIds, fit, joint_vectors
from llmrec.storage.artifacts import fingerprint_bytes, read_manifest, write_artifact


@dataclass(frozen=True, eq=False)
class Inputs:
    """The inputs that all stages share.

    Attributes:
        catalog: the items.
        split: the interactions, split into train, validation and test.
        recipe: all settings.
        work: directory of the stage artifacts.
        say: called with lines of progress for the user.
        texts: directory of the text vectors that runs and models share; None shares none.
    """

    catalog: Catalog
    split: Split
    recipe: Recipe
    work: Path
    say: Say
    texts: Path | None = None


def settings_hash(**parts: object) -> str:
    """Return a hash of settings, for a stage's fingerprint."""
    return fingerprint_bytes(json.dumps(parts, sort_keys=True, default=str).encode())


def run_stage(
    inputs: Inputs, name: str, fingerprint: str, make: Callable[[], Mapping[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Return the arrays of a stage.

    They are loaded if the artifact is intact and was made from the same inputs; otherwise they are made and saved.
    """
    path = inputs.work / name
    kind = f"stage-{name}"
    if path.is_dir():
        try:
            if read_manifest(path, kind).fingerprints.get("inputs") == fingerprint:
                inputs.say(f"{name}: already there")
                return load_file(path / "arrays.safetensors")
            inputs.say(f"{name}: made from other inputs, made again")
        except ArtifactError as error:
            inputs.say(f"{name}: {error}; made again")
    arrays = {n: np.ascontiguousarray(a) for n, a in make().items()}
    with write_artifact(path, kind, {"inputs": fingerprint}, own_place=True) as directory:
        save_file(arrays, directory / "arrays.safetensors")
    return arrays


def encoder_validation(split: Split, users: Iterable[int]) -> Callable[[SequenceEncoder], float]:
    """Return the function that encoders are selected by: NDCG@10 on the validation items of these users."""
    chosen = np.asarray(list(users), np.int64)
    histories, targets = [split.history(int(u), "valid") for u in chosen], split.valid[chosen]
    return lambda candidate: next_item_ndcg(candidate, histories, targets)


def text_fingerprint(inputs: Inputs, text: np.ndarray | None) -> str | None:
    """Return the SHA-256 hex digest of the text vectors, or None if the encoder does not read them."""
    reads = any(part.text_dims for part in inputs.recipe.encoder.parts)
    return fingerprint_bytes(text.tobytes()) if text is not None and reads else None


def encoder(inputs: Inputs, text: np.ndarray | None = None) -> SequenceEncoder:
    """Train (or load) the sequential encoder on the train part; its recipe may require `text`, float32[n, d]."""
    recipe, n = inputs.recipe, len(inputs.catalog)
    users = model_selection_users(inputs.split)
    config = encoder_config_dict(recipe.encoder)

    def make() -> Mapping[str, np.ndarray]:
        train, validate = inputs.split.train, encoder_validation(inputs.split, users)
        return train_encoder(train, n, recipe.encoder, recipe.seed, validate, inputs.say, text)[0].state()

    words = text_fingerprint(inputs, text)
    fingerprint = settings_hash(
        train=inputs.split.train.fingerprint,
        valid=[int(r) for r in inputs.split.valid[users]],
        config=config,
        seed=recipe.seed,
        **({"text": words} if words else {}),
    )
    return SequenceEncoder.from_state(run_stage(inputs, "encoder", fingerprint, make), config)


def text_vectors(inputs: Inputs, embedder: Embedder) -> np.ndarray:
    """Return float32[n, d], the embeddings of the catalogue's descriptions, made once."""

    def make() -> Mapping[str, np.ndarray]:
        inputs.say(f"text: {len(inputs.catalog)} descriptions through {embedder.name}")
        return {"vectors": text_cache.embed_catalog(inputs.catalog, embedder, inputs.texts, inputs.say)}

    fingerprint = settings_hash(catalog=inputs.catalog.fingerprint, embedder=embedder.name)
    return run_stage(inputs, "text", fingerprint, make)["vectors"]


def semantic_ids(inputs: Inputs, text: np.ndarray, trained: SequenceEncoder) -> SemanticIds:
    """Return semantic IDs made from fused text and collaborative vectors."""
    settings = inputs.recipe.semantic_ids

    def make() -> Mapping[str, np.ndarray]:
        fused = joint_vectors(text, trained.item_vectors, settings.text_dims, settings.text_weight)
        make_ids = rqvae.fit if settings.method == "rqvae" else fit
        inputs.say(f"semantic ids: {settings.depth} levels of {settings.size} codes for {len(fused)} items")
        ids = make_ids(fused, settings.depth, settings.size, inputs.recipe.seed, say=inputs.say)
        inputs.say(f"semantic ids: {json.dumps(ids.statistics())}")
        return {"codes": ids.codes, "book": ids.codebook}

    fingerprint = settings_hash(
        text=fingerprint_bytes(text.tobytes()),
        items=fingerprint_bytes(trained.item_vectors.tobytes()),
        settings=_named(TypeAdapter(type(settings)).dump_python(settings)),
        seed=inputs.recipe.seed,
    )
    arrays = run_stage(inputs, "semantic_ids", fingerprint, make)
    return SemanticIds(arrays["codes"], arrays["book"])


def _named(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings without the default method, so that codes made before the setting existed are still found."""
    return {name: value for name, value in settings.items() if name != "method" or value != "kmeans"}
