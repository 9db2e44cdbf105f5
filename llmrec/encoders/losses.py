"""Softmax losses over a catalogue: exact cross-entropy in chunks that fit the CPU cache, and sampled softmax."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.nn import functional as F

DENSE_LIMIT = 4096  # items; up to this size, torch computes the loss without chunks
CHUNK_LOGITS = 800_000  # logits in memory at a time: 3 MB


def cross_entropy(users: torch.Tensor, items: torch.Tensor, bias: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy in nats of `targets` under the softmax of `users @ items.T + bias`.

    The same value and gradients as torch's, to rounding. Logits are computed in chunks, which keeps memory
    constant and is faster where all of them would not fit into the CPU cache.

    Args:
        users: float[m, d].
        items: float[n, d].
        bias: float[n].
        targets: int64[m], rows.
    """
    if len(items) <= DENSE_LIMIT:
        return F.cross_entropy(users @ items.T + bias, targets)
    loss: torch.Tensor = _ChunkedCrossEntropy.apply(users, items, bias, targets)  # type: ignore[no-untyped-call]
    return loss


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Loss and gradients in one pass; the logits never exist all at once."""

    @staticmethod
    def forward(
        ctx: Any, users: torch.Tensor, items: torch.Tensor, bias: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        """Compute the mean loss, and keep its gradients."""
        d_users, d_items, d_bias = torch.empty_like(users), torch.zeros_like(items), torch.zeros_like(bias)
        loss, size = users.new_zeros((), dtype=torch.float64), max(1, CHUNK_LOGITS // len(items))
        for start in range(0, len(users), size):
            u, t = users[start : start + size], targets[start : start + size, None]
            logits = torch.addmm(bias, u, items.T)
            p = torch.softmax(logits, dim=1)
            # log of the denominator from the largest probability, which is at least 1 / n and cannot underflow
            total = logits.amax(dim=1) - p.amax(dim=1).log()
            loss += (total - logits.gather(1, t)[:, 0]).double().sum()
            p.scatter_add_(1, t, -torch.ones_like(t, dtype=p.dtype))
            d_users[start : start + size] = p @ items
            d_items.addmm_(p.T, u)
            d_bias += p.sum(dim=0)
        ctx.save_for_backward(d_users / len(users), d_items / len(users), d_bias / len(users))
        return (loss / len(users)).to(users.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, None]:
        """Scale the gradients that were kept."""
        d_users, d_items, d_bias = ctx.saved_tensors
        return d_users * grads[0], d_items * grads[0], d_bias * grads[0], None


def sampled_cross_entropy(
    users: torch.Tensor,
    items: torch.Tensor,
    bias: torch.Tensor,
    targets: torch.Tensor,
    sample: torch.Tensor,
    log_q: torch.Tensor,
) -> torch.Tensor:
    """Cross-entropy over each target and a shared sample of the catalogue, corrected for the sampling probabilities.

    The logit of a sampled item is lowered by the log of its expected number of occurrences in the sample. The mean
    gradient is then that of the full softmax (Bengio & Senecal, 2008; Yi et al., 2019, "logQ"). A sampled item that is
    a row's own target is not counted twice.

    Args:
        users: float[m, d].
        items: float[n, d].
        bias: float[n].
        targets: int64[m].
        sample: int64[s], drawn with replacement.
        log_q: float[n], log probability of one draw.
    """
    own = (users * items[targets]).sum(dim=1, keepdim=True) + bias[targets, None]
    expected = log_q[sample] + math.log(len(sample))
    others = users @ items[sample].T + (bias[sample] - expected)
    others = others.masked_fill(sample[None, :] == targets[:, None], -math.inf)
    return F.cross_entropy(torch.cat([own, others], dim=1), targets.new_zeros(len(targets)))
