"""What holds for every sequential encoder, whatever its layers."""

import numpy as np

from llmrec.encoders.sequential import SequenceEncoder


def check_causal(encoder: SequenceEncoder, n: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """A vector depends on what came before alone, in any company; the history that was tried, and its vectors."""
    history = np.random.default_rng(0).integers(0, n, 35)
    path = encoder.trajectory(history)
    assert path.shape == (35, 8)
    for t in (1, 7, 20, 21, 35):
        np.testing.assert_allclose(path[t - 1], encoder.encode([history[:t]])[0], atol=1e-5)
    changed = history.copy()
    changed[30:] = (changed[30:] + 1) % n
    np.testing.assert_allclose(encoder.trajectory(changed)[:30], path[:30], atol=1e-5)
    alone = encoder.encode([history[:9]])[0]
    assert (encoder.encode([history[:9], history[:3], history])[0] == alone).all()
    return history, path
