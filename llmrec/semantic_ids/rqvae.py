"""Semantic IDs by an RQ-VAE, as in TIGER (Rajput et al., 2023); an alternative to residual k-means.

An RQ-VAE is an autoencoder whose latent vector is quantised level by level; each level quantises the residual of those
above. Once per epoch, unused codes are moved to the residual of a random item (as in SoundStream; Zeghidour et al.,
2021); without that, the codebook collapses. Codes are then assigned to the latent vectors under the same capacity limit
as in `residual_kmeans`. So paths are unique by construction, instead of by a fourth code that counts collisions.

The returned codebook is in the space of the input vectors: the entry of a code is the mean residual of its items. Codes
of new items and initial token embeddings are computed from this codebook.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from llmrec.errors import TrainingError
from llmrec.progress import Say, counted, silent
from llmrec.semantic_ids.residual_kmeans import SemanticIds, assign_codes, kmeans_centroids


@dataclass(frozen=True)
class RqVaeConfig:
    """Hyper-parameters of an RQ-VAE: TIGER's sizes, but fewer steps.

    Attributes:
        hidden: widths of the layers between the vectors and the latent space.
        latent: width of the latent space.
        epochs: number of passes over the catalogue.
        batch: number of items per step.
        lr: learning rate of Adam.
        commitment: weight of the commitment loss.
    """

    hidden: tuple[int, ...] = (256, 128)
    latent: int = 32
    epochs: int = 200
    batch: int = 1024
    lr: float = 1e-3
    commitment: float = 0.25


@dataclass(frozen=True, eq=False)
class TrainedRqVae:
    """Latent vectors and codebooks of a trained RQ-VAE.

    Attributes:
        latent: float64[n, latent], latent vectors of the items.
        codebook: float64[depth, size, latent], codebooks of the levels.
        error: reconstruction error as a share of the vectors' variance.
    """

    latent: np.ndarray
    codebook: np.ndarray
    error: float


class RqVae(nn.Module):
    """Encoder, decoder and codebooks of an RQ-VAE.

    Args:
        dims: width of the vectors.
        depth: number of levels.
        size: number of codes per level.
        config: hyper-parameters.
    """

    def __init__(self, dims: int, depth: int, size: int, config: RqVaeConfig) -> None:
        super().__init__()
        widths = (dims, *config.hidden, config.latent)
        self.encoder, self.decoder = _mlp(widths), _mlp(widths[::-1])
        self.codebook = nn.Parameter(torch.zeros(depth, size, config.latent))

    def forward(self, x: torch.Tensor, commitment: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return loss, reconstruction float32[b, dims] and codes int64[b, depth] of vectors float32[b, dims]."""
        latent = self.encoder(x)
        left, summed = latent, torch.zeros_like(latent)
        loss = torch.zeros(())
        codes = []
        for codebook in self.codebook:
            code = torch.cdist(left.detach(), codebook.detach()).argmin(dim=1)
            chosen = codebook[code]
            loss = loss + functional.mse_loss(chosen, left.detach())
            loss = loss + commitment * functional.mse_loss(left, chosen.detach())
            left, summed = left - chosen.detach(), summed + chosen
            codes.append(code)
        through = latent + (summed - latent).detach()  # straight-through: the gradient ignores the quantiser
        back = self.decoder(through)
        return functional.mse_loss(back, x) + loss, back, torch.stack(codes, dim=1)


def fit(
    vectors: np.ndarray, depth: int, size: int, seed: int, config: RqVaeConfig | None = None, say: Say = silent
) -> SemanticIds:
    """Train an RQ-VAE on vectors float[n, d] and assign unique codes; reproducible by seed on one kind of machine.

    Raises:
        DataError: size ** depth is smaller than the catalogue.
        TrainingError: a loss is not finite.
    """
    return assign_unique_codes(vectors, train_rqvae(vectors, depth, size, seed, config, say), seed)


def assign_unique_codes(vectors: np.ndarray, found: TrainedRqVae, seed: int) -> SemanticIds:
    """Assign unique codes to vectors float[n, d] by their latent vectors.

    Raises:
        DataError: the codebook is too small for the catalogue.
    """
    depth, size = found.codebook.shape[:2]
    codes, _ = assign_codes(found.latent, depth, size, lambda level, _left: found.codebook[level])
    return SemanticIds(codes, codebook_of(vectors, codes, size, seed))


def train_rqvae(
    vectors: np.ndarray, depth: int, size: int, seed: int, config: RqVaeConfig | None = None, say: Say = silent
) -> TrainedRqVae:
    """Train an RQ-VAE on vectors float[n, d]; return latent vectors and codebooks.

    Raises:
        TrainingError: a loss or weight is not finite.
    """
    config = config or RqVaeConfig()
    x = torch.from_numpy(np.asarray(vectors, np.float32))
    x = (x - x.mean(dim=0)) / x.std().clamp(min=1e-6)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = RqVae(x.shape[1], depth, size, config)
        _init_codebooks(model, x, seed)
        optimizer = torch.optim.Adam(model.parameters(), config.lr)
        for number in counted(range(config.epochs), "semantic ids: RQ-VAE", say, "epochs"):
            _epoch(model, x, optimizer, config, number + 1)
    with torch.no_grad():
        latent = model.encoder(x).double().numpy()
        back = model(x, config.commitment)[1]
        if not np.isfinite(latent).all():
            raise _not_finite(config.epochs, "a weight")
        error = float(((back - x) ** 2).sum() / (x**2).sum().clamp(min=1e-12))
    return TrainedRqVae(latent, model.codebook.detach().double().numpy(), error)


def codebook_of(vectors: np.ndarray, codes: np.ndarray, size: int, seed: int) -> np.ndarray:
    """float32[depth, size, d]: for each code, the mean residual of its items' vectors.

    A code without items is placed next to a random used one, so that new items can get it.
    """
    residual, out = np.asarray(vectors, np.float64).copy(), []
    rng = np.random.default_rng(seed)
    for code in codes.T:
        count = np.bincount(code, minlength=size)
        centres = np.zeros((size, residual.shape[1]))
        np.add.at(centres, code, residual)
        centres /= np.maximum(count, 1)[:, None]
        unused, used = np.flatnonzero(count == 0), np.flatnonzero(count)
        noise = rng.normal(0, 1e-3, (len(unused), residual.shape[1]))
        centres[unused] = centres[rng.choice(used, len(unused))] + noise
        residual -= centres[code]
        out.append(centres)
    return np.stack(out).astype(np.float32)


def _mlp(widths: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for one, other in pairwise(widths):
        layers += [nn.Linear(one, other), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


@torch.no_grad()
def _init_codebooks(model: RqVae, x: torch.Tensor, seed: int) -> None:
    """Initialise the codebooks by k-means of the untrained encoder's output, level by level."""
    left = model.encoder(x)
    for level, codebook in enumerate(model.codebook):
        codebook.copy_(torch.from_numpy(kmeans_centroids(left.double().numpy(), len(codebook), seed + level)))
        left = left - codebook[torch.cdist(left, codebook).argmin(dim=1)]


def _epoch(model: RqVae, x: torch.Tensor, optimizer: torch.optim.Optimizer, config: RqVaeConfig, number: int) -> None:
    used = torch.zeros(model.codebook.shape[:2], dtype=torch.bool)
    for some in torch.randperm(len(x)).split(config.batch):
        loss, _, codes = model(x[some], config.commitment)
        if not math.isfinite(loss.item()):
            raise _not_finite(number, "the loss")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        for level, code in enumerate(codes.T):
            used[level, code] = True
    _revive_dead_codes(model, x, used)


def _not_finite(epoch: int, what: str) -> TrainingError:
    return TrainingError(
        f"RQ-VAE epoch {epoch}: {what} is not finite; training stops and no semantic IDs are kept. "
        "A lower learning rate (RqVaeConfig.lr) may help, and semantic_ids.method kmeans needs no training"
    )


@torch.no_grad()
def _revive_dead_codes(model: RqVae, x: torch.Tensor, used: torch.Tensor) -> None:
    """Move every unused code to the residual of a random item."""
    left = model.encoder(x)
    for codebook, known in zip(model.codebook, used, strict=True):
        dead = torch.nonzero(~known).flatten()
        if len(dead):
            codebook[dead] = left[torch.randint(len(left), (len(dead),))]
        left = left - codebook[torch.cdist(left, codebook).argmin(dim=1)]
