"""The fine-tuning loop: trains LoRA, item tokens and the user adapter, and resumes bit for bit.

The same loop runs in one process or in many. Under `accelerate launch` every process makes the same stream of packs and
takes its share of each step, so n processes follow the trajectory of one process that accumulates n times as many
packs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from accelerate import Accelerator

from llmrec.errors import TrainingError
from llmrec.finetune.data.packing import Pack, UserVectorMode
from llmrec.finetune.train.non_finite import ADVICE, NonFiniteWatch
from llmrec.finetune.train.objective import Objective, Tally
from llmrec.lm.model import RecModel

GROUPS = ("lora", "items", "adapter")


@dataclass(frozen=True)
class Schedule:
    """Training schedule: length, learning rates, regularisation and validation.

    Attributes:
        tokens: length of the run in tokens.
        lr_lora: peak learning rate of LoRA; `lr_items` is that of item tokens, `lr_adapter` that of the user adapter.
        warmup: share of the tokens with a rising learning rate.
        floor: learning rate at the end of the cosine, as a share of the peak.
        clip: largest gradient norm.
        weight_decay: weight decay of AdamW.
        accumulate: packs per step.
        kl: weight of KL(base || model) on ordinary text; 0 trains on the text itself.
        adapter_share: 0 trains everything together. Otherwise LoRA and item tokens are trained first, without user
            vectors; the user adapter is then trained on this last share of the tokens, with the language model frozen.
        validate_tokens: number of tokens between validations of NDCG, 0 for none; a shorter run validates once, at its
            end.
        validate_users: number of users in the validation sample.
        patience: stop after this many validations in a row without improvement and keep the best weights; 0 never
            stops.
    """

    tokens: int = 1_000_000
    lr_lora: float = 1e-3
    lr_items: float = 3e-3
    lr_adapter: float = 1e-3
    warmup: float = 0.03
    floor: float = 0.05
    clip: float = 1.0
    weight_decay: float = 0.0
    accumulate: int = 1
    kl: float = 1.0
    adapter_share: float = 0.0
    validate_tokens: int = 0
    validate_users: int = 128
    patience: int = 0

    def factor(self, done: int) -> float:
        """Return the learning-rate factor after `done` tokens: linear warm-up, then a cosine down to `floor`."""
        share = min(done / self.tokens, 1.0)
        if share < self.warmup:
            return (share + 1e-3) / (self.warmup + 1e-3)
        slope = (share - self.warmup) / (1 - self.warmup)
        return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * slope))

    def validates(self, before: int, now: int) -> bool:
        """Return whether a validation is due after the step that went from `before` tokens to `now`."""
        every = self.validate_tokens
        if not every:
            return False
        return now // every > before // every or (self.tokens < every and now >= self.tokens)

    def stages(self) -> tuple[Stage, ...]:
        """Return the stages of a run, in order."""
        if not self.adapter_share:
            return (Stage(self.tokens, GROUPS, users="mixed"),)
        first = round(self.tokens * (1 - self.adapter_share))
        return Stage(first, ("lora", "items"), users="none"), Stage(self.tokens, ("adapter",), users="only")


@dataclass(frozen=True)
class Stage:
    """A stage of the schedule.

    `until` is the token count at its end, `groups` are the parameter groups it trains, and `users` is the mode for user
    vectors (see `packing`).
    """

    until: int
    groups: tuple[str, ...]
    users: UserVectorMode


@dataclass
class State:
    """Progress of a run, stored in a checkpoint along with weights and optimizer moments."""

    step: int = 0
    stage: int = 0
    packs: int = 0  # of this stage
    tokens: int = 0
    seconds: float = 0.0
    best: float = -1.0
    best_step: int = -1
    waited: int = 0  # validations since the best one
    stopped: bool = False


@dataclass(frozen=True)
class Hooks:
    """Callbacks of the training loop.

    Attributes:
        save: writes a checkpoint; called every `save_seconds`, on interruption and at the end.
        report: called with the mean losses every ten steps.
        stepped: called after every step.
        validate: returns the NDCG of the present model; None for no validation.
        keep: stores the present weights as the best so far.
        interrupted: returns whether to save and stop; called after every step.
        save_seconds: seconds between checkpoints.
    """

    save: Callable[[State], None]
    report: Callable[[State, dict[str, float]], None]
    stepped: Callable[[State], None] = lambda state: None
    validate: Callable[[State], float] | None = None
    keep: Callable[[State], None] | None = None
    interrupted: Callable[[], bool] = lambda: False
    save_seconds: float = 300.0


def group_of(name: str) -> str:
    """Return the parameter group of a trainable parameter."""
    if "lora_" in name:
        return "lora"
    return "items" if name.startswith("item") else "adapter"


def optimizer_for(model: RecModel, schedule: Schedule) -> torch.optim.AdamW:
    """Return AdamW over three parameter groups in a fixed order: LoRA, item tokens, user adapter."""
    rates = {"lora": schedule.lr_lora, "items": schedule.lr_items, "adapter": schedule.lr_adapter}
    named = model.trainable()
    groups: list[dict[str, Any]] = [
        {"params": [p for n, p in named.items() if group_of(n) == name], "base": rates[name], "lr": rates[name]}
        for name in GROUPS
    ]
    return torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=schedule.weight_decay)


def train(
    objective: Objective,
    stream: Iterator[Pack],
    schedule: Schedule,
    optimizer: torch.optim.Optimizer,
    state: State,
    hooks: Hooks,
    accelerator: Accelerator | None = None,
) -> State:
    """Run the present stage until its end, an early stop or an interruption.

    `stream` must start at pack `state.packs`. The loss of a step is the mean over the targets of all its packs,
    regardless of the number of packs and processes, so neither changes the trajectory.

    Raises:
        TrainingError: a loss or gradient norm is not finite; nothing is saved after it.
    """
    accelerator = accelerator or Accelerator(cpu=objective.model.device.type == "cpu")
    stage = schedule.stages()[state.stage]
    _only(objective.model, stage.groups)
    wrapped, prepared = accelerator.prepare(objective, optimizer)
    wrapped.train()
    watch = NonFiniteWatch(accelerator.scaler is not None, accelerator.num_processes)
    window, saved = Tally(), time.monotonic()
    start, before = saved, state.seconds
    while state.tokens < stage.until and not state.stopped:
        group = list(islice(stream, schedule.accumulate * accelerator.num_processes))
        factor = schedule.factor(state.tokens)
        window.merge(_step(wrapped, prepared, group, factor, schedule.clip, accelerator, watch, state.step + 1))
        done, tokens = state.tokens, sum(p.tokens for p in group)
        state.step, state.packs, state.tokens = state.step + 1, state.packs + len(group), done + tokens
        state.seconds = before + time.monotonic() - start
        due = schedule.validates(done, state.tokens)
        late = time.monotonic() - saved > hooks.save_seconds
        asked, broken = _any((hooks.interrupted(), bool(watch.broken)), accelerator)
        if asked or due or late or state.tokens >= stage.until:
            watch.settle()  # check all norms before validating or saving
        if broken or watch.broken:
            what = watch.broken or f"step {state.step}: another process has a loss that is not finite"
            raise TrainingError(f"{what}; training stops; {ADVICE}")
        hooks.stepped(state)
        if due:
            _validate(objective, state, hooks, schedule.patience)
        finished = state.tokens >= stage.until or state.stopped
        if state.step % 10 == 0 or finished:
            hooks.report(state, window.means())
            window = Tally()
        if asked or finished or late:
            hooks.save(state)
            saved = time.monotonic()
        if asked:
            break
    objective.eval()
    return state


def _step(
    wrapped: Any,
    optimizer: Any,
    group: Sequence[Pack],
    factor: float,
    clip: float,
    accelerator: Accelerator,
    watch: NonFiniteWatch,
    step: int,
) -> Tally:
    """Make one optimizer step over this process's share of the packs.

    A single-process run skips the step if a loss or gradient norm is not finite.
    """
    total = max(sum(p.targets for p in group), 1)
    own = group[accelerator.process_index :: accelerator.num_processes]
    tally = Tally()
    optimizer.zero_grad(set_to_none=True)
    for number, pack in enumerate(own):
        last = number == len(own) - 1
        with nullcontext() if last else accelerator.no_sync(wrapped):
            with accelerator.autocast():
                loss, parts = wrapped(pack)
            if not number:
                watch.settle()  # the loss was just read from the device, so its queue is empty
            # gradients are averaged over processes: multiplying by their number restores the sum over all targets
            accelerator.backward(loss * (accelerator.num_processes / total))
        tally.merge(parts)
    norm = accelerator.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], clip)
    watch.losses(tally, step)
    watch.norm(norm, tally, step)
    if watch.broken and accelerator.num_processes == 1:  # several processes stop together: see `train`
        return tally
    for g in optimizer.param_groups:
        g["lr"] = g["base"] * factor
    optimizer.step()
    return tally


def _validate(objective: Objective, state: State, hooks: Hooks, patience: int) -> None:
    """Validate, record the best result, and stop after `patience` validations without improvement."""
    if hooks.validate is None:
        return
    objective.eval()
    value = hooks.validate(state)
    objective.train()
    if value > state.best:
        state.best, state.best_step, state.waited = value, state.step, 0
        if patience and hooks.keep is not None:
            hooks.keep(state)
    else:
        state.waited += 1
        state.stopped = bool(patience) and state.waited >= patience


def _only(model: RecModel, groups: Sequence[str]) -> None:
    """Enable gradients for these parameter groups only."""
    for name, parameter in model.added().items():
        parameter.requires_grad_(group_of(name) in groups)


def _any(flags: tuple[bool, bool], accelerator: Accelerator) -> tuple[bool, bool]:
    """Return each flag combined over all processes: true if it is true in any of them."""
    if accelerator.num_processes == 1:
        return flags
    mine = torch.tensor([float(flag) for flag in flags], device=accelerator.device)
    one, other = (accelerator.reduce(mine, reduction="sum") > 0).tolist()
    return one, other


__all__ = ["GROUPS", "Hooks", "Schedule", "Stage", "State", "group_of", "optimizer_for", "train"]
