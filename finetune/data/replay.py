"""Samples ordinary text for replay from the base model itself.

Cross-entropy on the base model's own samples equals the KL divergence from the base model to the tuned model plus a
constant, so replaying them preserves the language of the base model. It also needs no corpus that must be fetched,
licensed or kept apart from the benchmarks.
"""

from __future__ import annotations

import numpy as np
import torch
from transformers import DynamicCache

from llmrec.lm.model import RecModel
from llmrec.lm.prompts import load_template
from llmrec.lm.rendering import Message, Text
from llmrec.progress import Counter, Say, silent


@torch.inference_mode()
def sample_passages(
    model: RecModel,
    count: int,
    length: int,
    seed: int,
    batch: int = 32,
    say: Say = silent,
) -> np.ndarray:
    """Return int64[count, length], passages sampled at temperature 1.

    Batches alternate: one of plain documents, one of chats from their first word on, and two of answers to everyday
    instructions. Answers get two because the first words of an answer decide its course, and a passage has few of them.
    All passages of a batch share one read of the weights from memory: 250 tokens per second, against 13 one by one.
    `say` reports progress.
    """
    generator = torch.Generator().manual_seed(seed)
    chat = model.renderer.chat
    known = model.tokenizer.get_added_vocab()
    plain = [known.get("<|endoftext|>", known.get("<bos>", chat.stop))]  # how documents began in pre-training
    talk = [*chat.begin, *chat.opening["user"]]
    asked = open_chats(model, length)
    counter = Counter(say, "replay: sampled from the base model", count * length, unit="tokens")
    done: list[np.ndarray] = []
    with model.base_only():
        for number, start in enumerate(range(0, count, batch)):
            size = min(batch, count - start)
            fixed = ([plain], [talk], None, None)[number % 4]
            starts = fixed * size if fixed else _drawn(asked, size, generator)
            done.append(_sample(model, torch.tensor(starts), length, generator, counter))
    return np.concatenate(done)


def open_chats(model: RecModel, length: int) -> list[list[int]]:
    """Return the instructions of `prompts/everyday.yaml` as open chats.

    Only those that leave half of `length` for an answer are returned; if there are none, the shortest one is cut.
    """
    asked = [
        model.renderer.render([Message("user", (Text(line),)), Message("assistant", (), open=True)]).ids.tolist()
        for line in load_template("everyday").user
    ]
    return [ids for ids in asked if 2 * len(ids) <= length] or [min(asked, key=len)[: length // 2]]


def _drawn(asked: list[list[int]], size: int, generator: torch.Generator) -> list[list[int]]:
    """Draw `size` instructions of equal length, that of a random instruction, so that a batch needs no padding."""
    one = asked[int(torch.randint(len(asked), (1,), generator=generator))]
    alike = [ids for ids in asked if len(ids) == len(one)]
    order = torch.randperm(size, generator=generator) % len(alike)
    return [alike[int(i)] for i in order]


def _sample(
    model: RecModel, ids: torch.Tensor, length: int, generator: torch.Generator, counter: Counter
) -> np.ndarray:
    """Return int64[b, length]: the given ids int64[b, t] followed by tokens sampled from the model."""
    cache = DynamicCache(config=model.lm.config)
    new = ids
    counter.add(ids.numel())
    while ids.shape[1] < length:
        hidden = model.hidden(model.word_embedding(new), past_key_values=cache, use_cache=True)
        p = torch.softmax(model.word_logits(hidden[:, -1]).float(), dim=-1)
        new = torch.multinomial(p, 1, generator=generator)
        ids = torch.cat([ids, new], dim=1)
        counter.add(new.numel())
    return ids[:, :length].numpy()
