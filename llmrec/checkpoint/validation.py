"""Validates that the parts of a model directory fit the catalogue and each other.

Hashes detect damage, but neither malice nor mistakes, since whoever writes a directory also writes its manifest. Sizes
are checked before anything of that size is allocated, and numbers before anything is computed from them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from llmrec.errors import ArtifactError, DataError, UserError
from llmrec.ranking.fusion import FAMILIARITY_PARTS, PRIOR_WEIGHTS
from llmrec.semantic_ids.residual_kmeans import SemanticIds
from llmrec.semantic_ids.trie import MAX_COUNT, counts_of

REQUEST_KINDS = ("history", "words")  # kinds of requests, each with its own fusion weights
_MOST_WEIGHT = 1e6  # limit of a fusion weight's absolute value; actual ones lie below 10


@contextmanager
def loading_from(path: Path) -> Iterator[None]:
    """Turn any error while loading a directory into a one-line ArtifactError that names the directory."""
    try:
        yield
    except DataError as error:
        raise ArtifactError(f"{path} does not load: {error}") from error
    except UserError:
        raise
    except Exception as error:
        first = (str(error).strip().splitlines() or [""])[0][:200]
        raise ArtifactError(f"{path} does not load: {type(error).__name__}: {first}") from error


def parse_item_arrays(arrays: Mapping[str, np.ndarray]) -> tuple[SemanticIds, np.ndarray, np.ndarray]:
    """Return the semantic IDs, log mass float32[n] and interaction count int64[n] of every item, from a file's arrays.

    Older files have no counts; there they are derived from the log masses. For items that were added to such a model,
    the log masses are estimates from similar items.

    Raises:
        DataError: arrays of a wrong shape or type, codes outside the codebook, or numbers that are not finite.
    """
    codes, codebook, prior = (np.array(arrays[name]) for name in ("codes", "book", "prior"))
    if not (codes.ndim == 2 and codes.size and codes.dtype.kind == "i" and codebook.ndim == 3 and codebook.size):
        raise DataError(f"codes of shape {codes.shape} and type {codes.dtype}, a codebook of shape {codebook.shape}")
    if codes.shape[1] != len(codebook) or codes.min() < 0 or codes.max() >= codebook.shape[1]:
        raise DataError(
            f"codes of {codes.shape[1]} levels from {codes.min()} to {codes.max()}; "
            f"the codebook has {len(codebook)} levels of {codebook.shape[1]}"
        )
    if prior.shape != (len(codes),):
        raise DataError(f"a prior of shape {prior.shape}; it is one number for each of {len(codes)} items")
    check_finite({"codebook": codebook, "prior": prior})
    counts = arrays["counts"] if "counts" in arrays else counts_of(prior)
    if counts.shape != prior.shape or counts.dtype.kind not in "iu" or counts.min() < 0 or counts.max() > MAX_COUNT:
        raise DataError(
            f"counts of shape {counts.shape} and type {counts.dtype}; they are a whole number from 0 to {MAX_COUNT} "
            f"for each of {len(codes)} items"
        )
    return SemanticIds(codes, codebook), prior, np.array(counts, np.int64)


def check_finite(arrays: Mapping[str, np.ndarray]) -> None:
    """Raise DataError for an array with values that are not finite numbers."""
    for name, array in arrays.items():
        if not (array.dtype.kind in "iuf" and np.isfinite(array).all()):
            raise DataError(f"{name} of type {array.dtype} holds something else than finite numbers")


def check_item_counts(parts: Mapping[str, int], n: int) -> None:
    """Raise DataError for a part with a number of items other than `n`."""
    for name, size in parts.items():
        if size != n:
            raise DataError(f"{name} of {size} items; the catalogue has {n}")


def check_added_weights(state: Mapping[str, torch.Tensor], ids: SemanticIds, sizes: Mapping[str, Any]) -> None:
    """Raise DataError when saved weights do not fit these IDs and `sizes`, or are not finite."""
    tokens, hidden = (int(one) for one in state["items.weight"].shape)
    _check_rows("items.weight", tokens, ids.depth * ids.size, "codes")
    _check_rows(
        "adapter.inner.0.bias", len(state["adapter.inner.0.bias"]), int(sizes["adapter_width"]), "adapter_width"
    )
    _check_rows(
        "adapter.linear.bias", len(state["adapter.linear.bias"]), int(sizes["user_slots"]) * hidden, "user_slots"
    )
    for name, tensor in state.items():
        if "lora_A" in name:
            _check_rows(name, len(tensor), int(sizes["lora_rank"]), "lora_rank")
        if not (tensor.is_floating_point() and bool(torch.isfinite(tensor).all())):
            raise DataError(f"{name} of type {tensor.dtype} holds something else than finite numbers")


def _check_rows(name: str, found: int, wanted: int, what: str) -> None:
    if found != wanted:
        raise DataError(f"{name} has {found} rows; by {what} there are {wanted}")


def check_fusion_weights(fusions: Mapping[str, Mapping[str, float]]) -> None:
    """Raise ValueError unless both kinds of request have weights of known parts, at least one of which always scores.

    Weights must be numbers of at most `_MOST_WEIGHT` in absolute value.
    """
    for kind in REQUEST_KINDS:
        if kind not in fusions:
            raise ValueError(f"fusion has no weights for {kind!r}; it needs {' and '.join(REQUEST_KINDS)}")
    for kind, of in fusions.items():
        for part, weight in of.items():
            if part not in PRIOR_WEIGHTS and part not in FAMILIARITY_PARTS:
                known = ", ".join((*PRIOR_WEIGHTS, *FAMILIARITY_PARTS))
                raise ValueError(f"fusion {str(kind)[:60]!r} weighs {part[:60]!r}; the parts are {known}")
            if not abs(weight) <= _MOST_WEIGHT:
                raise ValueError(
                    f"the weight of {part} in {str(kind)[:60]!r} is not a number up to {_MOST_WEIGHT:,.0f}"
                )
        quiet = {"words"} if kind == "history" else set()  # without a message, this part has no scores
        if not of.keys() - quiet - {"llm"} and not of.get("llm"):
            raise ValueError(f"fusion {str(kind)[:60]!r} gives no part a weight that has something to say there")
