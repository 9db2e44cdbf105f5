"""Logs metrics to experiment trackers (TensorBoard, Weights & Biases) through accelerate, only on request."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from accelerate.utils import ProjectConfiguration

from llmrec.errors import RecipeError
from llmrec.storage.registry import offline_setting

Log = Callable[[dict[str, Any], int], None]  # values by name, and the step

_CALLED = {"tensorboard": "TensorBoard", "wandb": "Weights & Biases"}


@dataclass(frozen=True)
class Trackers:
    """The trackers that get metrics in addition to `metrics.jsonl`.

    Attributes:
        tensorboard: directory of the event files, None for no TensorBoard; each run has its own directory below it.
        wandb: Weights & Biases project, None for no Weights & Biases.
        run: name of the run.
    """

    tensorboard: Path | None = None
    wandb: str | None = None
    run: str = "llmrec"

    @property
    def names(self) -> list[str]:
        """Names of the trackers in use, as accelerate knows them."""
        given = {"tensorboard": self.tensorboard, "wandb": self.wandb}
        return [name for name, value in given.items() if value is not None]

    def check(self) -> None:
        """Refuse trackers that are not installed, before any work is done.

        Raises:
            RecipeError: a tracker is not installed; the message names the package.
        """
        there = {str(one) for one in get_available_trackers()}
        for name in self.names:
            if name not in there:
                raise RecipeError(f"{_CALLED[name]} is not installed: pip install {name}, or leave --{name} out")

    def settings(self) -> dict[str, Any]:
        """Return the keyword arguments that an `Accelerator` needs for these trackers."""
        where = self.tensorboard
        if where is not None and self.wandb is not None:
            where /= self.run  # accelerate names the directory below after the project, which runs share
        config = None if where is None else ProjectConfiguration(logging_dir=str(where))
        return {"log_with": self.names, "project_config": config} if self.names else {}

    def start(self, accelerator: Accelerator, recipe: Mapping[str, Any], work: Path) -> Log | None:
        """Begin a run with this recipe in every tracker and return the logging function, or None without trackers.

        Weights & Biases keeps everything on this machine (`wandb sync` uploads it later) if LLMREC_OFFLINE or
        HF_HUB_OFFLINE is set, or if its own WANDB_MODE says so.
        """
        if not self.names:
            return None
        mode = {"mode": "offline"} if offline_setting() else {}
        wandb = {"name": self.run, "dir": str(work), **mode}
        work.mkdir(parents=True, exist_ok=True)
        project = self.run if self.wandb is None else self.wandb
        accelerator.init_trackers(project, dict(_flat(recipe)), {"wandb": wandb})
        return lambda values, step: accelerator.log(values, step=step)


NO_TRACKERS = Trackers()


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value), with values of the types that every tracker accepts: number, bool or string."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value if isinstance(value, bool | int | float | str) else str(value)
