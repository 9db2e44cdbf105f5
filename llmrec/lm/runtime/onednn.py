"""Matrices laid out once for the processor's own kernels, for inference on a CPU, in float32 or bfloat16.

oneDNN multiplies with a weight that it has reordered into blocks at 215 GFLOP/s where MKL reaches 178 with the plain
one (256 rows), reads it for few rows at 20 GB/s instead of 10 (10 rows: 21 ms for all layers of a 135M model instead of
44), and gives a row the same bits whatever rows stand beside it and however many threads work. Packing takes a tenth
of a second and a second copy of the layers in memory.

A processor that multiplies bfloat16 matrices (AMX) takes 41 ms for 64 rows and 79 for 256 on one core, where float32
takes 140 and 400. Only these products are then rounded: sums, norms, attention, keys and values stay float32. The last
bits of a row do depend on how many rows there are, in bfloat16 from few rows to many, in float32 for a row by itself
(matrices of 1,536 columns).
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

MatmulDtype = Literal["float32", "bfloat16"]  # number format of products with frozen matrices

_EXPECTED_ROWS = (
    256  # the number of rows that oneDNN is told to expect: this layout was the fastest for 1 to 1024 rows alike
)
_UNSUPPORTED = "this processor does not multiply bfloat16 matrices; use float32, or auto for what it can"
_SAMPLE_STRIDE = 4093  # of a weight's entries one in so many is looked at to tell whether it has changed


@dataclass(frozen=True, eq=False)
class PrepackedLinear:
    """Matrices applied to the same rows, as one in oneDNN's layout.

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


# By module, gone with it. What is kept is checked against the weights at every use, so it decides nothing but time.
_CACHE: WeakKeyDictionary[Any, dict[MatmulDtype, _CacheEntry]] = WeakKeyDictionary()
_LOCK = threading.Lock()


def fastest_matmul_dtype() -> MatmulDtype:
    """The faster number format for matrix products here, by what the processor says of itself and by trying it.

    With bfloat16 instructions (AVX512-BF16, AMX) 434 against 184 GFLOP/s on two cores; without them bfloat16 is eight
    times slower than float32. Not measured: a busy moment must not decide what comes out. The trial is for what the
    processor cannot know: a build of torch, or a person (`ONEDNN_MAX_CPU_ISA`), may keep oneDNN from its instructions.
    """
    ask = getattr(torch.cpu, "get_capabilities", dict)  # torch 2.11 and later
    has: dict[str, object] = ask()
    said = has.get("avx512_bf16") or has.get("amx_bf16")
    return "bfloat16" if said and can_prepack("bfloat16") else "float32"


def parse_matmul_dtype(name: str) -> MatmulDtype:
    """A number format by its name, "auto" for the faster one here.

    Raises:
        RequestError: there is no such format, or this processor cannot multiply in it.
    """
    if name == "auto":
        return fastest_matmul_dtype()
    if name == "float32":
        return "float32"
    if name != "bfloat16":
        raise RequestError(f"no products in '{name}'; there are: float32, bfloat16, auto")
    if fastest_matmul_dtype() != "bfloat16":
        raise RequestError(_UNSUPPORTED)
    return "bfloat16"


def prepacked_transformer(
    lm: Any, transformer: NativeTransformer, matmul_dtype: MatmulDtype = "float32"
) -> NativeTransformer:
    """The same transformer on packed weights, or as it is where packing is not possible or the weights may still move.

    Args:
        lm: the causal language model whose layers `transformer` holds.
        transformer: as `transformer.lean_body` makes it.
        matmul_dtype: number format of the products; a transformer that cannot be packed keeps its own.

    Raises:
        RequestError: this processor does not multiply in that format.
    """
    # the scale of the norm before a matrix is a scale of its columns: one pass less
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
    """The word head of a causal language model: hidden state float32[hidden] -> logits float32[words]."""
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
    """The packed form of an owner's matrices, made where it is missing or stale; None where they cannot be packed.

    Raises:
        RequestError: they could be packed, but not in this number format.
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
    """All scales and a few hundred entries of every weight: any merge or training step shows in them."""
    with torch.no_grad():
        entries = [w.reshape(-1)[::_SAMPLE_STRIDE] for p in dense for w in p.weights]
        return torch.cat([*entries, *(s for s in scales if s is not None)])


def prepack(dense: Dense, scale: torch.Tensor | None = None, matmul_dtype: MatmulDtype = "float32") -> PrepackedLinear:
    """Lay matrices out for oneDNN in this number format, their columns multiplied by `scale` float32[in]."""
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
    """Whether weights can be packed and multiplied in this number format here, tried once on a small matrix.

    The kernels are no public interface of torch, and oneDNN has them for some processors only: nothing that a library
    says of itself is as good as trying.
    """
    if not torch.backends.mkldnn.is_available():
        return False
    weight, x = torch.arange(96.0).reshape(8, 12) / 96, torch.arange(24.0).reshape(2, 12) / 24
    try:
        (y,) = prepack(Dense((weight,), (None,)), matmul_dtype=matmul_dtype)(x)
    except (AttributeError, RuntimeError, NotImplementedError):
        return False
    return bool(torch.allclose(y, x @ weight.T, atol=1e-5 if matmul_dtype == "float32" else 0.05))
