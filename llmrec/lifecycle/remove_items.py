"""Removes items from a trained model, its catalogue and its interactions without retraining."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from llmrec.checkpoint.parts import kept_rows, read_parts, without_rows, write_parts
from llmrec.checkpoint.pretrained import MODEL_KIND
from llmrec.data.catalog import Catalog
from llmrec.data.dataset import check_writable, dataset_reference, save_data
from llmrec.data.interactions import Interactions
from llmrec.data.readers.common import Report, carry_notes
from llmrec.errors import RequestError
from llmrec.storage.artifacts import JSON, check_replaceable
from llmrec.storage.locks import output_lock

_DOING = "removing items into"


def remove_items_from_model(
    model: Path,
    catalog: Catalog,
    interactions: Interactions,
    ids: Sequence[str],
    out: Path,
    out_data: Path,
    notes: Sequence[str] = (),
) -> dict[str, int]:
    """Write prepared data and a model without some items; data first, so that a model never names missing data.

    Args:
        model: the model directory.
        catalog: the catalogue of the model's data.
        interactions: the interactions of the model's data.
        ids: ids of the items to remove.
        out: model directory to write.
        out_data: prepared data to write.
        notes: notes of the report on the model's data; those that still apply are kept.

    Returns:
        How many items and interactions were removed, and how many are left.

    Raises:
        RequestError: an unknown id, or no item or interaction would be left.
        ArtifactError: the model belongs to another catalogue, or another process is writing `out` or `out_data`.
    """
    check_replaceable(out, MODEL_KIND)
    check_writable(out_data)
    with output_lock(out, _DOING), output_lock(out_data, _DOING, "--out-data"):
        return _remove(model, catalog, interactions, ids, out, out_data, notes)


def _remove(
    model: Path,
    catalog: Catalog,
    interactions: Interactions,
    ids: Sequence[str],
    out: Path,
    out_data: Path,
    notes: Sequence[str],
) -> dict[str, int]:
    kept = kept_rows(catalog, ids)
    parts = without_rows(read_parts(model, catalog), kept)
    place = np.full(len(catalog), -1, np.int64)
    place[kept] = np.arange(len(kept))
    stays = place[interactions.row] >= 0
    if not stays.any():
        raise RequestError("no interaction is with an item that stays")
    left = interactions.where(stays)
    log = Interactions.build([left.users[u] for u in left.user], place[left.row], left.time, left.value)
    smaller = Catalog([catalog[int(row)] for row in kept], catalog.domain, catalog.notes_by)
    counts = {"items": len(smaller), "users": len(log.users), "interactions": len(log)}
    gone = {"removed items": len(catalog) - len(kept), "their interactions": len(interactions) - len(log)}
    save_data(out_data, smaller, log, Report(counts, gone, carry_notes(notes, ("items were removed",))))
    event: dict[str, JSON] = {"what": "remove", "items": gone["removed items"], "left": len(smaller)}
    write_parts(out, parts, smaller, dataset_reference(out_data), event)
    return {
        "removed_items": gone["removed items"],
        "removed_interactions": gone["their interactions"],
        "items": len(smaller),
        "interactions": len(log),
    }
