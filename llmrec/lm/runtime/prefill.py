"""Prompts into keys and values: each token of each prompt once, or not at all where its beginning is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from llmrec.errors import RequestError
from llmrec.lm.model import RecModel
from llmrec.lm.rendering import Rendered
from llmrec.lm.runtime.kv_cache import KeyValues, Part
from llmrec.lm.runtime.prefix_cache import PrefixCache, Segment, cuts, key_of, users_within
from llmrec.lm.runtime.transformer import Body, Check

# rows of a pass on a CPU: the products are at full speed from 256 on, and beyond 512 activations leave the cache
ROWS = {"cpu": 512}
ROWS_ELSEWHERE = 8192


@dataclass(frozen=True, eq=False)
class Read:
    """A prompt that was read: its sequence, with room for more, and the hidden state float32[h] of its last token."""

    memory: KeyValues
    hidden: torch.Tensor


@dataclass(frozen=True, eq=False)
class _Reader:
    model: RecModel
    body: Body
    prefixes: PrefixCache | None
    check: Check | None

    def embed(self, prompt: Rendered, start: int, end: int) -> torch.Tensor:
        """Input embeddings float[n, h] of a segment, from nothing but the segment: the same bits wherever it stands."""
        first, last = (self._users(prompt, at) for at in (start, end))
        ids = torch.from_numpy(prompt.ids[start:end]).to(self.model.device)[None]
        return self.model.embed(ids, torch.from_numpy(prompt.users[first:last]).to(self.model.device))[0]

    def begin(self, prompt: Rendered, room: int, alone: bool) -> tuple[KeyValues, torch.Tensor | None, int]:
        """Read a prompt up to its last segment, when `alone` to its end: sequence, last hidden state, tokens read."""
        memory = KeyValues(self.body.layout, len(prompt.ids) + room)
        ends = cuts(prompt.ids, self.model.renderer.chat.closing)
        keys = [key_of(prompt, end, self._users(prompt, end)) for end in ends]
        known = self.prefixes.find(keys) if self.prefixes is not None else []
        for segment in known:
            memory.append(segment.data)
        hidden = known[-1].hidden if known else None
        for end, key in list(zip(ends, keys, strict=True))[len(known) : None if alone else -1]:
            start = memory.length
            part = Part.following(memory, end - start)
            hidden = self.body.forward(self.embed(prompt, start, end), [part], last_only=True, check=self.check)[0]
            if self.prefixes is not None:
                self.prefixes.keep(key, Segment(memory.data[:, :, :, start:end].clone(), hidden))
        return memory, hidden, memory.length

    def finish(self, prompts: Sequence[Rendered], memories: Sequence[KeyValues]) -> torch.Tensor:
        """Read the rest of several prompts in one pass; the last hidden states float32[b, h]."""
        starts = [memory.length for memory in memories]
        rest = [self.embed(p, start, len(p.ids)) for p, start in zip(prompts, starts, strict=True)]
        parts = [Part.following(memory, len(x)) for memory, x in zip(memories, rest, strict=True)]
        return self.body.forward(torch.cat(rest), parts, last_only=True, check=self.check)

    def _users(self, prompt: Rendered, end: int) -> int:
        renderer = self.model.renderer
        return users_within(prompt, end, renderer.user_slot, renderer.slots)


def read(
    model: RecModel,
    body: Body,
    prompts: Sequence[Rendered],
    room: Sequence[int],
    prefixes: PrefixCache | None = None,
    check: Check | None = None,
    follow: int | None = None,
) -> list[Read]:
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
    reader = _Reader(model, body, prefixes, check)
    memories, hidden = [], []
    for prompt, more in zip(prompts, room, strict=True):
        memory, last, done = reader.begin(prompt, more, alone=len(prompts) == 1)
        memories.append(memory)
        hidden.append(last if done == len(prompt.ids) else None)
    waiting = [i for i, last in enumerate(hidden) if last is None]
    limit = ROWS.get(body.layout.device.type, ROWS_ELSEWHERE)
    for group in grouped(waiting, [len(p.ids) - m.length for p, m in zip(prompts, memories, strict=True)], limit):
        states = reader.finish([prompts[i] for i in group], [memories[i] for i in group])
        for i, state in zip(group, states, strict=True):
            hidden[i] = state
    return [Read(memory, last) for memory, last in zip(memories, hidden, strict=True) if last is not None]


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


def grouped(numbers: Sequence[int], sizes: Sequence[int], limit: int) -> list[list[int]]:
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
