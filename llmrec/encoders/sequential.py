"""Sequential encoders, which map a history of items to a user vector: the collaborative signal of the model.

An encoder is SASRec (Kang & McAuley, 2018), HSTU (Zhai et al., 2024) or BSARec (Shin et al., 2024); they differ only in
their layers. The score of an item is the inner product of the user vector with the item vector plus the item's bias, so
a full ranking is one index search. The module `training` trains encoders.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from llmrec.encoders.bsarec import FrequencyFilter
from llmrec.encoders.config import EncoderConfig, encoder_config_dict
from llmrec.encoders.hstu import HSTUBlock
from llmrec.errors import DataError
from llmrec.inner_product import inner

# weights with a row for every item, of one encoder or of several towers
_ITEM_ROWS = re.compile(r"(?:nets\.\d+\.)?(item\.weight|bias)")


class _Block(nn.Module):
    """SASRec's layer: a pre-norm transformer block with causal self-attention. With a filter, it is BSARec's layer."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        d = config.dim
        self.heads, self.dropout = config.heads, config.dropout
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv, self.out = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.ff = nn.Sequential(nn.Linear(d, 4 * d), nn.GELU(), nn.Dropout(config.dropout), nn.Linear(4 * d, d))
        self.drop = nn.Dropout(config.dropout)
        self.distance = nn.Parameter(torch.zeros(config.heads, config.max_len)) if config.distance else None
        self.share = config.filter_share
        self.filter = FrequencyFilter(d, config.max_len, config.low_bins) if config.kind == "bsarec" else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float[b, t, d] -> float[b, t, d]. Padding is on the right, so the causal mask alone excludes it."""
        normal = self.norm1(x)
        mixed = self.drop(self.out(self._attend(normal)))
        if self.filter is not None:
            mixed = self.share * self.drop(self.filter(normal)) + (1 - self.share) * mixed
        x = x + mixed
        out: torch.Tensor = x + self.drop(self.ff(self.norm2(x)))
        return out

    def _attend(self, x: torch.Tensor) -> torch.Tensor:
        b, t, d = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        drop = self.dropout if self.training else 0.0
        if self.distance is None:
            a = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=drop)
        else:
            place = torch.arange(t, device=x.device)
            back = place[:, None] - place[None, :]
            bias = self.distance[:, back.clamp(min=0)].masked_fill(back < 0, -torch.inf)
            a = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=drop)
        return a.transpose(1, 2).reshape(b, t, d)


class EncoderNet(nn.Module):
    """Item and position embeddings, causal blocks of one kind, a final norm. Row `n_items` is padding."""

    def __init__(self, n_items: int, config: EncoderConfig) -> None:
        super().__init__()
        self.config, self.n_items = config, n_items
        self.item = nn.Embedding(n_items + 1, config.dim, padding_idx=n_items)
        self.bias = nn.Parameter(torch.zeros(n_items))
        self.position = nn.Embedding(config.max_len, config.dim)
        self.blocks = nn.ModuleList(_block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.dim)
        self.drop = nn.Dropout(config.dropout)
        for weight in (self.item.weight, self.position.weight):
            nn.init.normal_(weight, std=0.02)
        with torch.no_grad():
            self.item.weight[n_items] = 0

    def forward(self, rows: torch.Tensor, table: torch.Tensor | None = None) -> torch.Tensor:
        """int[b, t] (right padded with n_items) -> user vectors after every position, float[b, t, d].

        `table`, float[n_items + 1, d], replaces the item vectors; training uses it to add the text part.
        """
        positions = torch.arange(rows.shape[1], device=rows.device)
        items = self.item(rows) if table is None else F.embedding(rows, table)
        x = self.drop(items * self.config.dim**0.5 + self.position(positions))
        for block in self.blocks:
            x = block(x)
        out: torch.Tensor = self.norm(x)
        return out

    @property
    def vectors(self) -> torch.Tensor:
        """float[n_items, d]: the item vectors."""
        return self.item.weight[: self.n_items]


def _block(config: EncoderConfig) -> nn.Module:
    if config.kind == "hstu":
        return HSTUBlock(config.dim, config.heads, config.dropout, config.max_len)
    return _Block(config)


class Towers(nn.Module):
    """Several encoders as one: the score is the mean of theirs, and still one inner product per item."""

    def __init__(self, nets: Sequence[EncoderNet], config: EncoderConfig) -> None:
        super().__init__()
        self.nets = nn.ModuleList(nets)
        self.config, self.n_items = config, nets[0].n_items

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """int[b, t] (right padded with n_items) -> user vectors after every position, float[b, t, d]."""
        return torch.cat([net(rows) for net in self.nets], dim=-1) / len(self.nets)

    @property
    def vectors(self) -> torch.Tensor:
        """float[n_items, d]: the item vectors."""
        return torch.cat([net.vectors for net in self.nets], dim=1)  # type: ignore[misc]

    @property
    def bias(self) -> torch.Tensor:
        """float[n_items]: the item biases."""
        return torch.stack([net.bias for net in self.nets]).mean(dim=0)  # type: ignore[misc]


def network(n_items: int, config: EncoderConfig) -> EncoderNet | Towers:
    """Build an untrained network for a configuration."""
    nets = [EncoderNet(n_items, part) for part in config.parts]
    return Towers(nets, config) if config.towers else nets[0]


class SequenceEncoder:
    """A trained, frozen encoder: maps histories (row arrays, oldest first) to user vectors and scores of all items."""

    def __init__(self, net: EncoderNet | Towers) -> None:
        self.net = net.eval().requires_grad_(False)
        self.config = net.config

    @cached_property
    def item_vectors(self) -> np.ndarray:
        """float32[n, d]: the vectors that user vectors are multiplied with."""
        return self.net.vectors.numpy()

    @cached_property
    def bias(self) -> np.ndarray:
        """float32[n]: the item biases, added to the inner products."""
        return self.net.bias.numpy()

    def encode(self, histories: Sequence[np.ndarray]) -> np.ndarray:
        """float32[b, d]: the vector after the last item of each history; an empty history gives zeros.

        One forward pass per history: in padded batches the last bits would depend on the other histories.
        """
        out = np.zeros((len(histories), self.config.dim), dtype=np.float32)
        for i, history in enumerate(histories):
            if len(history):
                out[i] = self.every_position(history)[-1]
        return out

    @torch.inference_mode()
    def encode_together(self, histories: Sequence[np.ndarray]) -> np.ndarray:
        """Like `encode`, but in one padded forward pass: much faster, and equal except for the last bits."""
        ends = [history[-self.config.max_len :] for history in histories]
        rows = torch.full((len(ends), max([1, *map(len, ends)])), self.net.n_items)
        for line, end in zip(rows, ends, strict=True):
            line[: len(end)] = torch.from_numpy(np.asarray(end, np.int64))
        lengths = torch.tensor([len(end) for end in ends])
        vectors = self.net(rows)[torch.arange(len(ends)), (lengths - 1).clamp(min=0)]
        return (vectors * (lengths > 0)[:, None]).numpy()  # type: ignore[no-any-return]

    @torch.inference_mode()
    def every_position(self, history: np.ndarray) -> np.ndarray:
        """float32[t, d]: causal vectors after each of the last `max_len` items of one history."""
        rows = torch.from_numpy(np.asarray(history[-self.config.max_len :], dtype=np.int64))[None]
        return self.net(rows)[0].numpy()  # type: ignore[no-any-return]

    @torch.inference_mode()
    def trajectory(self, history: np.ndarray, batch: int = 128) -> np.ndarray:
        """float32[t, d]: the vector after each item, as `encode` gives it for the last `max_len` items up to there."""
        size = self.config.max_len
        out = [self.every_position(history[:size])] if len(history) else [np.zeros((0, self.config.dim), np.float32)]
        ends = np.arange(size + 1, len(history) + 1)
        for start in range(0, len(ends), batch):
            rows = np.stack([history[e - size : e] for e in ends[start : start + batch]]).astype(np.int64)
            out.append(self.net(torch.from_numpy(rows))[:, -1].numpy())
        return np.concatenate(out)

    def scores(self, histories: Sequence[np.ndarray]) -> np.ndarray:
        """float32[b, n]: unnormalised log-probabilities of every item as the next one, the same in any batch."""
        return np.asarray(inner(self.encode(histories), self.item_vectors) + self.bias)

    def with_item_rows(
        self, vectors: Callable[[np.ndarray], np.ndarray], biases: Callable[[np.ndarray], np.ndarray]
    ) -> SequenceEncoder:
        """Return the same encoder for another catalogue; all weights that do not belong to an item are kept.

        Args:
            vectors: maps the item vectors float32[n, d] of an encoder, or of one tower, to those of the new catalogue.
            biases: maps the item biases float32[n] to those of the new catalogue.
        """
        state = self.state()
        for name, value in state.items():
            found = _ITEM_ROWS.fullmatch(name)
            if found and found[1] == "bias":
                state[name] = biases(value)
            elif found:  # the last row is padding
                state[name] = np.concatenate([vectors(value[:-1]), value[-1:]])
        return SequenceEncoder.from_state(state, encoder_config_dict(self.config))

    def state(self) -> dict[str, np.ndarray]:
        """Named float32 arrays for safetensors."""
        return {name: tensor.numpy() for name, tensor in self.net.state_dict().items()}

    @classmethod
    def from_state(cls, state: Mapping[str, np.ndarray], config: Mapping[str, Any]) -> SequenceEncoder:
        """Rebuild from `state()` and `encoder_config_dict(config)`.

        Raises:
            DataError: names or shapes of weights do not match the configuration; checked before memory is allocated.
        """
        settings = EncoderConfig(**config)
        n_items = len(state["nets.0.bias" if settings.towers else "bias"])
        with torch.device("meta"):
            wanted = {name: tuple(one.shape) for name, one in network(n_items, settings).state_dict().items()}
        given = {name: np.shape(one) for name, one in state.items()}
        for name in sorted(wanted.keys() | given.keys()):
            if wanted.get(name) != given.get(name):
                raise DataError(
                    f"encoder: {name[:60]} has shape {given.get(name)}; its sizes ask for {wanted.get(name)}"
                )
        net = network(n_items, settings)
        net.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in state.items()})
        return cls(net)
