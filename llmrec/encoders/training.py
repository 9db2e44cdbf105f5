"""Trains a sequential encoder with every position of a history as a target and a softmax over the whole catalogue.

The full softmax closes most of SASRec's published gap to newer models (Klenitskiy & Vasilev, 2023). It is also most of
the cost, see `losses`. Above 100,000 items, a sampled softmax that corrects for the sampling is used instead.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import cast

import numpy as np
import torch
from torch import nn

from llmrec.data.interactions import Interactions
from llmrec.encoders.config import EncoderConfig
from llmrec.encoders.losses import cross_entropy, sampled_cross_entropy
from llmrec.encoders.sequential import EncoderNet, SequenceEncoder, Towers
from llmrec.errors import RecipeError, TrainingError
from llmrec.numerics import whitening
from llmrec.progress import Counter, Say, silent

PROJECTION_STD = 0.02  # standard deviation of the first map from text to item vectors
FULL_LIMIT, SAMPLE = 100_000, 8192  # catalogues with more items than the first use samples of the second size

Batch = tuple[torch.Tensor, torch.Tensor]


def crop_windows(histories: Sequence[np.ndarray], length: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Cut every history into pieces of at most `length` + 1 rows that overlap by one, with a random first cut.

    The random cut (crop augmentation) varies the context of each item between epochs. The overlap makes every row but
    the first of a history a target exactly once.
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


def _batches(pieces: list[np.ndarray], size: int, pad: int, rng: np.random.Generator) -> list[Batch]:
    """Return batches (inputs int[b, t], targets int[b, t]), right padded, of pieces of similar length."""
    noise = rng.random(len(pieces)) * 8  # mixes pieces of similar length, so that batches differ between epochs
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
    progress: Say = silent,
    text: np.ndarray | None = None,
    start: SequenceEncoder | None = None,
) -> tuple[SequenceEncoder, list[dict[str, float]]]:
    """Train on the train part only; with `validate`, keep the best epoch and stop early by patience.

    Args:
        train: the train part.
        n_items: number of rows of the catalogue.
        config: settings.
        seed: seed of weights, dropout, order and samples.
        validate: returns the quality of an encoder; larger is better.
        progress: receives a line per validation, and the progress within an epoch that takes long.
        text: float32[n_items, e], vectors of the items' texts; needed where `config.text_dims` is above 0.
        start: encoder whose weights replace the random initial ones; its sizes must match `config`.

    Returns:
        The encoder, and one log row per epoch (epoch, loss in nats, seconds, valid; with several towers also tower).

    Raises:
        RecipeError: text_dims without text vectors.
        TrainingError: a loss or gradient is not finite.
    """
    if not config.towers:
        return _train_one(train, n_items, config, seed, validate, progress, text, start)
    nets, log = [], []
    for place, part in enumerate(config.parts):
        progress(f"encoder tower {place + 1} of {len(config.parts)}")
        from_here = None if start is None else SequenceEncoder(cast(EncoderNet, cast(Towers, start.net).nets[place]))
        encoder, own = _train_one(train, n_items, part, seed + place, validate, progress, text, from_here)
        nets.append(cast(EncoderNet, encoder.net))
        log += [{"tower": place, **row} for row in own]
    return SequenceEncoder(Towers(nets, config)), log


def _train_one(
    train: Interactions,
    n_items: int,
    config: EncoderConfig,
    seed: int,
    validate: Callable[[SequenceEncoder], float] | None,
    progress: Say,
    text: np.ndarray | None,
    start: SequenceEncoder | None,
) -> tuple[SequenceEncoder, list[dict[str, float]]]:
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    net = EncoderNet(n_items, config)
    if start is not None:
        net.load_state_dict(start.net.state_dict())
    fit = _Trainer(net, text_features(text, config), np.bincount(train.row, minlength=n_items))
    if start is not None and fit.projection is not None:
        nn.init.zeros_(fit.projection)  # the initial item vectors already contain their text part
    histories = [train.rows_of(user) for user in range(len(train.users))]
    log: list[dict[str, float]] = []
    best, best_encoder, best_epoch = -np.inf, None, 0
    counter = Counter(progress, f"encoder {config.kind}", config.epochs)
    for epoch in range(1, config.epochs + 1):
        began = time.monotonic()
        loss = fit.epoch(
            _batches(crop_windows(histories, config.max_len, rng), config.batch, n_items, rng), epoch, counter
        )
        log.append({"epoch": epoch, "loss": loss, "seconds": time.monotonic() - began})
        if validate is not None and epoch % config.evaluate_every == 0:
            now = fit.encoder()
            log[-1]["valid"] = value = validate(now)
            progress(f"encoder epoch {epoch}/{config.epochs}  loss {loss:.3f}  valid ndcg@10 {value:.4f}")
            if value > best:
                best, best_epoch, best_encoder = value, epoch, now
            elif epoch - best_epoch >= config.patience * config.evaluate_every:
                break
    return best_encoder or fit.encoder(), log


def next_item_ndcg(
    encoder: SequenceEncoder, histories: Sequence[np.ndarray], targets: np.ndarray, k: int = 10, batch: int = 256
) -> float:
    """Mean NDCG@k of one target per history, in a full ranking without the history's own items.

    Items that tie with the target count as ranked above it.

    Histories are padded and encoded together, because speed matters more than the last bits for choosing an epoch.
    """
    order = np.argsort([len(history) for history in histories], kind="stable")
    total, items = 0.0, encoder.item_vectors.T
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        scores = encoder.encode_together([histories[i] for i in chosen]) @ items + encoder.bias
        own = scores[np.arange(len(chosen)), targets[chosen]]
        for line, i in zip(scores, chosen, strict=True):
            line[histories[i]] = -np.inf
        scores[np.arange(len(chosen)), targets[chosen]] = -np.inf  # the target must not count against itself
        ranks = (scores >= own[:, None]).sum(axis=1)
        total += float((1.0 / np.log2(ranks[ranks < k] + 2)).sum())
    return total / max(len(order), 1)


def text_features(text: np.ndarray | None, config: EncoderConfig) -> torch.Tensor | None:
    """float32[n, text_dims]: the partially whitened principal components of the text vectors; None if text_dims is 0.

    Their mean squared length is one. Small catalogues or short vectors have fewer components.

    Raises:
        RecipeError: text_dims without text vectors.
    """
    if not config.text_dims:
        return None
    if text is None:
        raise RecipeError(f"encoder text_dims is {config.text_dims}, and there are no text vectors of the items")
    centred = np.asarray(text, np.float64) - np.mean(text, axis=0)
    return torch.from_numpy((centred @ whitening(text, config.text_dims)).astype(np.float32))


class _Trainer:
    """State of the training of one encoder.

    Args:
        net: the network.
        features: float[n, k], features of the item texts, or None. With features, item vectors are the free part plus
            `features @ projection`; the two are summed when the encoder is extracted.
        counts: int64[n], how often each item is a target, for sampling from a large catalogue.
    """

    def __init__(self, net: EncoderNet, features: torch.Tensor | None, counts: np.ndarray) -> None:
        self.net, self.features, config = net, features, net.config
        self.projection = None
        if features is not None:
            self.projection = nn.Parameter(torch.empty(features.shape[1], config.dim).normal_(std=PROJECTION_STD))
        extra = [] if self.projection is None else [self.projection]
        self.parameters = [*net.parameters(), *extra]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=config.lr, weight_decay=config.weight_decay)
        self.steps, self.mean = 0, [p.detach().clone() for p in self.parameters] if config.average else None
        self.sample = config.negatives or (SAMPLE if net.n_items > FULL_LIMIT else 0)
        # popular items are drawn more often, because they are the hard negatives, but every item can be drawn
        weight = torch.from_numpy(counts.astype(np.float64) ** 0.75 + 1.0)
        self.draw, self.log_q = weight / weight.sum(), (weight / weight.sum()).log().float()

    def epoch(self, batches: Sequence[Batch], number: int, counter: Counter) -> float:
        """Train for one epoch and return the mean cross-entropy in nats over all targets.

        Raises:
            TrainingError: a loss or gradient is not finite; the weights are still those of the step before.
        """
        self.net.train()
        total, count = 0.0, 0
        for step, (inputs, targets) in enumerate(batches, 1):
            keep = targets != self.net.n_items
            loss = self._loss(inputs, keep, targets[keep])
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            norm = float(nn.utils.clip_grad_norm_(self.parameters, 1.0))
            value = float(loss.detach())
            if not (math.isfinite(value) and math.isfinite(norm)):
                raise self._left_the_numbers(value, norm, f"epoch {number}, step {step} of {len(batches)}")
            self.optimizer.step()
            self._average()
            total += value * int(keep.sum())
            count += int(keep.sum())
            counter.at(number - 1 + step / len(batches), f"epoch {number} of {self.net.config.epochs} at most")
        return total / max(count, 1)

    def _left_the_numbers(self, loss: float, norm: float, where: str) -> TrainingError:
        what = f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient norm is {norm}"
        return TrainingError(
            f"encoder {self.net.config.kind}, {where}: {what}; training stops and nothing of this encoder is kept. "
            f"A lower learning rate may help: encoder.lr is {self.net.config.lr:g}"
        )

    def _loss(self, inputs: torch.Tensor, keep: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        table, n = self._table(), self.net.n_items
        users = self.net(inputs, table)[keep]
        items = (self.net.item.weight if table is None else table)[:n]
        if not self.sample:
            return cross_entropy(users, items, self.net.bias, targets)
        sample = torch.multinomial(self.draw, self.sample, replacement=True)
        return sampled_cross_entropy(users, items, self.net.bias, targets, sample, self.log_q)

    def _table(self) -> torch.Tensor | None:
        """float[n + 1, d]: item vectors with their text part; None without text features."""
        if self.features is None or self.projection is None:
            return None
        return self.net.item.weight + nn.functional.pad(self.features @ self.projection, (0, 0, 0, 1))

    @torch.no_grad()
    def _average(self) -> None:
        """Update the moving average of the weights; it adapts faster at first, to forget the random start."""
        if self.mean is not None:
            self.steps += 1
            rate = 1.0 - min(self.net.config.average, self.steps / (self.steps + 10))
            torch._foreach_lerp_(self.mean, [p.detach() for p in self.parameters], rate)

    @torch.no_grad()
    def encoder(self) -> SequenceEncoder:
        """A frozen copy of the current weights, or of their moving average, with the text part added."""
        now = [p.detach().clone() for p in self.parameters]
        if self.mean is not None:
            torch._foreach_copy_([p.detach() for p in self.parameters], self.mean)
        state = {name: tensor.clone() for name, tensor in self.net.state_dict().items()}
        if (table := self._table()) is not None:
            state["item.weight"] = table.clone()
        if not all(bool(torch.isfinite(tensor).all()) for tensor in state.values()):
            raise TrainingError(
                f"encoder {self.net.config.kind}: a weight is not finite; training stops and nothing of this encoder "
                f"is kept. A lower learning rate may help: encoder.lr is {self.net.config.lr:g}"
            )
        torch._foreach_copy_([p.detach() for p in self.parameters], now)
        copy = deepcopy(
            self.net
        )  # a new network would draw random numbers, so training with and without validation would differ
        copy.zero_grad(set_to_none=True)
        copy.load_state_dict(state)
        return SequenceEncoder(copy)
