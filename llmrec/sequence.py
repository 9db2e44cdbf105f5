"""Sequential encoders: a history of rows in, a user vector out; the collaborative signal of the whole system.

SASRec (Kang & McAuley, 2018) or HSTU (Zhai et al., 2024), trained with the full softmax over the catalogue at every
position, which closes most of SASRec's published gap to newer models (Klenitskiy & Vasilev, 2023). The two differ in
their layers alone. The score of an item is the inner product of the user vector with the item vector plus the item's
bias, so one look-up in an index is a full ranking.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from llmrec.errors import RecipeError
from llmrec.hstu import HSTUBlock
from llmrec.interactions import Interactions

Kind = Literal["sasrec", "hstu"]
KINDS: tuple[Kind, ...] = ("sasrec", "hstu")


@dataclass(frozen=True)
class EncoderConfig:
    """Hyper-parameters of the encoder; the defaults are SASRec's as chosen on MovieLens-100k validation."""

    dim: int = 64
    layers: int = 2
    heads: int = 2
    dropout: float = 0.3
    max_len: int = 100
    epochs: int = 60
    batch: int = 64
    lr: float = 1e-3
    weight_decay: float = 0.0
    patience: int = 8
    evaluate_every: int = 2
    # Not written out when it is SASRec: recipes and manifests from before there was a choice keep their hashes.
    kind: Annotated[Kind, Field(exclude_if=lambda kind: kind == "sasrec")] = "sasrec"

    def __post_init__(self) -> None:
        """Refuse impossible sizes before any work starts."""
        if self.kind not in KINDS:
            raise RecipeError(f"no encoder kind {self.kind!r}; there are: {', '.join(KINDS)}")
        if self.dim % self.heads:
            raise RecipeError(f"encoder dim {self.dim} must be a multiple of heads {self.heads}")
        if not 0.0 <= self.dropout < 1.0:
            raise RecipeError(f"encoder dropout {self.dropout} must lie in [0, 1)")
        if min(self.dim, self.layers, self.max_len, self.epochs, self.batch) < 1:
            raise RecipeError("encoder dim, layers, max_len, epochs and batch must be at least 1")


class _Block(nn.Module):
    """SASRec's layer: a pre-norm transformer block with causal self-attention, padding on the right."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        d = config.dim
        self.heads, self.dropout = config.heads, config.dropout
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv, self.out = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.ff = nn.Sequential(nn.Linear(d, 4 * d), nn.GELU(), nn.Dropout(config.dropout), nn.Linear(4 * d, d))
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float[b, t, d] -> float[b, t, d]. Padding stands on the right, so the causal mask alone keeps it out."""
        b, t, d = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        drop = self.dropout if self.training else 0.0
        a = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=drop)
        x = x + self.drop(self.out(a.transpose(1, 2).reshape(b, t, d)))
        out: torch.Tensor = x + self.drop(self.ff(self.norm2(x)))
        return out


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

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """int[b, t] (right padded with n_items) -> user vectors after every position, float[b, t, d]."""
        positions = torch.arange(rows.shape[1], device=rows.device)
        x = self.drop(self.item(rows) * self.config.dim**0.5 + self.position(positions))
        for block in self.blocks:
            x = block(x)
        out: torch.Tensor = self.norm(x)
        return out

    def logits(self, users: torch.Tensor) -> torch.Tensor:
        """float[..., d] -> float[..., n]: inner products with every item vector, plus its bias."""
        return users @ self.item.weight[: self.n_items].T + self.bias


def _block(config: EncoderConfig) -> nn.Module:
    if config.kind == "hstu":
        return HSTUBlock(config.dim, config.heads, config.dropout, config.max_len)
    return _Block(config)


class SequenceEncoder:
    """A trained encoder, frozen: histories (row arrays, oldest first) to user vectors and full-catalogue scores."""

    def __init__(self, net: EncoderNet) -> None:
        self.net = net.eval().requires_grad_(False)
        self.config = net.config

    @property
    def item_vectors(self) -> np.ndarray:
        """float32[n, d]: the vectors that user vectors are multiplied with."""
        return self.net.item.weight[: self.net.n_items].numpy()

    @property
    def bias(self) -> np.ndarray:
        """float32[n]: the item biases, added to the inner products."""
        return self.net.bias.numpy()

    def encode(self, histories: Sequence[np.ndarray]) -> np.ndarray:
        """float32[b, d]: the vector after the last item of each history; an empty history gives zeros.

        One forward a history: padded batches would move the last bits, and a vector must not depend on its neighbours.
        """
        out = np.zeros((len(histories), self.config.dim), dtype=np.float32)
        for i, history in enumerate(histories):
            if len(history):
                out[i] = self.every_position(history)[-1]
        return out

    @torch.inference_mode()
    def every_position(self, history: np.ndarray) -> np.ndarray:
        """float32[t, d]: causal vectors after each of the last `max_len` items of one history."""
        rows = torch.from_numpy(np.asarray(history[-self.config.max_len :], dtype=np.int64))[None]
        return self.net(rows)[0].numpy()  # type: ignore[no-any-return]

    @torch.inference_mode()
    def trajectory(self, history: np.ndarray, batch: int = 128) -> np.ndarray:
        """float32[t, d]: the vector after each item, from the last `max_len` items up to it, as in `encode`."""
        size = self.config.max_len
        out = [self.every_position(history[:size])] if len(history) else [np.zeros((0, self.config.dim), np.float32)]
        ends = np.arange(size + 1, len(history) + 1)
        for start in range(0, len(ends), batch):
            rows = np.stack([history[e - size : e] for e in ends[start : start + batch]]).astype(np.int64)
            out.append(self.net(torch.from_numpy(rows))[:, -1].numpy())
        return np.concatenate(out)

    def scores(self, histories: Sequence[np.ndarray]) -> np.ndarray:
        """float32[b, n]: unnormalised log-probabilities of every item as the next one, the same in any batch."""
        items, users = self.item_vectors.T, self.encode(histories)
        out = np.empty((len(users), items.shape[1]), np.float32)
        for i in range(len(users)):  # one product a history, as in `encode`
            out[i] = users[i : i + 1] @ items + self.bias
        return out

    def state(self) -> dict[str, np.ndarray]:
        """Named float32 arrays for safetensors."""
        return {name: tensor.numpy() for name, tensor in self.net.state_dict().items()}

    @classmethod
    def from_state(cls, state: Mapping[str, np.ndarray], config: Mapping[str, Any]) -> SequenceEncoder:
        """Rebuild from `state()` and `config_dict(config)`."""
        net = EncoderNet(len(state["bias"]), EncoderConfig(**config))
        net.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in state.items()})
        return cls(net)


def windows(histories: Sequence[np.ndarray], length: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Cut every history into pieces of at most `length` + 1 rows that overlap by one, with a random first cut.

    The random cut (crop augmentation) gives each item another amount of context in every epoch; the overlap of one
    makes every row but the first of a history a target exactly once.
    """
    pieces = []
    for rows in histories:
        if len(rows) < 2:
            continue
        start = 0
        stop = int(rng.integers(1, length + 1)) if len(rows) > length + 1 else length
        while start < len(rows) - 1:
            pieces.append(rows[start : min(stop, len(rows) - 1) + 1])
            start, stop = stop, stop + length
    return pieces


def _batches(
    pieces: list[np.ndarray], size: int, pad: int, rng: np.random.Generator
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Pairs (inputs int[b, t], targets int[b, t]), right padded, pieces of like length together."""
    noise = rng.random(len(pieces)) * 8  # mixes neighbours in length so that batches differ between epochs
    order = np.argsort([len(piece) + extra for piece, extra in zip(pieces, noise, strict=True)], kind="stable")
    groups = [order[i : i + size] for i in range(0, len(order), size)]
    out = []
    for group in rng.permutation(len(groups)):
        chosen = [pieces[i] for i in groups[group]]
        rows = np.full((len(chosen), max(map(len, chosen))), pad, dtype=np.int64)
        for line, piece in zip(rows, chosen, strict=True):
            line[: len(piece)] = piece
        tensor = torch.from_numpy(rows)
        out.append((tensor[:, :-1], tensor[:, 1:]))
    return out


def train_encoder(
    train: Interactions,
    n_items: int,
    config: EncoderConfig,
    seed: int,
    validate: Callable[[SequenceEncoder], float] | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> tuple[SequenceEncoder, list[dict[str, float]]]:
    """Fit on the train part alone. With `validate` the epoch of the best value is kept (early stopping by patience).

    Returns the encoder and one log row an epoch (epoch, loss in nats, seconds, valid).
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    net = EncoderNet(n_items, config)
    optimizer = torch.optim.AdamW(net.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    histories = [train.of(user) for user in range(len(train.users))]
    log: list[dict[str, float]] = []
    best, best_state, best_epoch = -np.inf, None, 0
    for epoch in range(1, config.epochs + 1):
        start = time.monotonic()
        loss = _epoch(net, optimizer, _batches(windows(histories, config.max_len, rng), config.batch, n_items, rng))
        log.append({"epoch": epoch, "loss": loss, "seconds": time.monotonic() - start})
        if validate is not None and epoch % config.evaluate_every == 0:
            value = validate(SequenceEncoder(net))
            net.requires_grad_(True)
            log[-1]["valid"] = value
            progress(f"encoder epoch {epoch}/{config.epochs}  loss {loss:.3f}  valid ndcg@10 {value:.4f}")
            if value > best:
                best, best_epoch = value, epoch
                best_state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
            elif epoch - best_epoch >= config.patience * config.evaluate_every:
                break
    if best_state is not None:
        net.load_state_dict(best_state)
    return SequenceEncoder(net), log


def _epoch(
    net: EncoderNet, optimizer: torch.optim.Optimizer, batches: list[tuple[torch.Tensor, torch.Tensor]]
) -> float:
    """One pass; the mean cross-entropy in nats over all targets."""
    net.train()
    total, count = 0.0, 0
    for inputs, targets in batches:
        keep = targets != net.n_items
        logits = net.logits(net(inputs)[keep])
        loss = F.cross_entropy(logits, targets[keep])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        total += float(loss.detach()) * int(keep.sum())
        count += int(keep.sum())
    return total / max(count, 1)


def config_dict(config: EncoderConfig) -> dict[str, Any]:
    """Plain values for a manifest; the kind only when it is not SASRec, see there."""
    values = asdict(config)
    if config.kind == "sasrec":
        del values["kind"]
    return values


# Names from when there was one kind of encoder.
SASRecConfig, SASRec, train_sasrec = EncoderConfig, EncoderNet, train_encoder
