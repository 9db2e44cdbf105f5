"""Sets up the hardware of a training run: processes, devices, number formats and their requirements."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, get_int_from_env

from llmrec.errors import RecipeError, RequestError
from llmrec.finetune.recipe import EngineSettings
from llmrec.finetune.train.trackers import NO_TRACKERS, Trackers
from llmrec.lm.base_models import BaseModelFiles, load_base
from llmrec.lm.runtime.onednn import parse_matmul_dtype
from llmrec.progress import Say, silent


def check_engine(engine: EngineSettings) -> None:
    """Refuse settings that this machine cannot run, before any work is done.

    Raises:
        RecipeError: 4-bit weights without bitsandbytes or a CUDA GPU, FlashAttention without its package or a CUDA GPU,
            or products in a number format that the processor does not support.
    """
    gpu = torch.cuda.is_available()
    if engine.quantize == "4bit" and not (gpu and find_spec("bitsandbytes")):
        lacks = "a CUDA device" if not gpu else "the package bitsandbytes (pip install bitsandbytes)"
        raise RecipeError(f"engine.quantize is 4bit, which needs {lacks}; leave it at none to train here")
    if engine.attention == "flash_attention_2" and not (gpu and find_spec("flash_attn")):
        lacks = "a CUDA device" if not gpu else "the package flash-attn"
        raise RecipeError(f"engine.attention is flash_attention_2, which needs {lacks}; varlen runs everywhere")
    if not gpu_here():
        try:
            parse_matmul_dtype(engine.products)
        except RequestError as error:
            raise RecipeError(f"engine.products is {engine.products}: {error}") from None


def gpu_here() -> bool:
    """Return whether torch has an accelerator on this machine: CUDA, ROCm, MPS or XPU."""
    return torch.accelerator.is_available()


def lacks_gpu(engine: EngineSettings) -> str:
    """Describe what this machine lacks for these settings; "" if it lacks nothing."""
    if not engine.for_gpu or gpu_here():
        return ""
    return f"this recipe is for a GPU ({', '.join(engine.for_gpu)}), and there is none here"


def check_gpu(engine: EngineSettings, on_cpu: bool) -> None:
    """Refuse a GPU recipe on a machine without a GPU, unless `on_cpu` allows it.

    Raises:
        RecipeError: there is no GPU; the message names the settings that need one, and the alternatives.
    """
    lacks = lacks_gpu(engine)
    if lacks and not on_cpu:
        raise RecipeError(
            f"{lacks}: run it on a machine with a GPU (--dry-run --gpu L4 says what it takes there), take a recipe in "
            "float32, or add --on-cpu to train here all the same, many times slower"
        )


def accelerator_for(engine: EngineSettings, say: Say = silent, trackers: Trackers = NO_TRACKERS) -> Accelerator:
    """Return the accelerator of a single process, or of this process in an `accelerate launch`.

    accelerate chooses the device.
    """
    # not every pack has user vectors or words; their parameters then get no gradient
    handlers = [DistributedDataParallelKwargs(find_unused_parameters=True)]
    accelerator = Accelerator(
        mixed_precision="bf16" if engine.precision == "bfloat16" else "no",
        kwargs_handlers=handlers,
        **trackers.settings(),
    )
    if accelerator.num_processes == 1 and "MASTER_PORT" in os.environ and "WORLD_SIZE" not in os.environ:
        say("accelerate started one process: on CPUs use ACCELERATE_USE_CPU=true accelerate launch --multi_gpu")
    return accelerator


def is_first_process() -> bool:
    """Return whether this is the first or only process of a run; works before accelerate starts.

    Reads the environment variables that accelerate reads itself: those of torchrun, of `accelerate launch` and of three
    MPI implementations.
    """
    names = ["RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK"]
    return int(get_int_from_env(names, 0)) == 0


def load_for_training(base: BaseModelFiles, engine: EngineSettings) -> tuple[Any, Any]:
    """Load (language model, tokenizer) in the recipe's number format: float32, bfloat16 or NF4 (QLoRA, Dettmers 2023).

    Raises:
        WeightsError: the base model does not load.
    """
    if engine.quantize == "4bit":
        from transformers import BitsAndBytesConfig

        settings = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
        return load_base(base, dtype=torch.bfloat16, quantization_config=settings)
    return load_base(base, dtype=torch.bfloat16 if engine.precision == "bfloat16" else torch.float32)


def checkpoint_activations(lm: Any) -> None:
    """Make the model recompute activations in the backward pass; a version of transformers 5 renamed the method."""
    switch = getattr(lm, "activation_checkpointing_enable", None) or lm.gradient_checkpointing_enable
    switch({"use_reentrant": False})
