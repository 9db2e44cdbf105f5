"""The user adapter: maps a collaborative user vector to soft prompt tokens of the language model.

The adapter is a linear map plus a small perceptron. The linear part is initialised with the projection that initialises
the item embeddings, so a user's soft token starts near the items that the encoder would recommend. The perceptron
starts at zero and learns what a linear map cannot express.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn


class UserAdapter(nn.Module):
    """Maps user vectors float[r, d] to soft tokens float[r, slots, hidden]."""

    def __init__(self, dim: int, hidden: int, slots: int, width: int = 256) -> None:
        super().__init__()
        self.dim, self.hidden, self.slots, self.width = dim, hidden, slots, width
        self.norm = nn.LayerNorm(dim)
        self.linear = nn.Linear(dim, slots * hidden)
        last = nn.Linear(width, slots * hidden, bias=False)
        nn.init.zeros_(last.weight)
        self.inner = nn.Sequential(nn.Linear(dim, width), nn.GELU(), last)
        nn.init.normal_(self.linear.weight, std=0.02)
        nn.init.zeros_(self.linear.bias)

    def init_from(self, projection: np.ndarray) -> None:
        """Initialise the linear part of every slot with a projection float[d, hidden]."""
        with torch.no_grad():
            weight = torch.from_numpy(np.asarray(projection, np.float32)).T
            self.linear.weight.copy_(weight.repeat(self.slots, 1))

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return the soft tokens of user vectors."""
        x = self.norm(vectors)
        out: torch.Tensor = self.linear(x) + self.inner(x)
        return out.view(len(vectors), self.slots, self.hidden)
