"""Prepacked oneDNN weights for inference on a CPU, in float32 or bfloat16.

oneDNN reorders a weight into blocks once. Measured in comparison with MKL on plain weights:

| | prepacked | plain |
|---|---|---|
| 256 rows | 215 GFLOP/s | 178 GFLOP/s |
| reading weights for few rows | 20 GB/s | 10 GB/s |
| 10 rows through all layers of a 135M model | 21 ms | 44 ms |

The result for a row has the same bits whatever other rows are in the product and however many threads run, with two
exceptions: in bfloat16 the last bits of a row differ between few rows and many, and in float32 those of a single row
may differ from those of the same row among others (matrices of 1,536 columns). Prepacking takes a tenth of a second,
and memory for a second copy of the layers.

On a processor that multiplies bfloat16 matrices (AMX), one core takes 41 ms for 64 rows and 79 ms for 256; float32
takes 140 and 400 ms. Only these products are rounded; sums, norms, attention, keys and values stay in float32.
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
    256  # number of rows that oneDNN is told to expect; this layout was the fastest for any number from 1 to 1024
)
_UNSUPPORTED = "this processor does not multiply bfloat16 matrices; use float32, or auto for what it can"
_SAMPLE_STRIDE = 4093  # every 4093rd entry of a weight is compared to detect changes


@dataclass(frozen=True, eq=False)
class PrepackedLinear:
    """Linear layers over the same input, their weights stacked into one matrix in oneDNN's layout.

    Attributes:
        weight: [sum of outs, in] in an opaque layout.
        bias: [sum of outs] of the weight's type, or None.
        outs: number of rows of each stacked matrix.
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


# Module -> its prepacked weights; an entry is dropped together with its module. Entries are compared with the weights
# at every use, so the cache affects only speed.
_CACHE: WeakKeyDictionary[Any, dict[MatmulDtype, _CacheEntry]] = WeakKeyDictionary()
_LOCK = threading.Lock()


def fastest_matmul_dtype() -> MatmulDtype:
    """Return the fastest number format for matrix products here, by the processor's capabilities and a trial.

    With bfloat16 instructions (AVX512-BF16, AMX), bfloat16 reaches 434 GFLOP/s on two cores and float32 184; without
    them, bfloat16 is eight times slower than float32. Speed is not measured here, because other load on the machine
    must not decide the result. The trial detects what the processor's flags cannot tell: a build of torch, or
    `ONEDNN_MAX_CPU_ISA`, may prevent oneDNN from using these instructions.
    """
    ask = getattr(torch.cpu, "get_capabilities", dict)  # torch 2.11 and later
    has: dict[str, object] = ask()
    said = has.get("avx512_bf16") or has.get("amx_bf16")
    return "bfloat16" if said and can_prepack("bfloat16") else "float32"


def parse_matmul_dtype(name: str) -> MatmulDtype:
    """Return the number format of a name; "auto" is the fastest one on this machine.

    Raises:
        RequestError: there is no such format, or this processor does not support it.
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
    """Return the same transformer on prepacked weights, or unchanged if they cannot be prepacked or may be trained.

    Args:
        lm: the causal language model whose layers `transformer` holds.
        transformer: the result of `native_transformer`.
        matmul_dtype: number format of the products; a transformer that cannot be prepacked keeps its own.

    Raises:
        RequestError: this processor does not multiply in that format.
    """
    # folding the scale of a norm into the columns of the next matrix saves one pass over the activations
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
    """Return the prepacked LM head, a function from hidden state float32[hidden] to logits float32[words]."""
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
    """Return the prepacked matrices of a module, made if missing or stale; None if they cannot be prepacked.

    Raises:
        RequestError: they can be prepacked, but not in this number format.
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
    """Return all scales and a few hundred entries of every weight; any merge or training step changes some of them."""
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
    """Return whether weights can be prepacked and multiplied in this number format; tried once on a small matrix.

    The kernels are not a public interface of torch, and oneDNN has them only for some processors, so a trial decides.
    """
    if not torch.backends.mkldnn.is_available():
        return False
    weight, x = torch.arange(96.0).reshape(8, 12) / 96, torch.arange(24.0).reshape(2, 12) / 24
    try:
        (y,) = prepack(Dense((weight,), (None,)), matmul_dtype=matmul_dtype)(x)
    except (AttributeError, RuntimeError, NotImplementedError):
        return False
    return bool(torch.allclose(y, x @ weight.T, atol=1e-5 if matmul_dtype == "float32" else 0.05))
