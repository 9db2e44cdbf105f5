"""GPUs by their data sheets, for plans of runs on other machines."""

from __future__ import annotations

from dataclasses import dataclass

from llmrec.errors import RequestError


@dataclass(frozen=True)
class Gpu:
    """A device by its data sheet: dense peak in TFLOP/s (no sparsity; None where the type is missing), memory in GB."""

    name: str
    bfloat16: float | None
    float32: float
    vram: float

    def peak(self, precision: str) -> tuple[float, str]:
        """TFLOP/s for a recipe's precision, and the type that it is of."""
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
    """The devices to plan for: one by name, one by its numbers, or all of the table.

    Raises:
        RequestError: an unknown name, or one number without the other.
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
