"""The plan of a run without running it: what is there, what is trained, what it costs here and on a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import torch

from llmrec import datasets
from llmrec.catalog import Catalog
from llmrec.errors import RecipeError
from llmrec.finetune import preflight, survey
from llmrec.finetune.bases import Base, locate
from llmrec.finetune.build import packs, round_of
from llmrec.finetune.cost import (
    Added,
    Body,
    added_parameters,
    body_of,
    frozen,
    pack_flops,
    product_rate,
    total,
    training_bytes,
)
from llmrec.finetune.engine import check_engine
from llmrec.finetune.gpus import Gpu
from llmrec.finetune.recipe import Recipe, load_recipe
from llmrec.finetune.sft import Stage
from llmrec.finetune.stages import Inputs
from llmrec.interactions import Interactions, leave_one_out
from llmrec.render import Renderer
from llmrec.trie import Trie
from llmrec.vocab import ItemVocab

_SAMPLE = 40_000  # tokens of traffic that the counts are taken from
_MEASURE = 1.0  # seconds
_BUSY = 4096  # tokens a pack below which a GPU mostly waits for the next kernel; a rule of thumb
# Share of the plain product's rate that the engine reaches on a CPU, by the format of its products: the inverse of the
# floor ratios of `llmrec bench --train` (two cores of an AMD EPYC: full mix in float32 1.49, bfloat16 products 1.95).
CPU_EFFICIENCY: Mapping[str, float] = {"float32": 0.67, "bfloat16": 0.51}
# Peak over what is counted, from the same run (next items 1.04, full mix 1.16): buffers of the backward pass and of the
# libraries.
_OVERHEAD = 1.15
# An assumption, not a measurement: what LoRA training of small models is commonly seen to reach of the peak.
GPU_EFFICIENCY = 0.35
_CUDA_CONTEXT = 600_000_000  # bytes, an assumption


def dry_run(
    data: str,
    recipe_name: str | Path,
    out: Path,
    work: Path | None = None,
    gpus: tuple[Gpu, ...] = (),
    elsewhere: bool = False,
) -> dict[str, Any]:
    """Check everything that training would check, and lay out the run; nothing is trained and nothing written.

    Args:
        data: prepared data by name or directory.
        recipe_name: of a recipe, or its file.
        out: model directory that would be written.
        work: of the stages; beside `out` if None.
        gpus: devices to plan for beside this machine.
        elsewhere: the run is meant for another machine: what this one lacks is a note, not a mistake.

    Raises:
        UserError: whatever would stop the run.
    """
    recipe = load_recipe(recipe_name)
    catalog, interactions = datasets.open_data(data)
    work = work or out.with_name(out.name + ".work")
    return plan(recipe, catalog, interactions, locate(recipe.base), out, work, gpus, elsewhere)


def plan(
    recipe: Recipe,
    catalog: Catalog,
    interactions: Interactions,
    base: Base,
    out: Path,
    work: Path,
    gpus: tuple[Gpu, ...] = (),
    elsewhere: bool = False,
) -> dict[str, Any]:
    """The plan as plain values; see `dry_run`."""
    inputs = Inputs(catalog, leave_one_out(interactions), recipe, work, lambda line: None)
    notes = _check(inputs, base, out, elsewhere)
    found = survey.look(inputs, base.files)
    body, shape = body_of(base.config), recipe.semantic_ids
    added = added_parameters(body, recipe.model, shape.depth, shape.size, recipe.encoder.dim)
    stages = [_stage(inputs, base, body, number) for number in range(len(recipe.schedule.stages()))]
    flops = {name: sum(stage["flops"][name] for stage in stages) for name in stages[0]["flops"]}
    memory = _memory(recipe, body, added)
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
        "this_machine": _here(recipe, body, flops, memory),
        "gpus": [_there(gpu, recipe, flops["total"], memory) for gpu in gpus],
        "notes": notes + _small_packs(recipe, gpus),
    }


def _small_packs(recipe: Recipe, gpus: tuple[Gpu, ...]) -> list[str]:
    size = recipe.traffic.pack_tokens
    if not gpus or size >= _BUSY:
        return []
    return [f"packs of {size} tokens leave a GPU waiting most of the time: its time above is a lower bound"]


def _facts(inputs: Inputs, interactions: Interactions, base: Base, body: Body) -> dict[str, Any]:
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


def _check(inputs: Inputs, base: Base, out: Path, elsewhere: bool) -> list[str]:
    """The checks of `preflight`; what only this machine lacks becomes a note when the run is meant for another."""
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
    if recipe.engine.precision == "bfloat16" and not torch.cuda.is_available():
        notes.append("bfloat16 is for GPUs: many processors multiply it far slower than float32")
    return notes


def _stage(inputs: Inputs, base: Base, body: Body, number: int) -> dict[str, Any]:
    """Tokens, steps and operations of one stage of the schedule, counted on a sample of its own traffic."""
    recipe, shape = inputs.recipe, inputs.recipe.semantic_ids
    traffic, schedule = recipe.traffic, recipe.schedule
    stage: Stage = schedule.stages()[number]
    begin = schedule.stages()[number - 1].until if number else 0
    ids = survey.provisional_ids(len(inputs.catalog), shape.depth, shape.size, 1, recipe.seed)
    renderer = Renderer(base.tokenizer, ItemVocab(body.words, ids), recipe.model.user_slots, recipe.encoder.dim)
    world = survey.sketch(inputs, recipe.encoder.dim)
    sample = max(_SAMPLE, 4 * traffic.pack_tokens)
    documents = round_of(world, renderer, traffic.shares, sample, recipe.seed, number, stage.users)
    made = packs(documents, Trie(ids.codes, ids.size), renderer, traffic.pack_tokens)
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
        "flops": {**parts, "total": total(parts)},
    }


def _passes(inputs: Inputs, documents: Any, tokens: int) -> float:
    """How often the next-item traffic reads the train part."""
    seen = sum(len(one) for one in documents)
    levels = inputs.recipe.semantic_ids.depth
    targets = sum(int(one.rendered.loss.sum()) for one in documents if one.task == "next_item") / levels
    lengths = inputs.split.train.offsets[1:] - inputs.split.train.offsets[:-1]
    whole = int((lengths - 1).clip(min=0).sum())
    return round(targets / seen * tokens / max(whole, 1), 2)


def _memory(recipe: Recipe, body: Body, added: Added) -> dict[str, int]:
    return training_bytes(body, recipe.model.lora_rank, added, recipe.traffic.pack_tokens, recipe.engine)


def _here(recipe: Recipe, body: Body, flops: Mapping[str, float], memory: Mapping[str, int]) -> dict[str, Any]:
    """Time at the rates measured now. The program itself is what this process holds: the same libraries."""
    tokens, products = min(recipe.traffic.pack_tokens, 1024), recipe.engine.format
    rate = product_rate(body, tokens, _MEASURE)
    fast = product_rate(body, tokens, _MEASURE, products) if products != "float32" else rate
    ideal = frozen(flops) / fast + (flops["total"] - frozen(flops)) / rate
    program = psutil.Process().memory_info().rss
    return {
        "threads": torch.get_num_threads(),
        "products": products,
        "product_gflops": round(fast / 1e9, 1),
        "efficiency": CPU_EFFICIENCY[products],
        "hours": ideal / CPU_EFFICIENCY[products] / 3600,
        "peak_memory_gb": round(_OVERHEAD * (sum(memory.values()) + program) / 1e9, 2),
        "memory_free_gb": round(psutil.virtual_memory().available / 1e9, 2),
    }


def _there(gpu: Gpu, recipe: Recipe, flops: float, memory: Mapping[str, int]) -> dict[str, Any]:
    peak, kind = gpu.peak(recipe.engine.precision)
    need = _OVERHEAD * (sum(memory.values()) + _CUDA_CONTEXT) / 1e9
    return {
        "name": gpu.name,
        "type": kind,
        "peak_tflops": peak,
        "efficiency": GPU_EFFICIENCY,
        "hours": flops / (peak * 1e12 * GPU_EFFICIENCY) / 3600,
        "peak_memory_gb": round(need, 2),
        "vram_gb": gpu.vram,
        "fits": need <= gpu.vram,
    }
