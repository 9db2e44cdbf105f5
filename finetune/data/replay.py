"""Samples ordinary text for replay from the base model itself.

Cross-entropy on the base model's own samples is the KL divergence from base to tuned model plus a constant, so
replaying them holds the language where it was; and there is no corpus to fetch, license or keep apart from the
benchmarks.
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
    """int64[count, length]: passages sampled at temperature 1.

    By turns a batch of plain documents, of chats from their first word on, and twice of answers to everyday
    instructions: what a chat answers is decided at its first words, of which a passage has few. Batches of `batch`
    share the weights' trip through memory: 250 tokens a second against 13 one by one. `say` is told how far it is.
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
    """The instructions of `prompts/everyday.yaml` as open chats, those that leave half of `length` for an answer."""
    asked = [
        model.renderer.render([Message("user", (Text(line),)), Message("assistant", (), open=True)]).ids.tolist()
        for line in load_template("everyday").user
    ]
    return [ids for ids in asked if 2 * len(ids) <= length] or [min(asked, key=len)[: length // 2]]


def _drawn(asked: list[list[int]], size: int, generator: torch.Generator) -> list[list[int]]:
    """`size` instructions of one length, that of a random one: a batch without padding."""
    one = asked[int(torch.randint(len(asked), (1,), generator=generator))]
    alike = [ids for ids in asked if len(ids) == len(one)]
    order = torch.randperm(size, generator=generator) % len(alike)
    return [alike[int(i)] for i in order]


def _sample(
    model: RecModel, ids: torch.Tensor, length: int, generator: torch.Generator, counter: Counter
) -> np.ndarray:
    """int64[b, length]: ids int64[b, t] and what the model goes on with."""
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
