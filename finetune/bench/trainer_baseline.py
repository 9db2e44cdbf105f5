"""Trainer baseline of `llmrec bench --train`: padded rows of one target each, trained by transformers' Trainer.

The model is a plain peft LoRA on the causal language model, with the item tokens added to its vocabulary. Every row has
a window of ten items in words and item tokens, a loss at the target's tokens only, and a softmax over all words and
items. The baseline shares only the base model, the histories, the renderer (so that both read the same prompts) and
LoRA's rank and layers with the engine.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from llmrec.finetune.data.context import TaskContext, for_domain, pick
from llmrec.lm.item_tokens import ItemVocab
from llmrec.lm.model import LORA_TARGETS, ModelConfig
from llmrec.lm.prompts import Slot, fill_template, load_template
from llmrec.lm.rendering import ItemRef, Message, Renderer

WINDOW = 10
IGNORED = -100  # transformers' label of a position without a loss


@dataclass(frozen=True, eq=False)
class TargetRow:
    """One target as a row: ids int64[t], and labels int64[t] that are IGNORED except at the target's tokens."""

    ids: np.ndarray
    labels: np.ndarray


def target_rows(
    context: TaskContext, renderer: Renderer, count: int, seed: int, window: int = WINDOW
) -> list[TargetRow]:
    """Return rows of `count` random targets, each after a phrase of `next_item` and its user's last `window` items."""
    rng = np.random.default_rng(seed)
    long = np.flatnonzero([len(rows) >= 2 for rows in context.histories])
    sizes = np.array([len(context.histories[user]) - 1 for user in long.tolist()])
    users = rng.choice(long, count, p=sizes / sizes.sum())  # every target of the train part is equally likely
    phrases = for_domain(load_template("next_item").user, context.catalog.domain)
    rows = []
    for user in users.tolist():
        history = context.histories[user]
        t = int(rng.integers(1, len(history)))
        items = (*(ItemRef(int(r)) for r in history[max(0, t - window) : t]), ItemRef(int(history[t]), loss=True))
        slots: dict[str, Slot] = {"domain": context.catalog.domain, "history": items}
        one = renderer.render([Message("user", fill_template(pick(phrases, rng), slots), open=True)])
        rows.append(TargetRow(one.ids, np.where(one.loss, one.ids, IGNORED)))
    return rows


def peft_model(lm: Any, vocab: ItemVocab, settings: ModelConfig) -> Any:
    """Return a peft model: item tokens as added rows of the (tied) word table, LoRA on the same linear layers."""
    first = lm.get_input_embeddings().weight.shape[0]
    lm.resize_token_embeddings(first + len(vocab), mean_resizing=False)
    return get_peft_model(
        lm,
        LoraConfig(
            r=settings.lora_rank,
            lora_alpha=settings.lora_alpha,
            target_modules=list(LORA_TARGETS),
            trainable_token_indices=list(range(first, first + len(vocab))),
            bias="none",
            task_type="CAUSAL_LM",
        ),
    )


class Collator:
    """Pads rows on the right to the longest of a batch; records (tokens without padding, targets) of each batch."""

    def __init__(self, pad: int, depth: int) -> None:
        self.pad, self.depth = pad, depth
        self.counts: list[tuple[int, int]] = []

    def __call__(self, rows: Sequence[TargetRow]) -> dict[str, torch.Tensor]:
        """Return input_ids, attention_mask and labels, int64[b, t] each."""
        longest = max(len(row.ids) for row in rows)
        ids = torch.full((len(rows), longest), self.pad)
        labels = torch.full((len(rows), longest), IGNORED)
        mask = torch.zeros((len(rows), longest), dtype=torch.int64)
        for line, row in enumerate(rows):
            n = len(row.ids)
            ids[line, :n], labels[line, :n] = torch.from_numpy(row.ids), torch.from_numpy(row.labels)
            mask[line, :n] = 1
        self.counts.append((int(mask.sum()), int((labels != IGNORED).sum()) // self.depth))
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}


class StepTimer(TrainerCallback):
    """Times the Trainer's optimizer steps: calls `wait()` before each and `done(seconds, tokens, targets)` after it."""

    def __init__(self, wait: Any, done: Any, collator: Collator) -> None:
        self.wait, self.done, self.collator = wait, done, collator
        self.start = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the clock; the batch is ready, and forward, backward, clipping and the optimizer follow."""
        self.wait()
        self.start = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop the clock after the optimizer step."""
        seconds = time.perf_counter() - self.start
        self.done(seconds, *self.collator.counts[state.global_step - 1])


def trainer(
    model: Any, rows: Sequence[TargetRow], collator: Collator, batch: int, lr: float, seed: int, out: Path
) -> Trainer:
    """Return a plain Trainer over the rows: float32 on the CPU, one pass, nothing saved or logged."""
    arguments = TrainingArguments(
        output_dir=str(out),
        per_device_train_batch_size=batch,
        num_train_epochs=1,
        learning_rate=lr,
        lr_scheduler_type="constant",
        seed=seed,
        use_cpu=True,
        dataloader_drop_last=True,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    loop = Trainer(model=model, args=arguments, train_dataset=list(rows), data_collator=collator)
    loop.remove_callback(PrinterCallback)  # otherwise it prints among the results
    return loop
