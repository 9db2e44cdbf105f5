"""Stops training at the first loss, gradient norm or weight that is not finite.

A loss is on the host already, for the journal. A gradient norm on a GPU is not, and asking for it would make the host
wait for the backward pass in every step. There it is looked at one step later, when that step's loss has been waited
for anyway, and before anything is validated or saved.
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
_SHOWN = 4  # tasks that are named


@dataclass
class NonFiniteWatch:
    """What was seen of the steps so far.

    Attributes:
        scaled: a gradient scaler is in use: it skips steps whose gradients overflow, so only losses count.
        processes: of the run; a gradient norm is that of all of them together.
        broken: what was wrong first, in words; "" while all is well.
    """

    scaled: bool = False
    processes: int = 1
    broken: str = ""
    _waiting: list[tuple[torch.Tensor, str]] = field(default_factory=list)

    def losses(self, tally: Tally, step: int) -> None:
        """Look at the sums of a step's losses."""
        bad = [name for name, total in tally.sums.items() if not math.isfinite(total)]
        if bad:
            value = tally.sums[bad[0]]
            self._found(f"step {step}: the loss is {value}, of {_tasks(bad)}")

    def norm(self, norm: torch.Tensor | None, tally: Tally, step: int) -> None:
        """Look at a gradient norm: at once on the host, later on a device. None is of an engine that keeps it."""
        if norm is None or self.scaled:
            return
        where = f"of {_tasks(tally.sums)}" if self.processes == 1 else f"in one of {self.processes} processes"
        self._waiting.append((norm.detach(), f"step {step}: the gradient norm is {{}}, {where}"))
        if norm.device.type == "cpu":
            self.settle()

    def settle(self) -> None:
        """Look at the norms that were left for later."""
        for norm, words in self._waiting:
            value = float(norm)
            if not math.isfinite(value):
                self._found(words.format(value))
        self._waiting.clear()

    def _found(self, what: str) -> None:
        self.broken = self.broken or what


def check_weights(state: Mapping[str, torch.Tensor], what: str) -> None:
    """Refuse tensors that are not finite.

    Raises:
        TrainingError: names the first of them.
    """
    for name, tensor in state.items():
        if not bool(torch.isfinite(tensor).all()):
            raise TrainingError(f"{what}: {name} is not finite; {ADVICE}")


def _tasks(names: Sequence[str] | Mapping[str, float]) -> str:
    """The tasks among the names of a tally, or the kinds of loss where it has no task: ordinary text."""
    tasks = sorted(name.removeprefix("task/") for name in names if name.startswith("task/"))
    tasks += ["replay"] if "text" in names else []
    more = f" and {len(tasks) - _SHOWN} more" if len(tasks) > _SHOWN else ""
    return f"task{'s' if len(tasks) > 1 else ''} {', '.join(tasks[:_SHOWN])}{more}" if tasks else ", ".join(names)
