"""Stops training at the first loss, gradient norm or weight that is not finite.

Losses are already on the host, because they are logged. A gradient norm on a GPU is not, and reading it would make the
host wait for the backward pass in every step. On a GPU the norm is therefore checked one step later, when the host has
waited for that step's loss anyway, and always before anything is validated or saved.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from llmrec.errors import TrainingError
from llmrec.finetune.train.objective import Tally

ADVICE = (
    "a lower learning rate (schedule.lr_lora, lr_items, lr_adapter) or a longer schedule.warmup may help, "
    "unless an example or a weight of the base model is not finite itself"
)
_SHOWN = 4  # most tasks named in a message


@dataclass
class NonFiniteWatch:
    """Checks the losses and gradient norms of a run for values that are not finite.

    Attributes:
        scaled: whether a gradient scaler is in use; it skips steps with overflowing gradients, so only losses count.
        processes: number of processes of the run; a gradient norm covers all of them.
        broken: describes the first problem found; "" if there is none.
    """

    scaled: bool = False
    processes: int = 1
    broken: str = ""
    _waiting: list[tuple[torch.Tensor, str]] = field(default_factory=list)

    def losses(self, tally: Tally, step: int) -> None:
        """Check the sums of a step's losses."""
        bad = [name for name, total in tally.sums.items() if not math.isfinite(total)]
        if bad:
            value = tally.sums[bad[0]]
            self._found(f"step {step}: the loss is {value}, of {_tasks(bad)}")

    def norm(self, norm: torch.Tensor | None, tally: Tally, step: int) -> None:
        """Check a gradient norm: at once if it is on the host, later if it is on a device.

        It is None if the engine does not reveal it.
        """
        if norm is None or self.scaled:
            return
        where = f"of {_tasks(tally.sums)}" if self.processes == 1 else f"in one of {self.processes} processes"
        self._waiting.append((norm.detach(), f"step {step}: the gradient norm is {{}}, {where}"))
        if norm.device.type == "cpu":
            self.settle()

    def settle(self) -> None:
        """Check the norms that were deferred."""
        for norm, words in self._waiting:
            value = float(norm)
            if not math.isfinite(value):
                self._found(words.format(value))
        self._waiting.clear()

    def _found(self, what: str) -> None:
        self.broken = self.broken or what


def check_weights(state: Mapping[str, torch.Tensor], what: str) -> None:
    """Refuse tensors with values that are not finite.

    Raises:
        TrainingError: a tensor is not finite; the message names the first one.
    """
    for name, tensor in state.items():
        if not bool(torch.isfinite(tensor).all()):
            raise TrainingError(f"{what}: {name} is not finite; {ADVICE}")


def _tasks(names: Sequence[str] | Mapping[str, float]) -> str:
    """Describe the tasks among the names of a tally, or list the kinds of loss if it has no tasks.

    Ordinary text is named as the task replay.
    """
    tasks = sorted(name.removeprefix("task/") for name in names if name.startswith("task/"))
    tasks += ["replay"] if "text" in names else []
    more = f" and {len(tasks) - _SHOWN} more" if len(tasks) > _SHOWN else ""
    return f"task{'s' if len(tasks) > 1 else ''} {', '.join(tasks[:_SHOWN])}{more}" if tasks else ", ".join(names)
