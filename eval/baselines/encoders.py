"""Sequential encoders as baselines: SASRec, HSTU and BSARec, tuned alike on the train part of any split."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from llmrec.data.interactions import Split
from llmrec.encoders.config import EncoderConfig, EncoderKind, encoder_config_dict
from llmrec.encoders.sequential import SequenceEncoder
from llmrec.encoders.training import next_item_ndcg, train_encoder
from llmrec.errors import ArtifactError
from llmrec.eval.baselines.rankers import EncoderRanker
from llmrec.eval.baselines.tuning import LARGE, USERS, Grid, Params, Trial, TuningLog, ValidationScorer, tune
from llmrec.progress import Say, silent
from llmrec.storage.artifacts import fingerprint_bytes, read_manifest, write_artifact

# Few values, because each trial trains an encoder: depth and dropout have the largest effect on small logs.
ENCODER_GRID: Grid = {"layers": (2, 4), "dropout": (0.3, 0.5)}
START = EncoderConfig(max_len=50)
# With thousands of items one trial takes as long as the whole grid with hundreds. Only one setting is tried then, the
# one that the strongest published results on such logs share.
LARGE_GRID: Grid = {"dropout": (0.5,)}
LARGE_START = EncoderConfig(
    dropout=0.5, max_len=50, batch=64, average=0.999, epochs=80, evaluate_every=4, patience=2
)  # fmt: skip
KIND = "baseline-encoder"


def tune_encoder(
    kind: EncoderKind,
    split: Split,
    n_items: int,
    grid: Grid | None = None,
    seed: int = 0,
    users: int = USERS,
    log: TuningLog | None = None,
    work: Path | None = None,
    start: EncoderConfig | None = None,
    say: Say = silent,
) -> tuple[EncoderRanker, list[Trial]]:
    """Search a grid of encoder settings, see `tuning.tune`; each trial keeps its best validation epoch.

    Args:
        kind: which encoder; also the name of the row.
        split: the encoder is trained on its train part.
        n_items: rows of the catalogue.
        grid: settings to try, named as in `EncoderConfig`; None for the default grid for the size of the catalogue.
        seed: random seed for training and for drawing the validation users.
        users: maximum number of validation users to score.
        log: earlier trials.
        work: cache directory of trained encoders; None trains them anew.
        start: settings that the grid does not name; None for the defaults for the size of the catalogue.
        say: receives a message for every trial and validation.
    """
    check = ValidationScorer(split, n_items, seed, users)
    start = start or (LARGE_START if n_items > LARGE else START)
    grid = grid or (LARGE_GRID if n_items > LARGE else ENCODER_GRID)

    def make(params: Params) -> EncoderRanker:
        config = replace(start, kind=kind, **{n: type(getattr(start, n))(value) for n, value in params.items()})
        return EncoderRanker(train_baseline_encoder(split, n_items, config, seed, check, work, say), kind)

    inputs = json.dumps({"seed": seed, "start": encoder_config_dict(replace(start, kind=kind))}, sort_keys=True)
    return tune(kind, make, grid, check, log, inputs, say)


def train_baseline_encoder(
    split: Split,
    n_items: int,
    config: EncoderConfig,
    seed: int,
    check: ValidationScorer,
    work: Path | None = None,
    say: Say = silent,
) -> SequenceEncoder:
    """Train an encoder to its best validation epoch, or load it from `work` if the same one was trained before."""
    settings = {"config": encoder_config_dict(config), "kind": config.kind, "seed": seed, "check": check.fingerprint}
    inputs = fingerprint_bytes(json.dumps(settings, sort_keys=True).encode())
    path = None if work is None else work / f"encoder-{config.kind}-{inputs[:16]}"
    if path is not None and path.is_dir():
        try:
            if read_manifest(path, KIND).fingerprints.get("inputs") == inputs:
                return SequenceEncoder.from_state(load_file(path / "encoder.safetensors"), encoder_config_dict(config))
        except ArtifactError as error:
            say(f"{error}; trained again")
    say(f"training {config.kind}: {config.layers} layers, dropout {config.dropout}")

    def validate(encoder: SequenceEncoder) -> float:
        return next_item_ndcg(encoder, check.histories, check.targets)

    encoder, _ = train_encoder(split.train, n_items, config, seed, validate, say)
    if path is not None:
        _save(path, inputs, encoder.state())
    return encoder


def _save(path: Path, inputs: str, state: Mapping[str, np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    (path.parent / ".gitignore").write_text("*\n")
    with write_artifact(path, KIND, {"inputs": inputs}, own_place=True) as directory:
        save_file(
            {name: np.ascontiguousarray(value) for name, value in state.items()}, directory / "encoder.safetensors"
        )
