"""Generates replies to plain chat messages in batches.

The chat streams to one visitor (`text_generation.generate_text`). A benchmark has hundreds of prompts, and batching
reads the weights once for many of them, which is fast on a CPU. Decoding is greedy, as in lm-evaluation-harness.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from transformers import DynamicCache

from llmrec.errors import DataError
from llmrec.lm.model import RecModel
from llmrec.lm.rendering import Message, Text

BATCH = 32


@dataclass(frozen=True)
class Reply:
    """A reply: the text, its ids without the end marker, and whether the model ended it itself."""

    text: str
    ids: tuple[int, ...]
    ended: bool


def replies(
    model: RecModel,
    prompts: Sequence[str],
    max_tokens: int,
    batch: int = BATCH,
    progress: Callable[[int], None] | None = None,
) -> list[Reply]:
    """Generate one reply per prompt, in order; a reply does not depend on the other prompts.

    Args:
        model: merged or not; call it inside `with model.base_only()` for the base model's replies.
        prompts: each is one user message of a fresh conversation.
        max_tokens: maximum length of a reply.
        batch: number of prompts per batch.
        progress: called with the number of prompts done.

    Raises:
        DataError: a prompt with its reply would be longer than the model's context.
    """
    ids = [_chat(model, prompt) for prompt in prompts]
    limit, longest = int(model.lm.config.max_position_embeddings), max(map(len, ids), default=0) + max_tokens
    if longest > limit:
        raise DataError(f"a prompt and its reply may have {longest} tokens; the model reads {limit}")
    order = sorted(range(len(ids)), key=lambda i: (len(ids[i]), i))  # similar lengths together need little padding
    out: dict[int, Reply] = {}
    for first in range(0, len(order), batch):
        chosen = order[first : first + batch]
        for i, said in zip(chosen, _generate(model, [ids[i] for i in chosen], max_tokens), strict=True):
            ended = said[-1:] == [model.renderer.chat.stop]
            words = said[:-1] if ended else said
            out[i] = Reply(model.renderer.decode_text(words), tuple(words), ended)
        if progress is not None:
            progress(len(out))
    return [out[i] for i in range(len(ids))]


def _chat(model: RecModel, prompt: str) -> list[int]:
    messages = [Message("user", (Text(prompt),)), Message("assistant", (), open=True)]
    return [int(i) for i in model.renderer.render(messages).ids]


@torch.inference_mode()
def _generate(model: RecModel, prompts: Sequence[list[int]], max_tokens: int) -> list[list[int]]:
    """Greedy ids after each prompt, including the end marker if it occurred; finished sequences leave the batch."""
    longest, stop = max(map(len, prompts)), model.renderer.chat.stop
    ids = torch.tensor([[0] * (longest - len(p)) + list(p) for p in prompts], device=model.device)
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=model.device)
    position = (mask.cumsum(1) - 1).clamp(min=0)
    cache = DynamicCache(config=model.lm.config)
    said: list[list[int]] = [[] for _ in prompts]
    going = list(range(len(prompts)))
    while going:
        hidden = model.hidden(
            model.word_embedding(ids), attention_mask=mask, position_ids=position, past_key_values=cache, use_cache=True
        )
        chosen = model.word_logits(hidden[:, -1]).argmax(dim=-1)
        for line, token in zip(going, chosen.tolist(), strict=True):
            said[line].append(int(token))
        keep = [i for i, line in enumerate(going) if said[line][-1] != stop and len(said[line]) < max_tokens]
        ids, position = chosen[:, None], position[:, -1:] + 1
        mask = torch.cat([mask, torch.ones_like(ids)], dim=1)
        if len(keep) < len(going):
            rows = torch.tensor(keep, dtype=torch.long, device=model.device)
            ids, position, mask = ids[rows], position[rows], mask[rows]
            cache.batch_select_indices(rows)
            going = [going[i] for i in keep]
    return said
