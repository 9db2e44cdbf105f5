"""Ordinary text for replay, drawn from the base model itself.

Cross-entropy on the base model's own samples is the KL divergence from base to tuned model plus a constant, so
replaying them holds the language where it was; and there is no corpus to fetch, license or keep apart from the
benchmarks.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from transformers import DynamicCache

from llmrec.model import RecModel


@torch.inference_mode()
def sample_base(
    model: RecModel,
    count: int,
    length: int,
    seed: int,
    batch: int = 32,
    progress: Callable[[int], None] = lambda done: None,
) -> np.ndarray:
    """int64[count, length]: passages sampled at temperature 1, half as plain documents, half as chats.

    Batches of `batch` share the weights' trip through memory: 250 tokens a second against 13 one by one.
    """
    generator = torch.Generator().manual_seed(seed)
    chat = model.renderer.chat
    known = model.tokenizer.get_added_vocab()
    plain = known.get("<|endoftext|>", known.get("<bos>", chat.stop))  # what documents began with in pre-training
    starts = [[plain], [*chat.begin, *chat.opening["user"]]]
    done: list[np.ndarray] = []
    with model.base_only():
        for number, start in enumerate(range(0, count, batch)):
            size = min(batch, count - start)
            done.append(_sample(model, starts[number % 2], size, length, generator))
            progress(start + size)
    return np.concatenate(done)


def _sample(model: RecModel, start: list[int], size: int, length: int, generator: torch.Generator) -> np.ndarray:
    ids = torch.tensor(start).repeat(size, 1)
    cache = DynamicCache(config=model.lm.config)
    new = ids
    while ids.shape[1] < length:
        hidden = model.hidden(model.words(new), past_key_values=cache, use_cache=True)
        p = torch.softmax(model.word_logits(hidden[:, -1]).float(), dim=-1)
        new = torch.multinomial(p, 1, generator=generator)
        ids = torch.cat([ids, new], dim=1)
    return ids[:, :length].numpy()
