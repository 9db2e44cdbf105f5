"""The HSTU layer: attention without a softmax, which preserves the intensity of preferences (Zhai et al., 2024).

"Actions Speak Louder than Words", arXiv 2402.17152: pointwise aggregated attention with SiLU in place of the softmax,
a learnt bias by distance, and a gate `U` in place of the feed-forward network. The paper adds a second bias by the time
between two interactions; it is left out here, because items that are named in a conversation have no
time stamps.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

INIT_STD = 0.02  # of the initial projection and biases, as in the authors' code


class HSTUBlock(nn.Module):
    """One layer: project to U, V, Q, K, aggregate V by `SiLU(Q K^T + bias)`, gate by U, add to the input.

    Args:
        dim: width of the user vector.
        heads: attention heads, a divisor of dim.
        dropout: on the gated output.
        max_len: longest history; also what the sum over a history is divided by, as in the authors' code, so that a
            weight does not depend on the padding of a batch.
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
        """float[b, t, d] -> float[b, t, d]. Padding stands on the right, so the causal mask alone keeps it out."""
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
        """Layer norm without weights, as in the authors' code; a weighted sum has any scale, the gate needs one."""
        return F.layer_norm(x, (self.dim,), eps=1e-6)
