"""Fusion: one calibrated score from the parts that scored the same items.

A conditional logit: the probability that an item is the next one is a softmax over the weighted log-probabilities of
the parts. The weights maximise the likelihood of validation targets that chose none of the parts, and a ridge pulls
them towards "encoder alone", so that a part which brings nothing gets a weight near zero instead of noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

# Where the weights of a model's parts start and are pulled to.
PRIOR: Mapping[str, float] = {
    "encoder": 1.0,
    "llm": 0.0,
    "neighbours": 0.0,
    "profile": 0.0,
    "popularity": 0.0,
    "words": 0.0,
}
# popularity may be taken back, the others may only help
POSITIVE = ("encoder", "llm", "neighbours", "profile", "words")
FLOOR = 3.0  # nats below the worst decoded item that an item outside the beams is taken to be


@dataclass(frozen=True)
class Fusion:
    """Weights of the parts, by name; absent parts weigh nothing."""

    weights: Mapping[str, float]

    def combine(self, parts: Mapping[str, np.ndarray]) -> np.ndarray:
        """float32[b, n] from log-probabilities float[b, n] by name."""
        total = sum(self.weights[name] * parts[name].astype(np.float64) for name in self.weights if name in parts)
        return np.asarray(total, np.float32)


def log_softmax(scores: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """float32[b, n]: log-probabilities over the catalogue."""
    x = scores.astype(np.float64) / temperature
    x = x - x.max(axis=1, keepdims=True)
    return np.asarray(x - np.log(np.exp(x).sum(axis=1, keepdims=True)), np.float32)


def spread(rows: np.ndarray, scores: np.ndarray, n: int) -> np.ndarray:
    """float32[n] from decoded rows int[m] and log-probabilities float[m]; the rest lies FLOOR below the worst."""
    low = float(scores.min()) - FLOOR if len(scores) else 0.0
    out = np.full(n, low, np.float32)
    out[rows] = scores
    return out


def fit(
    parts: Mapping[str, np.ndarray],
    targets: np.ndarray,
    allowed: np.ndarray,
    prior: Mapping[str, float],
    ridge: float = 2.0,
    positive: Sequence[str] = (),
) -> Fusion:
    """Weights by maximum likelihood with a ridge towards `prior`.

    Args:
        parts: float[b, n] log-probabilities by name.
        targets: int[b], the rows that were taken.
        allowed: [b, n], the items that could have been: bool, or how many alternatives each of them stands for.
        prior: where the weights start and are pulled to.
        ridge: strength of the pull, in nats for a weight that is off by one.
        positive: parts whose weight may not fall below zero.
    """
    names = list(prior)
    keep = allowed[np.arange(len(targets)), targets] > 0
    allowed, targets = allowed[keep], targets[keep]
    open_, offset = allowed > 0, _multiplicity(allowed)
    x = np.stack([np.where(open_, parts[name][keep], 0.0) for name in names], axis=2).astype(np.float64)
    start = np.array([prior[name] for name in names])

    def objective(w: np.ndarray) -> tuple[float, np.ndarray]:
        s = x @ w + offset
        p = np.exp(s - s.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        at = np.arange(len(targets))
        loss = -np.log(np.maximum(p[at, targets], 1e-300)).sum() + ridge * ((w - start) ** 2).sum()
        gradient = -(x[at, targets] - np.einsum("bn,bnj->bj", p, x)).sum(axis=0) + 2 * ridge * (w - start)
        return float(loss), gradient

    bounds = [(0.0, None) if name in positive else (None, None) for name in names]
    from scipy.optimize import minimize  # start-up time that only fitting needs

    best = minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds)
    return Fusion({name: round(float(w), 6) for name, w in zip(names, best.x, strict=True)})


def _multiplicity(allowed: np.ndarray) -> np.ndarray:
    """float64[b, n]: log of how many alternatives a column stands for; -inf where it is none."""
    with np.errstate(divide="ignore"):
        return np.log(allowed.astype(np.float64))


def likelihood(fusion: Fusion, parts: Mapping[str, np.ndarray], targets: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """float64[b]: log-probability of each target among the allowed items; NaN where it was not allowed."""
    s = np.where(allowed > 0, fusion.combine(parts).astype(np.float64), 0.0) + _multiplicity(allowed)
    top = s.max(axis=1, keepdims=True)
    out = s[np.arange(len(targets)), targets] - (top[:, 0] + np.log(np.exp(s - top).sum(axis=1)))
    return np.where(np.isfinite(out), out, np.nan)


def fit_or_keep(
    parts: Mapping[str, np.ndarray],
    targets: np.ndarray,
    allowed: np.ndarray,
    prior: Mapping[str, float],
    positive: Sequence[str] = (),
    folds: int = 5,
) -> tuple[Fusion, float]:
    """`fit`, kept only when it also helps on targets that it did not see; otherwise `prior` as it stands.

    Returns the fusion and its gain over `prior` in nats a target, cross-validated over `folds`.
    """
    place = np.arange(len(targets)) % folds
    gains = np.zeros(len(targets))
    for fold in range(folds):
        seen, left = place != fold, place == fold
        if not seen.any() or not left.any():
            continue
        fitted = fit({n: p[seen] for n, p in parts.items()}, targets[seen], allowed[seen], prior, positive=positive)
        rest = {n: p[left] for n, p in parts.items()}
        before = likelihood(Fusion(prior), rest, targets[left], allowed[left])
        gains[left] = likelihood(fitted, rest, targets[left], allowed[left]) - before
    gain = float(np.nanmean(gains)) if len(gains) else 0.0
    if gain <= 0:
        return Fusion(dict(prior)), gain
    return fit(parts, targets, allowed, prior, positive=positive), gain
