"""Plans a training run: which stages are finished, what would be trained, and the cost on this machine and on GPUs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import torch

from llmrec.data.catalog import Catalog
from llmrec.data.dataset import open_data
from llmrec.data.interactions import Interactions, leave_one_out
from llmrec.encoders.text_cache import missing_texts
from llmrec.errors import RecipeError
from llmrec.finetune.base_model_info import BaseModelInfo, find_base_model
from llmrec.finetune.data.packing import mixture_round, pack_documents
from llmrec.finetune.plan import preflight, work_directory
from llmrec.finetune.plan.cost import (
    OF_THE_LANGUAGE_MODEL,
    REACHED,
    AddedParameters,
    DecoderShape,
    StageSizes,
    added_parameters,
    decoder_shape,
    frozen_flops,
    matmul_rate,
    pack_flops,
    stage_operations,
    total_flops,
    training_bytes,
)
from llmrec.finetune.plan.gpus import Gpu
from llmrec.finetune.recipe import Recipe, load_recipe, typed_overrides
from llmrec.finetune.stages import Inputs
from llmrec.finetune.train.engine import check_engine, lacks_gpu
from llmrec.finetune.train.fine_tuning import single_validation_note
from llmrec.finetune.train.loop import Stage
from llmrec.lm.item_tokens import ItemVocab
from llmrec.lm.rendering import Renderer
from llmrec.lm.runtime.onednn import MatmulDtype
from llmrec.progress import silent
from llmrec.semantic_ids.trie import Trie
from llmrec.storage.registry import cache_home

_SAMPLE = 40_000  # tokens of training examples that the counts are taken from
_MEASURE = 1.0  # seconds
_BUSY = 4096  # tokens per pack below which a GPU mostly waits for the next kernel; a rule of thumb
# Share of a plain product's rate that the engine reaches on a CPU, by number format of its products. These are the
# inverse floor ratios of `llmrec bench --train` (two cores of an AMD EPYC: full mix in float32 1.49, bfloat16 products
# 1.95).
CPU_EFFICIENCY: Mapping[str, float] = {"float32": 0.67, "bfloat16": 0.51}
# Ratio of peak memory to counted memory, from the same run (next items 1.04, full mix 1.16). The rest is buffers of the
# backward pass and of the libraries.
_OVERHEAD = 1.15
# An assumption, not a measurement: the share of the peak rate that LoRA training of small models commonly reaches.
GPU_EFFICIENCY = 0.35
_CUDA_CONTEXT = 600_000_000  # bytes, an assumption


def plan_training(
    data: str,
    recipe_name: str | Path,
    out: Path,
    work: Path | None = None,
    gpus: tuple[Gpu, ...] = (),
    elsewhere: bool = False,
    changes: Sequence[str] = (),
) -> dict[str, Any]:
    """Make every check that training would make, and plan the run; nothing is trained or written.

    Args:
        data: name or directory of prepared data.
        recipe_name: name or file of a recipe.
        out: model directory that the run would write.
        work: directory of the stages; None puts it next to `out`.
        gpus: devices to plan for in addition to this machine.
        elsewhere: the run is meant for another machine: what this machine lacks becomes a note instead of an error.
        changes: `key=value` strings that override the recipe.

    Raises:
        UserError: a check finds a problem that would stop the run.
    """
    recipe = load_recipe(recipe_name, changes)
    catalog, interactions = open_data(data)
    work = work or out.with_name(out.name + ".work")
    found = training_plan(recipe, catalog, interactions, find_base_model(recipe.base), out, work, gpus, elsewhere)
    return {"recipe": {"name": str(recipe_name), "set": typed_overrides(changes)}, **found}


def training_plan(
    recipe: Recipe,
    catalog: Catalog,
    interactions: Interactions,
    base: BaseModelInfo,
    out: Path,
    work: Path,
    gpus: tuple[Gpu, ...] = (),
    elsewhere: bool = False,
) -> dict[str, Any]:
    """Return the plan as plain values; see `plan_training`."""
    inputs = Inputs(catalog, leave_one_out(interactions), recipe, work, silent)
    notes = _check(inputs, base, out, elsewhere)
    found = work_directory.look_up_stages(inputs, base.files)
    body, shape = decoder_shape(base.config), recipe.semantic_ids
    added = added_parameters(body, recipe.model, shape.depth, shape.size, recipe.encoder.dim)
    stages = [_stage(inputs, base, body, number) for number in range(len(recipe.schedule.stages()))]
    flops = {name: sum(stage["flops"][name] for stage in stages) for name in stages[0]["flops"]}
    memory = _memory(recipe, body, added)
    there = {name for name, state in found.lines if state == work_directory.READY}
    texts = (
        [] if "text" in there else missing_texts(catalog, recipe.embedder, preflight.TEXT_DIM, cache_home() / "cache")
    )
    counted = stage_operations(StageSizes(recipe, body, inputs.split, len(catalog), texts))
    others = {name: 0.0 if name in there else count for name, count in counted.items()}
    here = _here(recipe, body, flops, memory, others)
    return {
        **_facts(inputs, interactions, base, body),
        "code_book": {
            "depth": shape.depth,
            "size": shape.size,
            "fingerprint": found.ids.fingerprint[:16] if found.ids else None,
        },
        "work": dict(found.lines),
        "trainable": {**asdict(added), "total": added.total},
        "fine_tuning": stages,
        "flops": flops["total"],
        "memory_gb": {name: round(value / 1e9, 3) for name, value in memory.items()},
        "disk_gb": {k: v / 1e9 for k, v in preflight.space_needed(recipe, base.config, *_counts(inputs)).items()},
        "this_machine": here,
        "gpus": [_there(gpu, recipe, flops["total"], memory, others, here) for gpu in gpus],
        "notes": notes + _small_packs(recipe, gpus),
    }


def _small_packs(recipe: Recipe, gpus: tuple[Gpu, ...]) -> list[str]:
    size = recipe.traffic.pack_tokens
    if not gpus or size >= _BUSY:
        return []
    return [f"packs of {size} tokens leave a GPU waiting most of the time: its time above is a lower bound"]


def _facts(inputs: Inputs, interactions: Interactions, base: BaseModelInfo, body: DecoderShape) -> dict[str, Any]:
    return {
        "data": {
            "items": len(inputs.catalog),
            "users": len(interactions.users),
            "train_interactions": len(inputs.split.train),
            "catalog": inputs.catalog.fingerprint[:16],
        },
        "base": {
            "id": base.id,
            "here": base.files is not None,
            "stand_in": base.stand_in,
            "parameters": body.parameters,
            "sizes": asdict(body),
        },
    }


def _counts(inputs: Inputs) -> tuple[int, int]:
    return len(inputs.catalog), len(inputs.split.valid)


def _check(inputs: Inputs, base: BaseModelInfo, out: Path, elsewhere: bool) -> list[str]:
    """Run the checks of `preflight` and return notes.

    If the run is meant for another machine, what this machine lacks becomes a note instead of an error.
    """
    recipe, notes = inputs.recipe, []
    try:
        check_engine(recipe.engine)
        preflight.check_neighbours(recipe, inputs.catalog)
    except RecipeError as error:
        if not elsewhere:
            raise
        notes.append(f"not on this machine: {error}")
    preflight.check_data(recipe, inputs.catalog, inputs.split)
    preflight.check_base(recipe, base.config, base.tokenizer)
    preflight.check_directories(recipe, inputs.catalog, out, inputs.work)
    try:
        preflight.check_space(preflight.space_needed(recipe, base.config, *_counts(inputs)), out, inputs.work)
    except RecipeError as error:
        if not elsewhere:
            raise
        notes.append(f"not on this machine: {error}")
    if base.files is None:
        notes.append(f"{base.id} is not on this machine yet: training fetches it first")
    if base.stand_in:
        notes.append(f"{base.id} is described by {base.stand_in}: counts may differ by some per cent")
    if recipe.schedule.tokens < recipe.schedule.validate_tokens:
        notes.append(single_validation_note(recipe.schedule))
    if lacks_gpu(recipe.engine):
        notes.append(f"{lacks_gpu(recipe.engine)}: llmrec train refuses it on this machine, unless --on-cpu is given")
    return notes


def _stage(inputs: Inputs, base: BaseModelInfo, body: DecoderShape, number: int) -> dict[str, Any]:
    """Return tokens, steps and operations of one schedule stage, counted on a sample of its training examples."""
    recipe, shape = inputs.recipe, inputs.recipe.semantic_ids
    traffic, schedule = recipe.traffic, recipe.schedule
    stage: Stage = schedule.stages()[number]
    begin = schedule.stages()[number - 1].until if number else 0
    ids = work_directory.provisional_ids(len(inputs.catalog), shape.depth, shape.size, 1, recipe.seed)
    renderer = Renderer(base.tokenizer, ItemVocab(body.words, ids), recipe.model.user_slots, recipe.encoder.dim)
    context = work_directory.placeholder_task_context(inputs, recipe.encoder.dim)
    sample = max(_SAMPLE, 4 * traffic.pack_tokens)
    documents = mixture_round(context, renderer, traffic.shares, sample, recipe.seed, number, stage.users)
    made = pack_documents(documents, Trie(ids.codes, ids.size), renderer, traffic.pack_tokens)
    recompute = recipe.engine.gradient_checkpointing
    counted = [pack_flops(body, recipe.model, shape.size, pack, schedule.kl, recompute) for pack in made]
    tokens, seen = stage.until - begin, sum(pack.tokens for pack in made)
    parts = {name: sum(one[name] for one in counted) / seen * tokens for name in counted[0]}
    step = seen / len(made) * schedule.accumulate
    share = sum(traffic.shares.values())
    items = sum(len(pack.levels[0]) for pack in made) / seen
    return {
        "trains": list(stage.groups),
        "user_vectors": stage.users,
        "tokens": tokens,
        "tokens_per_task": {name: round(tokens * part / share) for name, part in traffic.shares.items()},
        "documents_sampled": len(documents),
        "tokens_per_step": round(step),
        "steps": max(1, round(tokens / step)),
        "item_targets": round(items * tokens),
        "passes": _passes(inputs, documents, tokens),
        "flops": {**parts, "total": total_flops(parts)},
    }


def _passes(inputs: Inputs, documents: Any, tokens: int) -> float:
    """Return how many times the next-item task reads the train part."""
    seen = sum(len(one) for one in documents)
    levels = inputs.recipe.semantic_ids.depth
    targets = sum(int(one.rendered.loss.sum()) for one in documents if one.task == "next_item") / levels
    lengths = inputs.split.train.offsets[1:] - inputs.split.train.offsets[:-1]
    whole = int((lengths - 1).clip(min=0).sum())
    return round(targets / seen * tokens / max(whole, 1), 2)


def _memory(recipe: Recipe, body: DecoderShape, added: AddedParameters) -> dict[str, int]:
    return training_bytes(body, recipe.model.lora_rank, added, recipe.traffic.pack_tokens, recipe.engine)


def _here(
    recipe: Recipe,
    body: DecoderShape,
    flops: Mapping[str, float],
    memory: Mapping[str, int],
    others: Mapping[str, float],
) -> dict[str, Any]:
    """Return time and memory on this machine, at matrix rates measured now.

    The memory of the program itself is taken from this process, which has loaded the same libraries.
    """
    tokens, low = min(recipe.traffic.pack_tokens, 1024), recipe.engine.precision == "bfloat16"
    products: MatmulDtype = "bfloat16" if low else recipe.engine.format
    rate = matmul_rate(body, tokens, _MEASURE)
    fast = matmul_rate(body, tokens, _MEASURE, products) if products != "float32" else rate
    ideal = frozen_flops(flops) / fast + (flops["total"] - frozen_flops(flops)) / (fast if low else rate)
    program = psutil.Process().memory_info().rss
    hours = {name: count / (rate * REACHED[name]) / 3600 for name, count in others.items()}
    hours["fine-tuning"] = ideal / CPU_EFFICIENCY[products] / 3600
    peak, free = _OVERHEAD * (sum(memory.values()) + program) / 1e9, psutil.virtual_memory().available / 1e9
    return {
        "threads": torch.get_num_threads(),
        "products": products,
        "product_gflops": round(fast / 1e9, 1),
        "efficiency": CPU_EFFICIENCY[products],
        "hours": sum(hours.values()),
        "hours_by_stage": hours,
        "peak_memory_gb": round(peak, 2),
        "memory_free_gb": round(free, 2),
        "lacks": lacks_gpu(recipe.engine),
        "fits": peak <= free and not lacks_gpu(recipe.engine),
    }


def _there(
    gpu: Gpu,
    recipe: Recipe,
    flops: float,
    memory: Mapping[str, int],
    others: Mapping[str, float],
    here: Mapping[str, Any],
) -> dict[str, Any]:
    """Return time and memory on a GPU.

    Stages without the language model run on the GPU machine's CPU, which is assumed to be as fast as this machine's.
    """
    peak, kind = gpu.peak(recipe.engine.precision)
    counted = flops + sum(count for name, count in others.items() if name in OF_THE_LANGUAGE_MODEL)
    rest = sum(hours for name, hours in here["hours_by_stage"].items() if name not in OF_THE_LANGUAGE_MODEL)
    need = _OVERHEAD * (sum(memory.values()) + _CUDA_CONTEXT) / 1e9
    return {
        "name": gpu.name,
        "type": kind,
        "peak_tflops": peak,
        "efficiency": GPU_EFFICIENCY,
        "hours": counted / (peak * 1e12 * GPU_EFFICIENCY) / 3600 + rest,
        "peak_memory_gb": round(need, 2),
        "vram_gb": gpu.vram,
        "fits": need <= gpu.vram,
    }
