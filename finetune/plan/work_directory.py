"""Reads the finished stages of a work directory and makes untrained stand-ins for missing ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, NoReturn, cast

import numpy as np
import torch

from llmrec.encoders.config import EncoderConfig
from llmrec.encoders.sequential import SequenceEncoder, network
from llmrec.errors import ArtifactError, DataError
from llmrec.finetune import stages
from llmrec.finetune.data.context import TaskContext
from llmrec.finetune.stages import Inputs
from llmrec.finetune.train import checkpoints
from llmrec.finetune.train.fine_tuning import fingerprints_of, make_task_context
from llmrec.lm.base_models import BaseModelFiles
from llmrec.semantic_ids.residual_kmeans import SemanticIds
from llmrec.storage.artifacts import read_manifest

READY = "already there"
MISSING = "not there yet"


@dataclass(frozen=True, eq=False)
class StageOutputs:
    """Results of the stages that are finished and match the present data and recipe; None for all others.

    Attributes:
        encoder: the trained sequential encoder.
        ids: semantic IDs.
        passages: int64[m, length], replay text.
        lines: (stage, state) of every stage in order, as text.
    """

    encoder: SequenceEncoder | None
    ids: SemanticIds | None
    passages: np.ndarray | None
    lines: tuple[tuple[str, str], ...]


class _Making(Exception):
    """Raised when a stage would have to be made."""


def look_up_stages(inputs: Inputs, base: BaseModelFiles | None) -> StageOutputs:
    """Read the stages of a run in order; nothing is made or written."""
    lines: list[tuple[str, str]] = []

    def read(name: str, make: Callable[[Inputs], Any]) -> Any:
        if not (inputs.work / name).is_dir():
            lines.append((name, MISSING))
            return None
        try:
            value = make(replace(inputs, say=_stop_unless_ready))
        except _Making as made:
            lines.append((name, str(made).removeprefix(f"{name}: ")))
            return None
        lines.append((name, READY))
        return value

    embedder: Any = SimpleNamespace(name=inputs.recipe.embedder, encode=_stop)
    text = read("text", lambda quiet: stages.text_vectors(quiet, embedder))
    encoder: SequenceEncoder | None = read("encoder", lambda quiet: stages.encoder(quiet, text))
    ids: SemanticIds | None = None
    if encoder is None or text is None:
        lines.append(("semantic_ids", "waits for encoder and text"))
    else:
        ids = read("semantic_ids", lambda quiet: stages.semantic_ids(quiet, text, encoder))
    passages = None
    if base is not None and "replay" in inputs.recipe.traffic.shares:
        empty: Any = SimpleNamespace(encoder=SimpleNamespace(trajectory=lambda rows: np.zeros((0, 1), np.float32)))
        passages = read("replay", lambda quiet: make_task_context(quiet, empty, base).passages)
    lines.append(("fine-tuning", _progress(inputs, encoder, ids, base)))
    return StageOutputs(encoder, ids, passages, tuple(lines))


def _stop_unless_ready(line: str) -> None:
    if not line.endswith(READY):  # any other line means that the stage is about to be made
        raise _Making(line)


def _stop(texts: Sequence[str]) -> NoReturn:
    raise _Making(f"text: {len(texts)} descriptions to embed")


def _progress(
    inputs: Inputs, encoder: SequenceEncoder | None, ids: SemanticIds | None, base: BaseModelFiles | None
) -> str:
    """Describe the progress of the newest intact checkpoint that belongs to this run."""
    if encoder is None or ids is None or base is None or not base.sha256:
        return MISSING
    parts = cast(Any, SimpleNamespace(encoder=encoder, vocab=SimpleNamespace(ids=ids)))
    wanted = fingerprints_of(inputs, parts, base)
    for path in sorted((inputs.work / "checkpoints").glob("step-*"), reverse=True):
        try:
            manifest = read_manifest(path, checkpoints.KIND)
        except (ArtifactError, OSError):  # incomplete, or deleted by a run in progress
            continue
        if dict(manifest.fingerprints) == wanted:
            done, seconds = int(manifest.meta["tokens"]), float(manifest.meta["seconds"])
            rate = f", at {done / seconds:.0f} tokens/s" if seconds else ""
            return f"{done:,} of {inputs.recipe.schedule.tokens:,} tokens done{rate}"
    return MISSING


def untrained_encoder(n: int, config: EncoderConfig, seed: int) -> SequenceEncoder:
    """Return an untrained encoder of the right shape."""
    torch.manual_seed(seed)
    return SequenceEncoder(network(n, config))


def provisional_ids(n: int, depth: int, size: int, dim: int, seed: int) -> SemanticIds:
    """Return unique random codes without meaning: rows in random order, spread evenly over all paths; fast to make.

    Raises:
        DataError: size ** depth is smaller than the catalogue.
    """
    if size**depth < n:
        raise DataError(f"{depth} levels of {size} codes hold {size**depth} items; the catalogue has {n}")
    rng = np.random.default_rng(seed)
    # Python integers, because size ** depth may need more than 64 bits
    path = [int(place) * size**depth // n for place in rng.permutation(n)]
    codes = np.array([[one // size ** (depth - 1 - level) % size for level in range(depth)] for one in path], np.int32)
    return SemanticIds(codes.reshape(n, depth), rng.normal(size=(depth, size, dim)).astype(np.float32))


def placeholder_task_context(inputs: Inputs, dim: int, passages: np.ndarray | None = None) -> TaskContext:
    """Return a task context with one user vector for all users; replay passages are all zeros unless given."""
    traffic, train = inputs.recipe.traffic, inputs.split.train
    histories = [train.rows_of(user) for user in range(len(train.users))]
    one = np.linspace(-1, 1, dim, dtype=np.float32)[None]
    vectors = [np.broadcast_to(one, (len(rows), dim)) for rows in histories]
    if passages is None:
        passages = np.zeros((traffic.passages, traffic.passage_tokens), np.int64)
    return TaskContext(inputs.catalog, histories, vectors, traffic.window, traffic.user_share, passages)
