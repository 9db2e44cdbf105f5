"""The HSTU layer: attention without a softmax, which preserves the intensity of preferences (Zhai et al., 2024).

"Actions Speak Louder than Words", arXiv 2402.17152: pointwise aggregated attention with SiLU in place of the softmax,
a learnt bias by distance, and a gate `U` in place of the feed-forward network. The paper adds a second bias by the time
between two interactions. It is left out here, because items that are named in a conversation have no timestamps.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

INIT_STD = 0.02  # standard deviation of the initial projection and biases, as in the authors' code


class HSTUBlock(nn.Module):
    """One layer: project to U, V, Q, K, aggregate V by `SiLU(Q K^T + bias)`, gate by U, add to the input.

    Args:
        dim: width of the user vector.
        heads: number of attention heads, a divisor of dim.
        dropout: dropout rate of the gated output.
        max_len: length of the longest history. Sums over a history are divided by it, as in the authors' code, so that
            weights do not depend on the padding of a batch.
    """

    def __init__(self, dim: int, heads: int, dropout: float, max_len: int) -> None:
        super().__init__()
        self.dim, self.heads, self.max_len = dim, heads, max_len
        self.uvqk = nn.Linear(dim, 4 * dim, bias=False)
        self.out = nn.Linear(dim, dim)
        self.distance = nn.Parameter(torch.empty(max_len).normal_(std=INIT_STD))
        self.drop = nn.Dropout(dropout)
        nn.init.normal_(self.uvqk.weight, std=INIT_STD)
        nn.init.xavier_uniform_(self.out.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float[b, t, d] -> float[b, t, d]. Padding is on the right, so the causal mask alone excludes it."""
        b, t, d = x.shape
        projected = F.silu(self.uvqk(self._norm(x)))
        gate = projected[..., :d]
        v, q, k = projected[..., d:].view(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        place = torch.arange(t, device=x.device)
        bias = self.distance[(place[:, None] - place[None, :]).clamp(min=0)]
        weights = (F.silu(q @ k.transpose(-1, -2) + bias) / self.max_len).tril()
        found = (weights @ v).transpose(1, 2).reshape(b, t, d)
        out: torch.Tensor = x + self.out(self.drop(self._norm(found) * gate))
        return out

    def _norm(self, x: torch.Tensor) -> torch.Tensor:
        """Layer norm without weights, as in the authors' code; it gives weighted sums the scale that the gate needs."""
        return F.layer_norm(x, (self.dim,), eps=1e-6)
