"""The parts of a model directory that belong to data and not to the language model, read and replaced on their own.

Nothing here loads the base model: its LoRA, item tokens and user adapter are copied byte for byte. That is what lets a
nightly refresh or a removal finish in seconds, and what makes it certain that neither can change a word.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from llmrec.checkpoint import validation
from llmrec.checkpoint.pretrained import KIND, read_config, read_encoder, read_neighbours
from llmrec.data.catalog import Catalog
from llmrec.encoders.item_knn import ItemKNN
from llmrec.encoders.sequential import SequenceEncoder
from llmrec.errors import ArtifactError, RequestError
from llmrec.semantic_ids.residual_kmeans import SemanticIds
from llmrec.storage.artifacts import JSON, Manifest, expect_fingerprint, read_manifest, write_artifact

# an encoder's arrays with a row for every item, of one encoder or of several towers
_BY_ITEM = re.compile(r"(?:nets\.\d+\.)?(item\.weight|bias)")
_COPIED = ("adapter.safetensors",)


@dataclass(frozen=True, eq=False)
class Parts:
    """What a model directory holds beside the language model's own additions.

    Attributes:
        path: the directory.
        manifest: as read, every hash checked.
        config: as read.
        encoder: the sequential encoder.
        neighbours: what tends to be taken after what.
        ids: semantic IDs.
        prior: float32[n], log mass of every item.
        counts: int64[n], how often each was taken in training.
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


def read_parts(path: Path, catalog: Catalog | None = None) -> Parts:
    """Read and verify a model directory, the language model left where it is.

    Raises:
        ArtifactError: damaged, or made for another catalogue than `catalog`.
    """
    path = Path(path)
    manifest = read_manifest(path, KIND)
    if catalog is not None:
        expect_fingerprint(manifest, "catalog", catalog.fingerprint, "catalogue")
    config = read_config(path)
    with validation.in_one_line(path):
        ids, prior, counts = validation.of_items(load_file(path / "semantic_ids.safetensors"))
        encoder, neighbours = read_encoder(path, config), read_neighbours(path)
        n = len(ids.codes) if catalog is None else len(catalog)
        validation.items_of({"codes": len(ids.codes), "encoder": encoder.net.n_items, "neighbours": len(neighbours)}, n)
        card = (path / "README.md").read_text(encoding="utf-8")
    return Parts(path, manifest, config, encoder, neighbours, ids, prior, counts, card)


def write_parts(out: Path, parts: Parts, catalog: Catalog, data: str, event: Mapping[str, JSON]) -> None:
    """Write a model directory all or nothing; `out` may be the directory that the parts came from.

    Args:
        out: the directory.
        parts: what to write; the language model's additions are copied from `parts.path`.
        catalog: what it belongs to from now on.
        data: name or directory of that data.
        event: what was done, added to the manifest's `history`.

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
    with write_artifact(out, KIND, prints, meta) as directory:
        for name in _COPIED:
            shutil.copyfile(parts.path / name, directory / name)
        save_file(parts.encoder.state(), directory / "encoder.safetensors")
        save_file(parts.neighbours.state(), directory / "neighbours.safetensors")
        arrays = {"codes": parts.ids.codes, "book": parts.ids.book, "prior": parts.prior, "counts": parts.counts}
        save_file({name: np.ascontiguousarray(a) for name, a in arrays.items()}, directory / "semantic_ids.safetensors")
        (directory / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
        (directory / "README.md").write_text(parts.card, encoding="utf-8")


def kept_rows(catalog: Catalog, removed: Sequence[str]) -> np.ndarray:
    """int64[m]: the rows that stay when the items with these ids go, in their order.

    Raises:
        RequestError: an id that is not there, none, or all of them.
    """
    gone = {catalog.row(id) for id in removed}
    if not gone:
        raise RequestError("no items to remove: name at least one id")
    if len(gone) == len(catalog):
        raise RequestError(f"these are all {len(catalog)} items of the catalogue; a catalogue keeps at least one")
    return np.array([row for row in range(len(catalog)) if row not in gone], np.int64)


def _rows_of(name: str, value: np.ndarray, kept: np.ndarray) -> np.ndarray | slice:
    """Which rows of one of an encoder's arrays stay: of item vectors the kept ones and the padding behind them."""
    found = _BY_ITEM.fullmatch(name)
    if found is None:
        return slice(None)
    return kept if found[1] == "bias" else np.append(kept, len(value) - 1)


def without_rows(parts: Parts, kept: np.ndarray) -> Parts:
    """The parts for the `kept` rows alone, int64[m]; the codes of those items do not change."""
    state = {name: value[_rows_of(name, value, kept)] for name, value in parts.encoder.state().items()}
    encoder = SequenceEncoder.from_state(state, parts.config["encoder"])
    near = parts.neighbours.state()
    matrix = parts.neighbours.similarity[kept][:, kept].tocsr()
    matrix.sort_indices()
    near |= {"data": matrix.data, "indices": matrix.indices, "indptr": matrix.indptr, "behind": near["behind"][kept]}
    ids = SemanticIds(np.ascontiguousarray(parts.ids.codes[kept]), parts.ids.book)
    left = {"prior": parts.prior[kept], "counts": parts.counts[kept]}
    return replace(parts, encoder=encoder, neighbours=ItemKNN.from_state(near), ids=ids, **left)
