"""Reads and replaces the parts of a model directory that depend on the data, without loading the language model.

LoRA weights, item tokens and user adapter are copied byte for byte. So a nightly refresh or a removal of items takes
seconds and cannot change generated text.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from llmrec.checkpoint import validation
from llmrec.checkpoint.pretrained import MODEL_KIND, read_config, read_encoder, read_neighbours
from llmrec.data.catalog import Catalog
from llmrec.encoders.item_knn import ItemKNN
from llmrec.encoders.sequential import SequenceEncoder
from llmrec.errors import ArtifactError, RequestError
from llmrec.semantic_ids.residual_kmeans import SemanticIds
from llmrec.storage.artifacts import JSON, Manifest, expect_fingerprint, read_manifest, write_artifact

_COPIED = ("adapter.safetensors",)


@dataclass(frozen=True, eq=False)
class ModelParts:
    """The parts of a model directory besides the weights added to the language model.

    Attributes:
        path: the directory.
        manifest: as read, with every hash checked.
        config: the configuration as read.
        encoder: the sequential encoder.
        neighbours: item-to-item neighbours.
        ids: semantic IDs.
        prior: float32[n], log mass of every item.
        counts: int64[n], interactions of each item in training.
        card: the model card.
    """

    path: Path
    manifest: Manifest
    config: Mapping[str, Any]
    encoder: SequenceEncoder
    neighbours: ItemKNN
    ids: SemanticIds
    prior: np.ndarray
    counts: np.ndarray
    card: str


def read_parts(path: Path, catalog: Catalog | None = None) -> ModelParts:
    """Read and verify a model directory without its language model.

    Raises:
        ArtifactError: damaged, or made for another catalogue than `catalog`.
    """
    path = Path(path)
    manifest = read_manifest(path, MODEL_KIND)
    if catalog is not None:
        expect_fingerprint(manifest, "catalog", catalog.fingerprint, "catalogue")
    config = read_config(path)
    with validation.loading_from(path):
        ids, prior, counts = validation.parse_item_arrays(load_file(path / "semantic_ids.safetensors"))
        encoder, neighbours = read_encoder(path, config), read_neighbours(path)
        n = len(ids.codes) if catalog is None else len(catalog)
        validation.check_item_counts(
            {"codes": len(ids.codes), "encoder": encoder.net.n_items, "neighbours": len(neighbours)}, n
        )
        card = (path / "README.md").read_text(encoding="utf-8")
    return ModelParts(path, manifest, config, encoder, neighbours, ids, prior, counts, card)


def write_parts(out: Path, parts: ModelParts, catalog: Catalog, data: str, event: Mapping[str, JSON]) -> None:
    """Write a model directory atomically; `out` may be the directory that the parts came from.

    Args:
        out: the directory to write.
        parts: the parts to write; the weights added to the language model are copied from `parts.path`.
        catalog: the catalogue that the model belongs to.
        data: name or directory of the data with this catalogue.
        event: an entry to append to the manifest's `history`.

    Raises:
        ArtifactError: rows that do not fit the catalogue.
    """
    n = len(catalog)
    sizes = {len(one) for one in (parts.ids.codes, parts.prior, parts.counts)}
    sizes |= {parts.encoder.net.n_items, parts.neighbours.similarity.shape[0]}
    if sizes != {n}:
        raise ArtifactError(f"parts of {sorted(sizes)} items do not fit a catalogue of {n}")
    prints = {
        **parts.manifest.fingerprints,
        "catalog": catalog.fingerprint,
        "semantic_ids": parts.ids.fingerprint,
    }
    meta = {**parts.manifest.meta, "history": [*parts.manifest.meta.get("history", []), dict(event)]}
    config = {
        **parts.config,
        "settings": {**parts.config["settings"], "data": data},
        "item_ids": [item.id for item in catalog.items],
    }
    with write_artifact(out, MODEL_KIND, prints, meta) as directory:
        for name in _COPIED:
            shutil.copyfile(parts.path / name, directory / name)
        save_file(parts.encoder.state(), directory / "encoder.safetensors")
        save_file(parts.neighbours.state(), directory / "neighbours.safetensors")
        arrays = {"codes": parts.ids.codes, "book": parts.ids.codebook, "prior": parts.prior, "counts": parts.counts}
        save_file({name: np.ascontiguousarray(a) for name, a in arrays.items()}, directory / "semantic_ids.safetensors")
        (directory / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
        (directory / "README.md").write_text(parts.card, encoding="utf-8")


def kept_rows(catalog: Catalog, removed: Sequence[str]) -> np.ndarray:
    """Return the rows int64[m] that remain when the items with these ids are removed, in order.

    Raises:
        RequestError: an unknown id, no ids, or the ids of all items.
    """
    gone = {catalog.row(id) for id in removed}
    if not gone:
        raise RequestError("no items to remove: name at least one id")
    if len(gone) == len(catalog):
        raise RequestError(f"these are all {len(catalog)} items of the catalogue; a catalogue keeps at least one")
    return np.array([row for row in range(len(catalog)) if row not in gone], np.int64)


def without_rows(parts: ModelParts, kept: np.ndarray) -> ModelParts:
    """Return the parts restricted to the rows `kept` int64[m]; the codes of these items do not change."""
    encoder = parts.encoder.with_item_rows(lambda vectors: vectors[kept], lambda biases: biases[kept])
    near = parts.neighbours.state()
    matrix = parts.neighbours.similarity[kept][:, kept].tocsr()
    matrix.sort_indices()
    near |= {"data": matrix.data, "indices": matrix.indices, "indptr": matrix.indptr, "behind": near["behind"][kept]}
    ids = SemanticIds(np.ascontiguousarray(parts.ids.codes[kept]), parts.ids.codebook)
    left = {"prior": parts.prior[kept], "counts": parts.counts[kept]}
    return replace(parts, encoder=encoder, neighbours=ItemKNN.from_state(near), ids=ids, **left)
