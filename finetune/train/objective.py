"""The training objective: cross-entropy over valid codes and over the vocabulary, and a KL term on ordinary text."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn import functional as F

from llmrec.finetune.data.packing import Pack, Targets
from llmrec.finetune.train import packed_attention
from llmrec.finetune.train.linear_cross_entropy import linear_cross_entropy
from llmrec.lm.model import RecModel


@dataclass
class Tally:
    """Sums of losses in nats and numbers of targets, by kind of loss and by task."""

    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, total: float, count: int) -> None:
        """Add a sum of losses over `count` targets."""
        self.sums[name] = self.sums.get(name, 0.0) + total
        self.counts[name] = self.counts.get(name, 0) + count

    def merge(self, other: Tally) -> None:
        """Add another tally."""
        for name, total in other.sums.items():
            self.add(name, total, other.counts[name])

    def means(self) -> dict[str, float]:
        """Return the mean losses in nats per target."""
        return {name: self.sums[name] / self.counts[name] for name in sorted(self.sums) if self.counts[name]}


class Objective(nn.Module):
    """Computes the loss of a pack as one module, so that wrappers for several processes see a single forward call.

    Args:
        model: the bundle.
        kl: weight of the divergence from the base model on ordinary text; 0 trains on the text itself instead.
    """

    def __init__(self, model: RecModel, kl: float) -> None:
        super().__init__()
        self.model, self.kl = model, kl

    def forward(self, pack: Pack) -> tuple[torch.Tensor, Tally]:
        """Return the sum of the losses over all targets of a pack, in nats, and its parts."""
        hidden = self._hidden(pack)
        tally = Tally()
        total = hidden.new_zeros((), dtype=torch.float32)
        table = self.model.word_table
        if len(pack.words):
            at, answer = _at(hidden, pack.words)
            total = total + _sum(linear_cross_entropy(at, table, answer), pack, pack.words, "words", tally)
        if len(pack.text):
            at, answer = _at(hidden, pack.text)
            base = self._base_hidden(pack) if self.kl else None
            weight = self.kl if self.kl else 1.0
            total = total + weight * _sum(linear_cross_entropy(at, table, answer, base), pack, pack.text, "text", tally)
        for level, targets in enumerate(pack.levels):
            if len(targets) and targets.prior is not None:
                at, answer = _at(hidden, targets)
                logits = self.model.level_logits(at, level).float() + torch.from_numpy(targets.prior).to(at.device)
                loss = F.cross_entropy(logits, answer, reduction="none")
                total = total + _sum(loss, pack, targets, f"level{level}", tally)
        return total, tally

    def _hidden(self, pack: Pack) -> torch.Tensor:
        """Return float[t, h], the last hidden states of a pack."""
        device = self.model.device
        ids, users = torch.from_numpy(pack.ids)[None].to(device), torch.from_numpy(pack.users).to(device)
        return self.model.hidden(
            self.model.embed(ids, users), **packed_attention.attention_arguments(pack.lengths, device)
        )[0]

    @torch.no_grad()
    def _base_hidden(self, pack: Pack) -> torch.Tensor:
        """Return float[m, h], the base model's states at the text targets; it reads only the text documents."""
        lengths = pack.lengths[_first_text(pack) :]
        ids = torch.from_numpy(pack.ids[pack.text_start :])[None].to(self.model.device)
        with self.model.base_only():
            hidden = self.model.hidden(
                self.model.word_embedding(ids), **packed_attention.attention_arguments(lengths, ids.device)
            )[0]
        return hidden[torch.from_numpy(pack.text.position - pack.text_start).to(ids.device)]


def _first_text(pack: Pack) -> int:
    """Return the index of the first text document."""
    passed, number = 0, 0
    while passed < pack.text_start:
        passed += pack.lengths[number]
        number += 1
    return number


def _at(hidden: torch.Tensor, targets: Targets) -> tuple[torch.Tensor, torch.Tensor]:
    device = hidden.device
    return hidden[torch.from_numpy(targets.position).to(device)], torch.from_numpy(targets.answer).to(device)


def _sum(loss: torch.Tensor, pack: Pack, targets: Targets, kind: str, tally: Tally) -> torch.Tensor:
    values = loss.detach().double().cpu().numpy()
    tally.add(kind, float(values.sum()), len(values))
    for number, name in enumerate(pack.tasks):
        of_task = values[targets.task == number]
        if len(of_task) and kind != "text":
            tally.add(f"task/{name}", float(of_task.sum()), len(of_task))
    return loss.sum()
