"""Measures how far new items lie from the codebook of a model directory, by the measure in `semantic_ids.drift`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from llmrec.checkpoint.parts import read_parts
from llmrec.checkpoint.pretrained import read_settings
from llmrec.data.catalog import Catalog, Item
from llmrec.data.dataset import open_data
from llmrec.encoders.text import Embedder, MiniLM
from llmrec.encoders.text_cache import embed_catalog
from llmrec.errors import RequestError
from llmrec.semantic_ids.drift import Drift, sid_drift
from llmrec.storage.registry import cache_home


def measure_drift(
    model: Path, items: Sequence[Item], data: str | None = None, embedder: Embedder | None = None
) -> Drift:
    """Measure how far new items lie from a model's codebook, see `sid_drift`; known items are left out.

    Raises:
        RequestError: every item is known already, or the model does not record how its codebook was made.
    """
    catalog, _ = open_data(data if data is not None else str(read_settings(model)["data"]))
    parts = read_parts(model, catalog)
    shape = parts.manifest.meta.get("recipe", {}).get("semantic_ids", {})
    if not {"text_weight", "text_dims"} <= set(shape):
        raise RequestError(f"{model} does not say how its codebook was made: text_weight and text_dims are missing")
    new = Catalog([item for item in items if catalog.row_or_none(item.id) is None], catalog.domain)
    if not len(new):
        raise RequestError("every one of these items is in the catalogue already")
    embedder = embedder or MiniLM.load()
    vectors = embed_catalog(catalog, embedder, cache_home() / "cache")
    fresh = embed_catalog(new, embedder, cache_home() / "cache")
    return sid_drift(vectors, fresh, parts.ids, float(shape["text_weight"]), int(shape["text_dims"]))
