"""The KV cache of a sequence, and the attention of new tokens over it.

A cache is one buffer of fixed capacity, so nothing is copied as the sequence grows. New tokens are either consecutive
(causal attention), or branches of a tree that share the prefix in the cache (attention with a tree mask).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional


@dataclass(frozen=True)
class KVLayout:
    """Shape, data type and device of a model's keys and values."""

    layers: int
    kv_heads: int
    head_dim: int
    dtype: torch.dtype
    device: torch.device


class KVCache:
    """Keys and values of one sequence.

    Attributes:
        layout: shape, type and device.
        data: float[layers, 2, kv_heads, capacity, head_dim].
        positions: int64[capacity], the position of each token; tokens on different branches may share a position.
        length: number of tokens stored.
    """

    def __init__(self, layout: KVLayout, capacity: int) -> None:
        self.layout = layout
        shape = (layout.layers, 2, layout.kv_heads, capacity, layout.head_dim)
        self.data = torch.empty(shape, dtype=layout.dtype, device=layout.device)
        self.positions = torch.empty(capacity, dtype=torch.long, device=layout.device)
        self.length = 0

    def write(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Store keys and values float[n, kv_heads, head_dim] of one layer after the stored ones.

        The length does not change until `advance`.
        """
        into = self.data[layer, :, :, self.length : self.length + len(keys)]
        into[0] = keys.transpose(0, 1)
        into[1] = values.transpose(0, 1)

    def advance(self, positions: torch.Tensor) -> None:
        """Add tokens that every layer has written to the length; `positions` is int64[n]."""
        self.positions[self.length : self.length + len(positions)] = positions
        self.length += len(positions)

    def append(self, stored: torch.Tensor) -> None:
        """Append saved keys and values float[layers, 2, kv_heads, n, head_dim] of consecutive tokens."""
        n = stored.shape[3]
        self.data[:, :, :, self.length : self.length + n] = stored
        self.advance(torch.arange(self.length, self.length + n, device=self.positions.device))


@dataclass(frozen=True, eq=False)
class AttentionMask:
    """The keys that a chunk attends to: all from `first` on, causally or by an additive mask float[rows, keys]."""

    first: int = 0
    causal: bool = False
    additive: torch.Tensor | None = None


@dataclass(frozen=True, eq=False)
class Chunk:
    """New tokens of one sequence in a forward pass.

    Attributes:
        cache: the KV cache of the sequence.
        positions: int64[n], positions of the tokens.
        visible: tree mask bool[n, length + n], which keys each token attends to, including its own; None for causal
            attention.
    """

    cache: KVCache
    positions: torch.Tensor
    visible: torch.Tensor | None = None

    @staticmethod
    def following(cache: KVCache, n: int) -> Chunk:
        """Return a chunk of `n` consecutive tokens that follow those in the cache."""
        device = cache.positions.device
        return Chunk(cache, torch.arange(cache.length, cache.length + n, device=device))

    def __len__(self) -> int:
        return len(self.positions)

    def visible_keys(self, window: int | None) -> torch.Tensor:
        """Return bool[n, length + n], the keys that each token attends to; if given, within `window` positions."""
        old, n = self.cache.length, len(self)
        seen = self.visible
        if seen is None:
            seen = torch.ones(n, old + n, dtype=torch.bool, device=self.positions.device).tril(old)
        if window is not None:
            keys = torch.cat([self.cache.positions[:old], self.positions])
            seen = seen & (self.positions[:, None] - keys[None] < window)
        return seen

    def mask(self, window: int | None, groups: int) -> AttentionMask:
        """Return the attention mask of the tokens; rows repeat for the `groups` query heads that share a key head."""
        old, n = self.cache.length, len(self)
        short = window is None or old + n <= window
        if self.visible is None and n == 1:
            return self.last_mask(window)
        if self.visible is None and old == 0 and short:
            return AttentionMask(causal=True)
        mask = torch.zeros(n, old + n, dtype=self.cache.data.dtype, device=self.positions.device)
        mask.masked_fill_(~self.visible_keys(window), -torch.inf)
        return AttentionMask(additive=mask.repeat(groups, 1))

    def last_mask(self, window: int | None) -> AttentionMask:
        """Return the attention mask of the last token only, for consecutive tokens."""
        return AttentionMask(first=0 if window is None else max(0, self.cache.length + len(self) - window))


def attend(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: AttentionMask, scale: float
) -> torch.Tensor:
    """Grouped-query attention of queries float[n, heads, d] over keys and values float[kv_heads, t, d].

    Returns float[n, heads * d].

    Query heads that share a key head are stacked as rows, so keys and values are never repeated.
    """
    n, heads, dim = query.shape
    kv_heads = keys.shape[0]
    keys, values = keys[None, :, mask.first :], values[None, :, mask.first :]
    if mask.causal:  # the kernel has this mask built in
        out = functional.scaled_dot_product_attention(
            query.transpose(0, 1)[None], keys, values, is_causal=True, scale=scale, enable_gqa=heads != kv_heads
        )
        return out[0].transpose(0, 1).reshape(n, heads * dim)
    rows = query.view(n, kv_heads, -1, dim).permute(1, 2, 0, 3).reshape(1, kv_heads, -1, dim)
    out = functional.scaled_dot_product_attention(rows, keys, values, attn_mask=mask.additive, scale=scale)
    return out.view(kv_heads, -1, n, dim).permute(2, 0, 1, 3).reshape(n, heads * dim)
