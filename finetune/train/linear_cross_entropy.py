"""Linear cross-entropy: computes the loss over the vocabulary without storing all of its logits.

The word table is frozen, so the backward pass only needs the gradient of the hidden states, and that is known as soon
as the softmax of a position is. It is therefore computed in the forward pass, a few positions at a time, and the logits
are dropped (as fused linear-cross-entropy kernels do, Hsu et al. 2024, Liger). At 1,000 word positions this saves 600
MB.

There are two kinds of loss: the cross-entropy with the target word, and the Kullback-Leibler divergence from the base
model's distribution, given its hidden states. The latter preserves the base model's language.
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
    """Return the loss float32[m] in nats, one value per position.

    Args:
        hidden: float[m, h], the hidden states that predict.
        table: float[words, h], the frozen output embeddings.
        answer: int64[m], the target words; unused if `base` is given.
        base: float[m, h], the base model's states at the same positions; the loss is then KL(base || model).
    """
    if table.requires_grad:
        raise ValueError("the word table must be frozen: this loss gives no gradient for it")
    out: torch.Tensor = _LinearCrossEntropy.apply(hidden, table, answer, base)  # type: ignore[no-untyped-call]
    return out
