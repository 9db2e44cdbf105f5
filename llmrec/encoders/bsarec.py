"""The BSARec layer: self-attention beside a frequency filter that rescales high frequencies (Shin et al., 2024).

"An Attentive Inductive Bias for Sequential Recommendation beyond the Self-Attention", AAAI 2024, arXiv 2312.10325. The
authors transform a window of the last N items and read the filtered signal at the window's last place, so one pass
trains one target. Seen from that place the filter is a fixed sum over the past N items, whose weights are written down
here; applied at every place it is the first layer of theirs, causal, and one pass trains every target.
"""

from __future__ import annotations

import math

import torch
from torch import nn


def lowpass_kernel(size: int, bins: int) -> torch.Tensor:
    """float32[size]: weight of the item k places back in the low-frequency part of a window of `size` items.

    The real Fourier transform of the window with all but its first `bins` frequencies set to zero, transformed back
    and read at the last place.
    """
    past = torch.arange(size, dtype=torch.float64)
    waves = [torch.cos(2 * math.pi * m * past / size) * (1 if 2 * m == size else 2) for m in range(1, bins)]
    total = torch.ones(size, dtype=torch.float64) + sum(waves, torch.zeros(size, dtype=torch.float64))
    return (total / size).float()


class FrequencyFilter(nn.Module):
    """Low frequencies as they are, high ones times the square of a learnt factor for each channel.

    Args:
        dim: channels.
        max_len: length of the window.
        bins: frequencies that count as low, the constant one included; at most max_len // 2 + 1 are there.
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
