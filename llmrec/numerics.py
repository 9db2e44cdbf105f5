"""Numerical functions that several parts share: log-softmax over a catalogue, whitening of vectors."""

from __future__ import annotations

import numpy as np


def log_softmax(scores: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """float32[b, n]: log-probabilities over a catalogue, from scores float[b, n] divided by a temperature."""
    x = scores.astype(np.float64) / temperature
    x = x - x.max(axis=1, keepdims=True)
    return np.asarray(x - np.log(np.exp(x).sum(axis=1, keepdims=True)), np.float32)


def whitening(x: np.ndarray, dims: int) -> np.ndarray:
    """float64[d, dims]: rotate centred vectors to principal axes, damp them, give rows a mean squared norm of one.

    Damping by the square root of the standard deviation lies between raw vectors, where few axes decide everything, and
    full whitening, where noise axes count as much as the first.
    """
    centred = np.asarray(x, np.float64) - np.mean(x, axis=0)
    _, s, vt = np.linalg.svd(centred, full_matrices=False)
    rotated = centred @ vt[:dims].T
    # the sign of a singular vector is arbitrary and differs between LAPACK builds: fix it by the largest entry
    sign = np.sign(rotated[np.abs(rotated).argmax(axis=0), np.arange(rotated.shape[1])])
    out = vt[:dims].T * sign / np.sqrt(np.maximum(s[:dims], 1e-9))
    return np.asarray(out / max(np.sqrt(((centred @ out) ** 2).sum(axis=1).mean()), 1e-12))
