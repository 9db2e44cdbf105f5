"""Saves and loads model directories: everything but the base model, with fingerprints of its dependencies."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file

from llmrec.checkpoint import validation
from llmrec.data.catalog import Catalog
from llmrec.encoders.config import encoder_config_dict
from llmrec.encoders.item_knn import ItemKNN
from llmrec.encoders.sequential import SequenceEncoder
from llmrec.encoders.text_similarity import ProfileSettings
from llmrec.errors import ArtifactError
from llmrec.lm import prompts
from llmrec.lm.base_models import BaseModelFiles, base_model, load_base
from llmrec.lm.model import ModelConfig, RecModel, model_config_dict
from llmrec.ranking.fusion import Fusion
from llmrec.storage.artifacts import Manifest, expect_fingerprint, fingerprint_bytes, read_manifest, write_artifact

MODEL_KIND = "model"
# Upper limits of the sizes in a configuration, which may be malicious; checked before anything is allocated.
_MOST = {
    "model": {"lora_rank": 1024, "lora_alpha": 1 << 20, "user_slots": 64, "adapter_width": 1 << 16},
    "encoder": {"dim": 1 << 14, "layers": 128, "heads": 1 << 10, "max_len": 1 << 16, "text_dims": 1 << 14},
}
_MOST_WINDOW, _MOST_TOWERS = 1 << 16, 16
_LONGEST_FILTER = 1 << 12  # most items; BSARec builds a square table of this size


@dataclass(frozen=True, eq=False)
class Pretrained:
    """A loaded model directory.

    Attributes:
        model: the bundle, not merged.
        prior: float32[n], log mass of every item in the train part, the prior of the trie.
        counts: int64[n], interactions of each item in the train part.
        neighbours: item-to-item neighbours, from the train part.
        fusions: weights by kind of request ("history", "words").
        settings: settings of the recommender: window, embedder, beams.
        meta: training settings and validation results.
    """

    model: RecModel
    prior: np.ndarray
    counts: np.ndarray
    neighbours: ItemKNN
    fusions: Mapping[str, Fusion]
    settings: Mapping[str, Any]
    meta: Mapping[str, Any]


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """Return a hash of the tokenizer's JSON."""
    return fingerprint_bytes(tokenizer.backend_tokenizer.to_str().encode())


def save_pretrained(path: Path, loaded: Pretrained, catalog: Catalog, base: BaseModelFiles, card: str) -> None:
    """Write a model directory atomically; LoRA weights are stored in float16, at half the size."""
    model = loaded.model
    fingerprints = {
        "catalog": catalog.fingerprint,
        "semantic_ids": model.vocab.ids.fingerprint,
        "tokenizer": tokenizer_fingerprint(model.tokenizer),
        "base": base.sha256,
        "templates": prompts.templates_hash(),
    }
    config = {
        "base": {"id": base.id, "sha256": base.sha256},
        "model": model_config_dict(model.config),
        "encoder": encoder_config_dict(model.encoder.config),
        "fusion": {kind: dict(fusion.weights) for kind, fusion in loaded.fusions.items()},
        "settings": dict(loaded.settings),
        "item_ids": [item.id for item in catalog.items],
    }
    with write_artifact(path, MODEL_KIND, fingerprints, dict(loaded.meta)) as directory:
        state = {
            n: t.to(torch.float16).contiguous() if "lora_" in n else t.contiguous()
            for n, t in model.added_state().items()
        }
        save_file(state, directory / "adapter.safetensors")
        save_arrays(model.encoder.state(), directory / "encoder.safetensors")
        save_arrays(loaded.neighbours.state(), directory / "neighbours.safetensors")
        ids = model.vocab.ids
        arrays = {"codes": ids.codes, "book": ids.codebook, "prior": loaded.prior, "counts": loaded.counts}
        save_arrays(arrays, directory / "semantic_ids.safetensors")
        (directory / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
        (directory / "README.md").write_text(card, encoding="utf-8")


def load_pretrained(path: Path, catalog: Catalog, progress: bool = True) -> Pretrained:
    """Load a model directory for this catalogue; the base model is found by id and verified by hash.

    Raises:
        ArtifactError: damaged files, or another catalogue, base, tokenizer, codebook or set of templates.
    """
    manifest = read_manifest(Path(path), MODEL_KIND)
    expect_fingerprint(manifest, "catalog", catalog.fingerprint, "catalogue")
    expect_fingerprint(manifest, "templates", prompts.templates_hash(), "set of prompt templates")
    config = read_config(Path(path))
    with validation.loading_from(Path(path)):
        return _loaded(Path(path), manifest, config, len(catalog), progress)


def _loaded(path: Path, manifest: Manifest, config: Mapping[str, Any], n: int, progress: bool) -> Pretrained:
    ids, prior, counts = validation.parse_item_arrays(load_arrays(path / "semantic_ids.safetensors"))
    expect_fingerprint(manifest, "semantic_ids", ids.fingerprint, "codebook")
    encoder, neighbours = read_encoder(path, config), read_neighbours(path)
    validation.check_item_counts(
        {"codes": len(ids.codes), "encoder": encoder.net.n_items, "neighbours": len(neighbours)}, n
    )
    state, sizes = load_file(path / "adapter.safetensors"), ModelConfig(**config["model"])
    validation.check_added_weights(state, ids, model_config_dict(sizes))
    base = base_model(config["base"]["id"], progress=progress)
    expect_fingerprint(manifest, "base", base.sha256, "base model")
    lm, tokenizer = load_base(base)
    expect_fingerprint(manifest, "tokenizer", tokenizer_fingerprint(tokenizer), "tokenizer")
    model = RecModel(lm, tokenizer, ids, encoder, sizes)
    model.load_added(state)
    fusions = {kind: Fusion(weights) for kind, weights in config["fusion"].items()}
    return Pretrained(model, prior, counts, neighbours, fusions, config["settings"], manifest.meta)


def read_encoder(path: Path, config: Mapping[str, Any]) -> SequenceEncoder:
    """Read the encoder of a model directory; DataError when its weights do not match the configuration."""
    state = load_arrays(path / "encoder.safetensors")
    validation.check_finite({f"encoder {name}": array for name, array in state.items()})
    return SequenceEncoder.from_state(state, config["encoder"])


def read_neighbours(path: Path) -> ItemKNN:
    """Read the neighbours of a model directory; DataError when they are not valid."""
    return ItemKNN.from_state(load_arrays(path / "neighbours.safetensors"))


def read_settings(path: Path) -> Mapping[str, Any]:
    """Read the settings of a model directory, such as the data it belongs to, and nothing else.

    Raises:
        ArtifactError: not a model directory, or damaged.
    """
    read_manifest(Path(path), MODEL_KIND)
    settings: Mapping[str, Any] = read_config(Path(path))["settings"]
    return settings


def read_config(path: Path) -> dict[str, Any]:
    """Read the configuration of a model directory; ArtifactError when it cannot be used."""
    try:
        config: dict[str, Any] = json.loads((path / "config.json").read_text(encoding="utf-8"))
        _check(config)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ArtifactError(f"{path}/config.json cannot be used: {str(error)[:200] or type(error).__name__}") from None
    return config


def _check(config: Mapping[str, Any]) -> None:
    """Check types and sizes in a configuration before any name is looked up or any memory is allocated."""
    _typed(config["base"]["id"], str, "base id")
    _typed(config["settings"]["data"], str, "settings data")
    _typed(config["settings"]["window"], int, "settings window")
    if not 1 <= config["settings"]["window"] <= _MOST_WINDOW:  # 0 would show the whole history
        raise ValueError(f"window is {config['settings']['window']}; it lies between 1 and {_MOST_WINDOW}")
    likeness = config["settings"].get("profile", {})
    for name, value in likeness.items():
        _typed(value, int if name in ("dims", "last") else int | float, f"profile {name}")
    ProfileSettings(**likeness)
    for kind, weights in config["fusion"].items():
        for part, weight in weights.items():
            _typed(weight, int | float, f"weight of {part} in {kind}")
    validation.check_fusion_weights(config["fusion"])
    _check_towers(config["encoder"])
    for section, bounds in _MOST.items():
        for holder in (config[section], *config[section].get("towers", ())):
            for name in bounds.keys() & holder.keys():
                _typed(holder[name], int, name)
                if not 0 <= holder[name] <= bounds[name]:
                    raise ValueError(f"{name} is {holder[name]}; it lies between 0 and {bounds[name]}")


def _check_towers(encoder: Mapping[str, Any]) -> None:
    towers = encoder.get("towers", ())
    if len(towers) > _MOST_TOWERS:
        raise ValueError(f"there are {len(towers)} towers; at most {_MOST_TOWERS} are read")
    for one in towers:
        _typed(one, dict, "tower")
    if any(one.get("kind") == "bsarec" for one in (encoder, *towers)) and encoder.get("max_len", 0) > _LONGEST_FILTER:
        raise ValueError(f"max_len is {encoder['max_len']}; with kind 'bsarec' it is at most {_LONGEST_FILTER}")


def _typed(value: object, kind: Any, what: str) -> None:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"{what} is {str(value)[:60]!r}, not of type {getattr(kind, '__name__', kind)}")
