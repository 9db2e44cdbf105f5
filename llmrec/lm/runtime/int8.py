"""Weight-only int8 quantisation for token-by-token generation, which spends its time on reading weights.

Each row of a matrix is stored as int8 with one scale, symmetric and rounded to nearest. Activations are not quantised;
they are rounded to bfloat16 before a product. Generating a token then reads a quarter of the bytes. Prompts and beams
have many rows per pass and are bound by arithmetic, so they stay in float32, and so do all scores.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from llmrec.lm.model import RecModel
from llmrec.lm.runtime.transformer import Dense, NativeTransformer, Projection, is_native, native_transformer

# CPUs for which torch has a vectorised kernel; elsewhere the result would be correct but slow
CPU_CAPABILITIES = ("AVX2", "AVX512")


@dataclass(frozen=True, eq=False)
class Int8Linear:
    """Linear layers over the same input, their int8 weights stacked into one matrix.

    Attributes:
        weight: int8[sum of outs, in].
        scale: bfloat16[sum of outs].
        bias: float32[sum of outs] or None.
        outs: number of rows of each stacked matrix.
    """

    weight: torch.Tensor
    scale: torch.Tensor
    bias: torch.Tensor | None
    outs: tuple[int, ...]

    def __call__(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """float32[r, in] -> float32[r, out] for every matrix."""
        y = torch._weight_int8pack_mm(x.bfloat16(), self.weight, self.scale).float()
        out: tuple[torch.Tensor, ...] = (y if self.bias is None else y + self.bias).split(self.outs, dim=-1)
        return out


@dataclass(frozen=True, eq=False)
class Int8Weights:
    """A model's layers and LM head in int8; the copy is valid until the model's weights change."""

    transformer: NativeTransformer
    lm_head: Int8Linear

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits float32[words] of a hidden state float32[h]."""
        return self.lm_head(hidden[None])[0][0]

    @property
    def bytes(self) -> int:
        """Size of the int8 copy."""
        quantised = [self.lm_head, *(p for p in self.transformer.projections() if isinstance(p, Int8Linear))]
        return sum(p.weight.nbytes + p.scale.nbytes for p in quantised)


def int8_weights(model: RecModel) -> Int8Weights | None:
    """Return an int8 copy of a model, or None where a copy is not possible or would not help.

    The result is None on other devices than a CPU, on a CPU without a fast kernel, for an architecture that
    `transformer` does not run natively, and while LoRA is not merged into the weights.
    """
    if not is_native(model.lm):
        return None
    transformer = native_transformer(model.lm)
    if model.device.type != "cpu" or torch.backends.cpu.get_cpu_capability() not in CPU_CAPABILITIES:
        return None
    if not all(isinstance(p, Dense) for p in transformer.projections()):
        return None
    with torch.no_grad():
        head = model.lm.get_output_embeddings()
        return Int8Weights(transformer.map_projections(_quantised), quantise(Dense((head.weight,), (head.bias,))))


def _quantised(projection: Projection) -> Projection:
    return quantise(projection) if isinstance(projection, Dense) else projection


def quantise(dense: Dense) -> Int8Linear:
    """Quantise the weights of linear layers to int8."""
    weight = torch.cat([w.detach().float() for w in dense.weights])
    # Round the scale first, and the weights to multiples of the rounded scale, so that no row has a systematic error.
    scale = (weight.abs().amax(dim=1) / 127).clamp(min=1e-12).bfloat16()
    rounded = (weight / scale.float()[:, None]).round_().clamp_(-127, 127).to(torch.int8)
    outs = tuple(len(w) for w in dense.weights)
    if all(bias is None for bias in dense.biases):
        return Int8Linear(rounded, scale, None, outs)
    biases = [
        w.new_zeros(len(w)) if b is None else b.detach() for w, b in zip(dense.weights, dense.biases, strict=True)
    ]
    return Int8Linear(rounded, scale, torch.cat(biases).float(), outs)
