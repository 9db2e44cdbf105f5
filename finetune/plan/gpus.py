"""GPU data-sheet figures, for planning runs on other machines."""

from __future__ import annotations

from dataclasses import dataclass

from llmrec.errors import RequestError


@dataclass(frozen=True)
class Gpu:
    """Data-sheet figures of a GPU.

    Peak rates are dense, in TFLOP/s (no sparsity; None if the device lacks the type). `vram` is in GB.
    """

    name: str
    bfloat16: float | None
    float32: float
    vram: float

    def peak(self, precision: str) -> tuple[float, str]:
        """Return the peak rate in TFLOP/s for a recipe's precision, and the number type that it applies to."""
        if precision == "bfloat16" and self.bfloat16 is not None:
            return self.bfloat16, "bfloat16"
        return self.float32, "float32"


# NVIDIA's data sheets; float32 without TF32
GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu("A100-40", 312.0, 19.5, 40),
        Gpu("A100-80", 312.0, 19.5, 80),
        Gpu("H100", 989.4, 67.0, 80),
        Gpu("RTX-4090", 165.2, 82.6, 24),
        Gpu("L4", 121.0, 30.3, 24),
        Gpu("T4", None, 8.1, 16),  # Turing has no bfloat16
    )
}


def gpus_to_plan(name: str | None, tflops: float | None, vram: float | None) -> tuple[Gpu, ...]:
    """Return the devices to plan for: one by name, one by its figures, or the whole table.

    Raises:
        RequestError: the name is unknown, only one of the two figures is given, or a figure is not above 0.
    """
    if (tflops is None) != (vram is None):
        raise RequestError("--tflops and --vram go together: the dense peak in TFLOP/s and the memory in GB")
    if tflops is not None and vram is not None:
        if min(tflops, vram) <= 0:
            raise RequestError(f"--tflops {tflops:g} and --vram {vram:g} must be above 0")
        return (Gpu(name or "given", tflops, tflops, vram),)
    if name is None:
        return tuple(GPUS.values())
    known = {one.lower().replace("-", "").replace(" ", ""): gpu for one, gpu in GPUS.items()}
    found = known.get(name.lower().replace("-", "").replace(" ", "").replace("_", ""))
    if found is None:
        raise RequestError(f"no GPU '{name}'; there are: {', '.join(GPUS)}; or give --tflops and --vram")
    return (found,)
