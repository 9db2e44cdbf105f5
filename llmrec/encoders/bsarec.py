"""The BSARec layer: self-attention beside a frequency filter that rescales high frequencies (Shin et al., 2024).

"An Attentive Inductive Bias for Sequential Recommendation beyond the Self-Attention", AAAI 2024, arXiv 2312.10325. The
authors transform a window of the last N items and read the filtered signal at the window's last position, so one pass
trains one target. At that position the filter is a fixed weighted sum over the past N items. This module computes those
weights and applies the sum at every position. That equals the authors' first layer, but is causal, so one pass trains
every target.
"""

from __future__ import annotations

import math

import torch
from torch import nn


def lowpass_kernel(size: int, bins: int) -> torch.Tensor:
    """float32[size]: weight of the item k positions back in the low-frequency part of a window of `size` items.

    The low-frequency part is the real Fourier transform of the window with all but its first `bins` frequencies set to
    zero, transformed back and read at the last position.
    """
    past = torch.arange(size, dtype=torch.float64)
    waves = [torch.cos(2 * math.pi * m * past / size) * (1 if 2 * m == size else 2) for m in range(1, bins)]
    total = torch.ones(size, dtype=torch.float64) + sum(waves, torch.zeros(size, dtype=torch.float64))
    return (total / size).float()


class FrequencyFilter(nn.Module):
    """Passes low frequencies unchanged and multiplies high ones by the square of a learnt factor per channel.

    Args:
        dim: number of channels.
        max_len: length of the window.
        bins: number of frequencies that count as low, including the constant one; clipped to max_len // 2 + 1, the
            number that exist.
    """

    kernel: torch.Tensor

    def __init__(self, dim: int, max_len: int, bins: int) -> None:
        super().__init__()
        self.register_buffer("kernel", lowpass_kernel(max_len, min(bins, max_len // 2 + 1)), persistent=False)
        self.beta = nn.Parameter(torch.empty(dim).uniform_(-1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float[b, t, d] with t <= max_len -> float[b, t, d], causal."""
        place = torch.arange(x.shape[1], device=x.device)
        back = place[:, None] - place[None, :]
        low = self.kernel[back.clamp(min=0)].tril() @ x
        out: torch.Tensor = low + self.beta.square() * (x - low)
        return out
