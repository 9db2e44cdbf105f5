"""Linear cross-entropy: the loss over the vocabulary without ever storing its logits.

The table is frozen, so all that flows back is a gradient for the hidden states, and that is known once a position's
softmax is: it is computed a few positions at a time in the forward pass and the logits are dropped (as fused
linear-cross-entropy kernels do, Hsu et al. 2024, Liger). At 1,000 word positions this saves 600 MB.

Two losses a position: cross-entropy with the word that stands there, or the Kullback-Leibler divergence from the base
model's distribution (its hidden states given), which keeps the language where it was.
"""

from __future__ import annotations

from typing import Any

import torch

CHUNK = 128  # positions at a time: 25 MB of logits for 49 thousand words


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, table: torch.Tensor, answer: torch.Tensor, base: torch.Tensor | None
    ) -> torch.Tensor:
        loss = hidden.new_empty(len(hidden), dtype=torch.float32)
        gradient = torch.empty_like(hidden)
        for start in range(0, len(hidden), CHUNK):
            at = slice(start, start + CHUNK)
            logp = torch.log_softmax((hidden[at] @ table.T).float(), dim=-1)
            if base is None:
                loss[at] = -logp.gather(1, answer[at, None])[:, 0]
                d = logp.exp_()
                d[torch.arange(len(d), device=d.device), answer[at]] -= 1
            else:
                q = torch.log_softmax((base[at] @ table.T).float(), dim=-1)
                p = q.exp()
                loss[at] = (p * (q - logp)).sum(dim=-1)
                d = logp.exp_().sub_(p)
            gradient[at] = d.to(hidden.dtype) @ table
        ctx.save_for_backward(gradient)
        return loss

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * gradients[0][:, None].to(gradient.dtype), None, None, None


def linear_cross_entropy(
    hidden: torch.Tensor, table: torch.Tensor, answer: torch.Tensor, base: torch.Tensor | None = None
) -> torch.Tensor:
    """float32[m] nats a position.

    Args:
        hidden: float[m, h], the states that predict.
        table: float[words, h], the frozen output embeddings.
        answer: int64[m], the words; unused when `base` is given.
        base: float[m, h], the base model's states at the same positions: the loss is then KL(base || model).
    """
    if table.requires_grad:
        raise ValueError("the word table must be frozen: this loss gives no gradient for it")
    out: torch.Tensor = _LinearCrossEntropy.apply(hidden, table, answer, base)  # type: ignore[no-untyped-call]
    return out
