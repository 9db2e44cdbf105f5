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
from llmrec.lm.runtime.transformer import Dense, LeanBody, Projection

Products = Literal["float32", "bfloat16"]  # number format of products with frozen matrices

_ROWS = 256  # the number of rows that oneDNN is told to expect: this layout was the fastest for 1 to 1024 rows alike
_REFUSED = "this processor does not multiply bfloat16 matrices; use float32, or auto for what it can"
_EVERY = 4093  # of a weight's entries one in so many is looked at to tell whether it has changed


@dataclass(frozen=True, eq=False)
class Packed:
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
class _Known:
    sample: torch.Tensor
    projections: tuple[Packed, ...]


# By module, gone with it. What is kept is checked against the weights at every use, so it decides nothing but time.
_KNOWN: WeakKeyDictionary[Any, dict[Products, _Known]] = WeakKeyDictionary()
_LOCK = threading.Lock()


def fast_products() -> Products:
    """The faster number format for matrix products here, by what the processor says of itself and by trying it.

    With bfloat16 instructions (AVX512-BF16, AMX) 434 against 184 GFLOP/s on two cores; without them bfloat16 is eight
    times slower than float32. Not measured: a busy moment must not decide what comes out. The trial is for what the
    processor cannot know: a build of torch, or a person (`ONEDNN_MAX_CPU_ISA`), may keep oneDNN from its instructions.
    """
    ask = getattr(torch.cpu, "get_capabilities", dict)  # torch 2.11 and later
    has: dict[str, object] = ask()
    said = has.get("avx512_bf16") or has.get("amx_bf16")
    return "bfloat16" if said and can_pack("bfloat16") else "float32"


def wanted_products(name: str) -> Products:
    """A number format by its name, "auto" for the faster one here.

    Raises:
        RequestError: there is no such format, or this processor cannot multiply in it.
    """
    if name == "auto":
        return fast_products()
    if name == "float32":
        return "float32"
    if name != "bfloat16":
        raise RequestError(f"no products in '{name}'; there are: float32, bfloat16, auto")
    if fast_products() != "bfloat16":
        raise RequestError(_REFUSED)
    return "bfloat16"


def packed_body(lm: Any, body: LeanBody, products: Products = "float32") -> LeanBody:
    """The same body on packed weights, or as it is where packing is not possible or the weights may still move.

    Args:
        lm: the causal language model whose layers `body` holds.
        body: as `body.lean_body` makes it.
        products: number format of the products; a body that cannot be packed keeps its own.

    Raises:
        RequestError: this processor does not multiply in that format.
    """
    # the scale of the norm before a matrix is a scale of its columns: one pass less
    scales = [s for y in body.layers for s in (y.before_attention.scale, None, y.before_mlp.scale, None)]
    known = _known(lm, list(body.projections()), scales, products)
    if known is None:
        return body
    fresh = iter(known)
    bare = (
        replace(
            y, before_attention=replace(y.before_attention, scale=None), before_mlp=replace(y.before_mlp, scale=None)
        )
        for y in body.layers
    )
    return replace(body, layers=tuple(bare)).with_projections(lambda _: next(fresh))


def packed_head(lm: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """The word head of a causal language model: hidden state float32[hidden] -> logits float32[words]."""
    head = lm.get_output_embeddings()
    known = _known(head, [Dense((head.weight,), (head.bias,))], [None]) if type(head) is nn.Linear else None
    if known is None:
        return head  # type: ignore[no-any-return]
    (product,) = known
    return lambda hidden: product(hidden[None])[0][0]


def _known(
    owner: Any,
    projections: Sequence[Projection],
    scales: Sequence[torch.Tensor | None],
    products: Products = "float32",
) -> tuple[Packed, ...] | None:
    """The packed form of an owner's matrices, made where it is missing or stale; None where they cannot be packed.

    Raises:
        RequestError: they could be packed, but not in this number format.
    """
    dense = [p for p in projections if isinstance(p, Dense) and _plain(p)]
    if len(dense) < len(projections) or not can_pack():
        with _LOCK:
            _KNOWN.pop(owner, None)
        return None
    if not can_pack(products):
        raise RequestError(_REFUSED)
    sample = _sample(dense, scales)
    with _LOCK:
        of_owner = _KNOWN.setdefault(owner, {})
        known = of_owner.get(products)
        if known is None or not torch.equal(known.sample, sample):
            packed = tuple(pack(p, scale, products) for p, scale in zip(dense, scales, strict=True))
            known = of_owner[products] = _Known(sample, packed)
    return known.projections


def _plain(dense: Dense) -> bool:
    return all(w.device.type == "cpu" and w.dtype == torch.float32 for w in dense.weights)


def _sample(dense: Sequence[Dense], scales: Sequence[torch.Tensor | None]) -> torch.Tensor:
    """All scales and a few hundred entries of every weight: any merge or training step shows in them."""
    with torch.no_grad():
        entries = [w.reshape(-1)[::_EVERY] for p in dense for w in p.weights]
        return torch.cat([*entries, *(s for s in scales if s is not None)])


def pack(dense: Dense, scale: torch.Tensor | None = None, products: Products = "float32") -> Packed:
    """Lay matrices out for oneDNN in this number format, their columns multiplied by `scale` float32[in]."""
    with torch.inference_mode(False), torch.no_grad():
        outs = tuple(len(w) for w in dense.weights)
        weight = torch.cat([w.detach() for w in dense.weights]).contiguous()
        if scale is not None:
            weight = weight * scale.detach()
        bias = None
        if any(b is not None for b in dense.biases):
            parts = [weight.new_zeros(n) if b is None else b.detach() for n, b in zip(outs, dense.biases, strict=True)]
            bias = torch.cat(parts).to(getattr(torch, products))
        laid = torch.ops.mkldnn._reorder_linear_weight(weight.to(getattr(torch, products)), _ROWS)
        return Packed(laid, bias, outs)


@cache
def can_pack(products: Products = "float32") -> bool:
    """Whether weights can be packed and multiplied in this number format here, tried once on a small matrix.

    The kernels are no public interface of torch, and oneDNN has them for some processors only: nothing that a library
    says of itself is as good as trying.
    """
    if not torch.backends.mkldnn.is_available():
        return False
    weight, x = torch.arange(96.0).reshape(8, 12) / 96, torch.arange(24.0).reshape(2, 12) / 24
    try:
        (y,) = pack(Dense((weight,), (None,)), products=products)(x)
    except (AttributeError, RuntimeError, NotImplementedError):
        return False
    return bool(torch.allclose(y, x @ weight.T, atol=1e-5 if products == "float32" else 0.05))
