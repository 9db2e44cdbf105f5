"""Shared numerical functions: log-softmax over a catalogue, whitening of vectors."""

from __future__ import annotations

import numpy as np


def log_softmax(scores: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """float32[b, n]: log-probabilities over a catalogue, from scores float[b, n] divided by a temperature."""
    x = scores.astype(np.float64) / temperature
    x = x - x.max(axis=1, keepdims=True)
    return np.asarray(x - np.log(np.exp(x).sum(axis=1, keepdims=True)), np.float32)


def whitening(x: np.ndarray, dims: int) -> np.ndarray:
    """Partial whitening matrix float64[d, dims] of vectors float[n, d]; results have a mean squared norm of one.

    Principal axes are divided by the square root of their standard deviation. That lies between raw vectors, where few
    axes dominate, and full whitening, where noise axes count as much as the first.
    """
    centred = np.asarray(x, np.float64) - np.mean(x, axis=0)
    _, s, vt = np.linalg.svd(centred, full_matrices=False)
    rotated = centred @ vt[:dims].T
    # signs of singular vectors are arbitrary and differ between LAPACK builds: make the largest entry positive
    sign = np.sign(rotated[np.abs(rotated).argmax(axis=0), np.arange(rotated.shape[1])])
    out = vt[:dims].T * sign / np.sqrt(np.maximum(s[:dims], 1e-9))
    return np.asarray(out / max(np.sqrt(((centred @ out) ** 2).sum(axis=1).mean()), 1e-12))
