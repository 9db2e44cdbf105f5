"""The machine under a training run: processes and devices, number formats, and what must be there for them."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs

from llmrec.errors import RecipeError, RequestError
from llmrec.finetune.recipe import EngineSettings
from llmrec.finetune.stages import Say
from llmrec.packed import wanted_products
from llmrec.weights import BaseFiles, load_base


def check_engine(engine: EngineSettings) -> None:
    """Refuse settings that this machine cannot carry out, before any work.

    Raises:
        RecipeError: 4-bit weights without bitsandbytes or a GPU, FlashAttention without its package or a GPU, products
            in a format that the processor does not multiply.
    """
    gpu = torch.cuda.is_available()
    if engine.quantize == "4bit" and not (gpu and find_spec("bitsandbytes")):
        lacks = "a CUDA device" if not gpu else "the package bitsandbytes (pip install bitsandbytes)"
        raise RecipeError(f"engine.quantize is 4bit, which needs {lacks}; leave it at none to train here")
    if engine.attention == "flash_attention_2" and not (gpu and find_spec("flash_attn")):
        lacks = "a CUDA device" if not gpu else "the package flash-attn"
        raise RecipeError(f"engine.attention is flash_attention_2, which needs {lacks}; varlen runs everywhere")
    if not gpu:
        try:
            wanted_products(engine.products)
        except RequestError as error:
            raise RecipeError(f"engine.products is {engine.products}: {error}") from None


def accelerator_for(engine: EngineSettings, say: Say = lambda line: None) -> Accelerator:
    """One process, or this process's part of an `accelerate launch`; the device is accelerate's choice."""
    # not every pack has user vectors or words: their parameters are then without a gradient
    handlers = [DistributedDataParallelKwargs(find_unused_parameters=True)]
    accelerator = Accelerator(
        mixed_precision="bf16" if engine.precision == "bfloat16" else "no", kwargs_handlers=handlers
    )
    if accelerator.num_processes == 1 and "MASTER_PORT" in os.environ and "WORLD_SIZE" not in os.environ:
        say("accelerate started one process: on CPUs use ACCELERATE_USE_CPU=true accelerate launch --multi_gpu")
    return accelerator


def load_for_training(base: BaseFiles, engine: EngineSettings) -> tuple[Any, Any]:
    """(language model, tokenizer) in the number format of the recipe: float32, bfloat16, or NF4 (QLoRA, Dettmers 2023).

    Raises:
        WeightsError: the base does not load.
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
    """Recompute activations in the backward pass; transformers 5 renamed the switch on the way."""
    switch = getattr(lm, "activation_checkpointing_enable", None) or lm.gradient_checkpointing_enable
    switch({"use_reentrant": False})
