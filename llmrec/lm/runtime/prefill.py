"""Prompts into keys and values: each token of each prompt once, or not at all where its beginning is known."""

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

# rows of a pass on a CPU: the products are at full speed from 256 on, and beyond 512 activations leave the cache
MAX_ROWS = {"cpu": 512}
MAX_ROWS_ACCELERATOR = 8192


@dataclass(frozen=True, eq=False)
class Prefilled:
    """A prompt that was read: its sequence, with room for more, and the hidden state float32[h] of its last token."""

    cache: KVCache
    hidden: torch.Tensor


@dataclass(frozen=True, eq=False)
class _Prefiller:
    model: RecModel
    transformer: Transformer
    prefixes: PrefixCache | None
    check: CancelCheck | None

    def embed(self, prompt: Rendered, start: int, end: int) -> torch.Tensor:
        """Input embeddings float[n, h] of a segment, from nothing but the segment: the same bits wherever it stands."""
        first, last = (self._users(prompt, at) for at in (start, end))
        ids = torch.from_numpy(prompt.ids[start:end]).to(self.model.device)[None]
        return self.model.embed(ids, torch.from_numpy(prompt.users[first:last]).to(self.model.device))[0]

    def begin(self, prompt: Rendered, room: int, alone: bool) -> tuple[KVCache, torch.Tensor | None, int]:
        """Read a prompt up to its last segment, when `alone` to its end: sequence, last hidden state, tokens read."""
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
        """Read the rest of several prompts in one pass; the last hidden states float32[b, h]."""
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
    """Read prompts of any lengths, leaving `room` for further tokens in each one's sequence.

    A single prompt is read by itself, segment by segment; the last segments of several share passes. `follow` is how
    many positions the further tokens take, which is fewer than their number where they are branches of a tree.

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
    """Refuse a prompt of `length` tokens that leaves no place for `more` in the context.

    Raises:
        RequestError: it is empty or too long.
    """
    limit = int(model.lm.config.get_text_config().max_position_embeddings)
    if length < 1:
        raise RequestError("the prompt is empty; it needs at least one token")
    if length + more > limit:
        raise RequestError(f"the prompt has {length} tokens; with {more} for {what} the context holds {limit}")


def group_by_size(numbers: Sequence[int], sizes: Sequence[int], limit: int) -> list[list[int]]:
    """Neighbouring numbers together as long as their sizes sum to no more than `limit`; each at least by itself."""
    out: list[list[int]] = []
    total = np.inf
    for number in numbers:
        if total + sizes[number] > limit:
            out.append([])
            total = 0
        out[-1].append(number)
        total += sizes[number]
    return out
