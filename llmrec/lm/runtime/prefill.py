"""Prefill: computes the keys and values of prompts, each token once; cached prefixes are not computed again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from llmrec.errors import RequestError
from llmrec.lm.model import RecModel
from llmrec.lm.rendering import Rendered
from llmrec.lm.runtime.kv_cache import Chunk, KVCache
from llmrec.lm.runtime.prefix_cache import PrefixCache, Segment, count_user_vectors, segment_ends, segment_key
from llmrec.lm.runtime.transformer import CancelCheck, Transformer

# Most rows per pass. On a CPU matrix products reach full speed at 256, and beyond 512 activations leave the CPU cache.
MAX_ROWS = {"cpu": 512}
MAX_ROWS_ACCELERATOR = 8192


@dataclass(frozen=True, eq=False)
class Prefilled:
    """A prefilled prompt: its KV cache with room for more tokens, and its last hidden state float32[h]."""

    cache: KVCache
    hidden: torch.Tensor


@dataclass(frozen=True, eq=False)
class _Prefiller:
    model: RecModel
    transformer: Transformer
    prefixes: PrefixCache | None
    check: CancelCheck | None

    def embed(self, prompt: Rendered, start: int, end: int) -> torch.Tensor:
        """Return the input embeddings float[n, h] of a segment; they do not depend on its place in a prompt."""
        first, last = (self._users(prompt, at) for at in (start, end))
        ids = torch.from_numpy(prompt.ids[start:end]).to(self.model.device)[None]
        return self.model.embed(ids, torch.from_numpy(prompt.users[first:last]).to(self.model.device))[0]

    def begin(self, prompt: Rendered, room: int, alone: bool) -> tuple[KVCache, torch.Tensor | None, int]:
        """Prefill all segments but the last, or all if `alone`; return (cache, last hidden state, number of tokens)."""
        cache = KVCache(self.transformer.layout, len(prompt.ids) + room)
        ends = segment_ends(prompt.ids, self.model.renderer.chat.closing)
        keys = [segment_key(prompt, end, self._users(prompt, end)) for end in ends]
        known = self.prefixes.find(keys) if self.prefixes is not None else []
        for segment in known:
            cache.append(segment.data)
        hidden = known[-1].hidden if known else None
        for end, key in list(zip(ends, keys, strict=True))[len(known) : None if alone else -1]:
            start = cache.length
            chunk = Chunk.following(cache, end - start)
            hidden = self.transformer.forward(
                self.embed(prompt, start, end), [chunk], last_only=True, check=self.check
            )[0]
            if self.prefixes is not None:
                self.prefixes.keep(key, Segment(cache.data[:, :, :, start:end].clone(), hidden))
        return cache, hidden, cache.length

    def finish(self, prompts: Sequence[Rendered], caches: Sequence[KVCache]) -> torch.Tensor:
        """Prefill the last segments of several prompts in one pass; return the last hidden states float32[b, h]."""
        starts = [cache.length for cache in caches]
        rest = [self.embed(p, start, len(p.ids)) for p, start in zip(prompts, starts, strict=True)]
        chunks = [Chunk.following(cache, len(x)) for cache, x in zip(caches, rest, strict=True)]
        return self.transformer.forward(torch.cat(rest), chunks, last_only=True, check=self.check)

    def _users(self, prompt: Rendered, end: int) -> int:
        renderer = self.model.renderer
        return count_user_vectors(prompt, end, renderer.user_slot, renderer.slots)


def prefill(
    model: RecModel,
    transformer: Transformer,
    prompts: Sequence[Rendered],
    room: Sequence[int],
    prefixes: PrefixCache | None = None,
    check: CancelCheck | None = None,
    follow: int | None = None,
) -> list[Prefilled]:
    """Prefill prompts of any lengths.

    A single prompt is computed segment by segment; the last segments of several prompts share passes.

    Args:
        model: the bundle.
        transformer: the model's forward pass.
        prompts: rendered conversations.
        room: for each prompt, number of further tokens that its cache must hold.
        prefixes: prefix cache; segments found there are not computed again, new ones are added.
        check: called before each layer; may raise to cancel.
        follow: number of positions that further tokens take: fewer than `room` if they are branches of a tree. If None,
            `room` is used.

    Raises:
        RequestError: an empty prompt, or one that leaves no room in the model's context.
    """
    for prompt, more in zip(prompts, room, strict=True):
        check_length(model, len(prompt.ids), more if follow is None else follow)
    if prefixes is not None:
        prefixes.belong_to(model)
    prefiller = _Prefiller(model, transformer, prefixes, check)
    caches, hidden = [], []
    for prompt, more in zip(prompts, room, strict=True):
        cache, last, done = prefiller.begin(prompt, more, alone=len(prompts) == 1)
        caches.append(cache)
        hidden.append(last if done == len(prompt.ids) else None)
    waiting = [i for i, last in enumerate(hidden) if last is None]
    limit = MAX_ROWS.get(transformer.layout.device.type, MAX_ROWS_ACCELERATOR)
    for group in group_by_size(waiting, [len(p.ids) - m.length for p, m in zip(prompts, caches, strict=True)], limit):
        states = prefiller.finish([prompts[i] for i in group], [caches[i] for i in group])
        for i, state in zip(group, states, strict=True):
            hidden[i] = state
    return [Prefilled(cache, last) for cache, last in zip(caches, hidden, strict=True) if last is not None]


def check_length(model: RecModel, length: int, more: int, what: str = "the item") -> None:
    """Refuse a prompt of `length` tokens that leaves no room for `more` in the model's context.

    Raises:
        RequestError: it is empty or too long.
    """
    limit = int(model.lm.config.get_text_config().max_position_embeddings)
    if length < 1:
        raise RequestError("the prompt is empty; it needs at least one token")
    if length + more > limit:
        raise RequestError(f"the prompt has {length} tokens; with {more} for {what} the context holds {limit}")


def group_by_size(numbers: Sequence[int], sizes: Sequence[int], limit: int) -> list[list[int]]:
    """Group consecutive numbers so that their sizes sum to at most `limit`; a larger one is a group by itself."""
    out: list[list[int]] = []
    total = np.inf
    for number in numbers:
        if total + sizes[number] > limit:
            out.append([])
            total = 0
        out[-1].append(number)
        total += sizes[number]
    return out
