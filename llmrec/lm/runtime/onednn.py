"""Prepacked oneDNN weights for inference on a CPU, in float32 or bfloat16.

oneDNN reorders a weight into blocks once. Measured beside MKL on plain weights:

| | prepacked | plain |
|---|---|---|
| 256 rows | 215 GFLOP/s | 178 GFLOP/s |
| reading weights for few rows | 20 GB/s | 10 GB/s |
| 10 rows through all layers of a 135M model | 21 ms | 44 ms |

A row gets the same bits whatever rows stand beside it and however many threads work. Prepacking takes a tenth of a
second and a second copy of the layers in memory.

On a processor that multiplies bfloat16 matrices (AMX), one core takes 41 ms for 64 rows and 79 for 256; float32 takes
140 and 400. Only these products are rounded: sums, norms, attention, keys and values stay float32. There are two
exceptions to equal bits: in bfloat16 the last bits of a row differ between few rows and many, and in float32 those of a
row by itself may differ (matrices of 1,536 columns).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from torch import nn

from llmrec.errors import RequestError
from llmrec.lm.runtime.transformer import Dense, NativeTransformer, Projection

MatmulDtype = Literal["float32", "bfloat16"]  # number format of matrix products with frozen weights

_EXPECTED_ROWS = (
    256  # the number of rows that oneDNN is told to expect: this layout was the fastest for 1 to 1024 rows alike
)
_UNSUPPORTED = "this processor does not multiply bfloat16 matrices; use float32, or auto for what it can"
_SAMPLE_STRIDE = 4093  # one in so many entries of a weight is compared to tell whether it has changed


@dataclass(frozen=True, eq=False)
class PrepackedLinear:
    """Linear layers over the same input, their weights stacked into one matrix in oneDNN's layout.

    Attributes:
        weight: opaque, [sum of outs, in].
        bias: [sum of outs] of the weight's type, or None.
        outs: the matrices' own numbers of rows.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None
    outs: tuple[int, ...]

    def __call__(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """float32[r, in] -> float32[r, out] for every matrix."""
        if not len(x):
            return tuple(x.new_zeros(0, n) for n in self.outs)
        rows = x.to(self.weight.dtype).contiguous()
        y = torch.ops.mkldnn._linear_pointwise(rows, self.weight, self.bias, "none", [], "")
        out: tuple[torch.Tensor, ...] = y.to(x.dtype).split(self.outs, dim=-1)
        return out


@dataclass(frozen=True, eq=False)
class _CacheEntry:
    sample: torch.Tensor
    projections: tuple[PrepackedLinear, ...]


# By module, dropped with it. Entries are compared with the weights at every use, so the cache only saves time.
_CACHE: WeakKeyDictionary[Any, dict[MatmulDtype, _CacheEntry]] = WeakKeyDictionary()
_LOCK = threading.Lock()


def fastest_matmul_dtype() -> MatmulDtype:
    """The fastest number format for matrix products on this machine, by the processor's capabilities and a trial.

    With bfloat16 instructions (AVX512-BF16, AMX) 434 against 184 GFLOP/s on two cores; without them bfloat16 is eight
    times slower than float32. Speed is not measured, because a busy moment must not decide the result. The trial shows
    what the processor cannot know: a build of torch, or `ONEDNN_MAX_CPU_ISA`, may keep oneDNN from its instructions.
    """
    ask = getattr(torch.cpu, "get_capabilities", dict)  # torch 2.11 and later
    has: dict[str, object] = ask()
    said = has.get("avx512_bf16") or has.get("amx_bf16")
    return "bfloat16" if said and can_prepack("bfloat16") else "float32"


def parse_matmul_dtype(name: str) -> MatmulDtype:
    """The number format of this name; "auto" is the fastest on this machine.

    Raises:
        RequestError: there is no such format, or this processor cannot multiply in it.
    """
    if name == "auto":
        return fastest_matmul_dtype()
    if name == "float32":
        return "float32"
    if name != "bfloat16":
        raise RequestError(f"no number format '{name}' for matrix products; use float32, bfloat16 or auto")
    if fastest_matmul_dtype() != "bfloat16":
        raise RequestError(_UNSUPPORTED)
    return "bfloat16"


def prepacked_transformer(
    lm: Any, transformer: NativeTransformer, matmul_dtype: MatmulDtype = "float32"
) -> NativeTransformer:
    """The same transformer on prepacked weights; unchanged where they cannot be prepacked or may still be trained.

    Args:
        lm: the causal language model whose layers `transformer` holds.
        transformer: as `native_transformer` makes it.
        matmul_dtype: number format of the products; a transformer that cannot be prepacked keeps its own.

    Raises:
        RequestError: this processor does not multiply in that format.
    """
    # the scale of a norm is folded into the columns of the matrix behind it: saves one pass
    scales = [s for y in transformer.layers for s in (y.before_attention.scale, None, y.before_mlp.scale, None)]
    known = _cached(lm, list(transformer.projections()), scales, matmul_dtype)
    if known is None:
        return transformer
    fresh = iter(known)
    bare = (
        replace(
            y, before_attention=replace(y.before_attention, scale=None), before_mlp=replace(y.before_mlp, scale=None)
        )
        for y in transformer.layers
    )
    return replace(transformer, layers=tuple(bare)).map_projections(lambda _: next(fresh))


def prepacked_head(lm: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """The prepacked LM head: hidden state float32[hidden] -> logits float32[words]."""
    head = lm.get_output_embeddings()
    known = _cached(head, [Dense((head.weight,), (head.bias,))], [None]) if type(head) is nn.Linear else None
    if known is None:
        return head  # type: ignore[no-any-return]
    (product,) = known
    return lambda hidden: product(hidden[None])[0][0]


def _cached(
    owner: Any,
    projections: Sequence[Projection],
    scales: Sequence[torch.Tensor | None],
    matmul_dtype: MatmulDtype = "float32",
) -> tuple[PrepackedLinear, ...] | None:
    """The prepacked matrices of an owner, made where missing or stale; None where they cannot be prepacked.

    Raises:
        RequestError: they could be prepacked, but not in this number format.
    """
    dense = [p for p in projections if isinstance(p, Dense) and _is_cpu_float32(p)]
    if len(dense) < len(projections) or not can_prepack():
        with _LOCK:
            _CACHE.pop(owner, None)
        return None
    if not can_prepack(matmul_dtype):
        raise RequestError(_UNSUPPORTED)
    sample = _weight_sample(dense, scales)
    with _LOCK:
        of_owner = _CACHE.setdefault(owner, {})
        known = of_owner.get(matmul_dtype)
        if known is None or not torch.equal(known.sample, sample):
            packed = tuple(prepack(p, scale, matmul_dtype) for p, scale in zip(dense, scales, strict=True))
            known = of_owner[matmul_dtype] = _CacheEntry(sample, packed)
    return known.projections


def _is_cpu_float32(dense: Dense) -> bool:
    return all(w.device.type == "cpu" and w.dtype == torch.float32 for w in dense.weights)


def _weight_sample(dense: Sequence[Dense], scales: Sequence[torch.Tensor | None]) -> torch.Tensor:
    """All scales and a few hundred entries of every weight: any merge or training step changes some of them."""
    with torch.no_grad():
        entries = [w.reshape(-1)[::_SAMPLE_STRIDE] for p in dense for w in p.weights]
        return torch.cat([*entries, *(s for s in scales if s is not None)])


def prepack(dense: Dense, scale: torch.Tensor | None = None, matmul_dtype: MatmulDtype = "float32") -> PrepackedLinear:
    """Reorder weights for oneDNN in this number format, their columns multiplied by `scale` float32[in]."""
    with torch.inference_mode(False), torch.no_grad():
        outs = tuple(len(w) for w in dense.weights)
        weight = torch.cat([w.detach() for w in dense.weights]).contiguous()
        if scale is not None:
            weight = weight * scale.detach()
        bias = None
        if any(b is not None for b in dense.biases):
            parts = [weight.new_zeros(n) if b is None else b.detach() for n, b in zip(outs, dense.biases, strict=True)]
            bias = torch.cat(parts).to(getattr(torch, matmul_dtype))
        laid = torch.ops.mkldnn._reorder_linear_weight(weight.to(getattr(torch, matmul_dtype)), _EXPECTED_ROWS)
        return PrepackedLinear(laid, bias, outs)


@cache
def can_prepack(matmul_dtype: MatmulDtype = "float32") -> bool:
    """Whether weights can be prepacked and multiplied in this number format here, tried once on a small matrix.

    The kernels are not a public interface of torch, and oneDNN has them for some processors only, so a trial decides.
    """
    if not torch.backends.mkldnn.is_available():
        return False
    weight, x = torch.arange(96.0).reshape(8, 12) / 96, torch.arange(24.0).reshape(2, 12) / 24
    try:
        (y,) = prepack(Dense((weight,), (None,)), matmul_dtype=matmul_dtype)(x)
    except (AttributeError, RuntimeError, NotImplementedError):
        return False
    return bool(torch.allclose(y, x @ weight.T, atol=1e-5 if matmul_dtype == "float32" else 0.05))
