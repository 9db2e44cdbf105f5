"""Supervised fine-tuning of the bundle: LoRA, item tokens and the user adapter, in float32, resumable to the bit."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from llmrec.finetune.build import Batch, Targets
from llmrec.model import RecModel


@dataclass(frozen=True)
class Schedule:
    """How long and how fast: learning rates in the order LoRA, item tokens, user adapter."""

    tokens: int = 1_000_000
    lr_lora: float = 1e-3
    lr_items: float = 3e-3
    lr_adapter: float = 1e-3
    warmup: float = 0.03
    floor: float = 0.05
    clip: float = 1.0
    weight_decay: float = 0.0
    accumulate: int = 1

    def factor(self, done: int) -> float:
        """Linear warm-up, then a cosine down to `floor`, by tokens seen."""
        share = min(done / self.tokens, 1.0)
        if share < self.warmup:
            return (share + 1e-3) / (self.warmup + 1e-3)
        slope = (share - self.warmup) / (1 - self.warmup)
        return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * slope))


@dataclass
class State:
    """Where a run is: what a checkpoint holds beside weights and optimizer moments."""

    step: int = 0
    batches: int = 0
    tokens: int = 0
    seconds: float = 0.0


def optimizer_for(model: RecModel, schedule: Schedule) -> torch.optim.AdamW:
    """AdamW over three groups in a fixed order."""
    named = model.trainable()
    groups = [
        {"params": [p for n, p in named.items() if "lora_" in n], "base": schedule.lr_lora},
        {"params": [p for n, p in named.items() if n.startswith("item")], "base": schedule.lr_items},
        {"params": [p for n, p in named.items() if n.startswith("adapter.")], "base": schedule.lr_adapter},
    ]
    decay = schedule.weight_decay
    return torch.optim.AdamW([{**g, "lr": g["base"]} for g in groups], betas=(0.9, 0.95), weight_decay=decay)


def loss_of(model: RecModel, batch: Batch) -> tuple[torch.Tensor, dict[str, tuple[float, int]]]:
    """Sum of the cross-entropies in nats over all targets, and (sum, count) for words and each level."""
    users = torch.from_numpy(batch.users).to(model.device)
    hidden = model.hidden(model.embed(torch.from_numpy(batch.ids).to(model.device), users), use_cache=False)
    total = hidden.new_zeros(())
    parts: dict[str, tuple[float, int]] = {}
    kinds = [("words", batch.words), *((f"level{i}", t) for i, t in enumerate(batch.levels))]
    for level, (name, targets) in enumerate(kinds, start=-1):
        if not len(targets.answer):
            continue
        loss = _cross_entropy(model, hidden, targets, level)
        parts[name] = (float(loss.detach()), len(targets.answer))
        total = total + loss
    return total, parts


def _cross_entropy(model: RecModel, hidden: torch.Tensor, targets: Targets, level: int) -> torch.Tensor:
    """Level -1: words, over the whole word table; otherwise over the codes that exist there."""
    at = hidden[torch.from_numpy(targets.line), torch.from_numpy(targets.position)]
    if targets.prior is None:
        logits = model.word_logits(at)
    else:
        logits = model.level_logits(at, level) + torch.from_numpy(targets.prior).to(at.device)
    return F.cross_entropy(logits.float(), torch.from_numpy(targets.answer), reduction="sum")


def train(
    model: RecModel,
    stream: Iterator[Batch],
    schedule: Schedule,
    optimizer: torch.optim.AdamW,
    state: State,
    save: Callable[[State], None],
    report: Callable[[State, dict[str, float]], None],
    save_seconds: float = 300.0,
) -> State:
    """Run until `schedule.tokens`; `stream` must already stand at batch `state.batches`.

    The loss of a step is the mean over its targets, whatever the number of micro-batches (so accumulation does not
    change the trajectory). `save` is called every `save_seconds` and at the end.
    """
    model.train()
    window: dict[str, list[tuple[float, int]]] = {}
    saved = start = time.monotonic()
    before = state.seconds
    while state.tokens < schedule.tokens:
        group = list(islice(stream, schedule.accumulate))
        targets = sum(len(t.answer) for b in group for t in (b.words, *b.levels))
        optimizer.zero_grad(set_to_none=True)
        for batch in group:
            loss, parts = loss_of(model, batch)
            (loss / max(targets, 1)).backward()  # type: ignore[no-untyped-call]
            for name, pair in parts.items():
                window.setdefault(name, []).append(pair)
        nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], schedule.clip)
        for g in optimizer.param_groups:
            g["lr"] = g["base"] * schedule.factor(state.tokens)
        optimizer.step()
        state.step, state.batches = state.step + 1, state.batches + len(group)
        state.tokens += sum(b.tokens for b in group)
        state.seconds = before + time.monotonic() - start
        if state.step % 10 == 0 or state.tokens >= schedule.tokens:
            report(state, {n: float(np.sum([a for a, _ in v]) / sum(c for _, c in v)) for n, v in window.items()})
            window = {}
        if time.monotonic() - saved > save_seconds or state.tokens >= schedule.tokens:
            save(state)
            saved = time.monotonic()
    model.eval()
    return state
