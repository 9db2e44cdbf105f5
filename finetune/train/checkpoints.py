"""Saves and resumes training checkpoints: writes are atomic, the newest intact one is loaded, damaged ones reported."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from llmrec.errors import ArtifactError, TrainingError
from llmrec.finetune.train.loop import State
from llmrec.finetune.train.non_finite import check_weights
from llmrec.lm.model import RecModel
from llmrec.storage.artifacts import read_manifest, write_artifact

KIND = "training-checkpoint"
BEST = "training-best"


def save(
    root: Path, model: RecModel, optimizer: torch.optim.Optimizer, state: State, fingerprints: Mapping[str, str]
) -> None:
    """Write `root/step-N` atomically, then delete all checkpoints except the newest two.

    Raises:
        TrainingError: weights or moments are not finite; nothing is written.
    """
    moments: dict[str, torch.Tensor] = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            for name, value in optimizer.state[parameter].items():
                moments[f"{len(moments):05d}.{name}"] = torch.as_tensor(value).clone().contiguous()
    weights = {n: t.clone().contiguous() for n, t in model.added_state().items()}
    check_weights(weights | moments, f"step {state.step} is not saved")
    path = root / f"step-{state.step:08d}"
    with write_artifact(path, KIND, fingerprints, asdict(state), own_place=True) as directory:
        save_file(weights, directory / "weights.safetensors")
        save_file(moments, directory / "optimizer.safetensors")
    for old in sorted(root.glob("step-*"))[:-2]:
        shutil.rmtree(old)


def keep_best(root: Path, model: RecModel, state: State, fingerprints: Mapping[str, str]) -> None:
    """Write the present weights atomically to `root/best`, which early stopping returns to.

    Raises:
        TrainingError: weights are not finite; nothing is written.
    """
    weights = {n: t.clone().contiguous() for n, t in model.added_state().items()}
    check_weights(weights, f"step {state.step} is not kept as the best")
    with write_artifact(root / "best", BEST, fingerprints, asdict(state), own_place=True) as directory:
        save_file(weights, directory / "weights.safetensors")


def load_best(root: Path, model: RecModel, state: State, fingerprints: Mapping[str, str]) -> None:
    """Load the weights of `state.best_step`.

    Raises:
        ArtifactError: the saved weights are damaged or belong to another run.
    """
    manifest = read_manifest(root / "best", BEST)
    found = (dict(manifest.fingerprints), manifest.meta.get("best_step"))
    if found != (dict(fingerprints), state.best_step):
        raise ArtifactError(f"{root / 'best'} belongs to another run: remove it and train with --no-resume")
    model.load_added(load_file(root / "best" / "weights.safetensors"))


def newest(root: Path) -> str:
    """Return the name of the newest checkpoint directory, or "" if there is none."""
    return max((path.name for path in root.glob("step-*")), default="")


def resume(
    root: Path,
    model: RecModel,
    optimizer: torch.optim.Optimizer,
    fingerprints: Mapping[str, str],
    notice: Callable[[str], None],
) -> State:
    """Load the newest intact checkpoint that belongs to this run and return its state; a fresh state without one.

    `notice` is called with a line for every checkpoint that is passed over.
    """
    for path in sorted(root.glob("step-*"), reverse=True):
        try:
            manifest = read_manifest(path, KIND)
        except ArtifactError as error:
            notice(f"checkpoint {path.name} is passed over: {error}")
            continue
        if dict(manifest.fingerprints) != dict(fingerprints):
            notice(f"checkpoint {path.name} is passed over: it belongs to another recipe or other data")
            continue
        weights, moments = load_file(path / "weights.safetensors"), load_file(path / "optimizer.safetensors")
        try:
            check_weights(weights | moments, "it was saved when training had failed")
        except TrainingError as error:
            notice(f"checkpoint {path.name} is passed over: {error}")
            continue
        model.load_added(weights)
        _load_moments(optimizer, moments)
        return State(**manifest.meta)
    return State()


def _load_moments(optimizer: torch.optim.Optimizer, moments: dict[str, torch.Tensor]) -> None:
    names = sorted(moments)
    each = 3  # step, exp_avg, exp_avg_sq of AdamW
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for number, parameter in enumerate(parameters):
        chunk = names[number * each : (number + 1) * each]
        optimizer.state[parameter] = {name.split(".", 1)[1]: moments[name].clone() for name in chunk}
