"""The two sides of `llmrec bench --train`, each in its own process: this engine and the Trainer baseline.

A side loads everything, reports that it is ready, and then makes one optimizer step each time it is told to.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from llmrec.data.dataset import open_data
from llmrec.data.interactions import leave_one_out
from llmrec.errors import UserError
from llmrec.finetune.bench.trainer_baseline import Collator, StepTimer, peft_model, target_rows, trainer
from llmrec.finetune.data.packing import Pack, pack_stream
from llmrec.finetune.pipeline import fresh_model
from llmrec.finetune.plan import work_directory
from llmrec.finetune.plan.cost import decoder_shape, frozen_flops, pack_flops, total_flops
from llmrec.finetune.recipe import Recipe
from llmrec.finetune.stages import Inputs
from llmrec.finetune.train.fused_lora import fused_lora
from llmrec.finetune.train.loop import Hooks, State, optimizer_for, train
from llmrec.finetune.train.objective import Objective
from llmrec.finetune.train.packed_attention import packed_attention
from llmrec.lm.base_models import base_model, load_base
from llmrec.lm.item_tokens import ItemVocab
from llmrec.lm.rendering import Renderer
from llmrec.lm.runtime.onednn import MatmulDtype
from llmrec.progress import silent
from llmrec.semantic_ids.trie import Trie

ENGINE, TRAINER, MIX, FAST = "engine", "usual", "engine, full mix", "engine, bfloat16 products"


@dataclass(frozen=True)
class Job:
    """Input of every side; `steps` includes the untimed steps at the start."""

    recipe: Recipe
    data: str
    steps: int
    seed: int
    threads: int


@dataclass(frozen=True)
class Step:
    """One optimizer step: time, tokens without padding, items predicted, and operations (0 if they are not counted).

    `frozen` is the part of `flops` in products with frozen weights.
    """

    seconds: float
    tokens: int
    targets: int
    flops: float = 0.0
    frozen: float = 0.0


@dataclass(frozen=True)
class Turns:
    """A side's end of the connection: it reports that it is ready, then waits for its turn before every step."""

    line: Any

    def ready(self) -> None:
        """Report that everything is loaded, and the memory held now."""
        self.line.send(process_memory("VmRSS"))

    def wait(self) -> None:
        """Wait for this side's turn."""
        self.line.recv()

    def done(self, step: Step) -> None:
        """Report a finished step."""
        self.line.send(step)


def process_memory(field: str) -> int:
    """Return the memory of this process in bytes: "VmRSS" is the present amount, "VmHWM" the peak since it started.

    The values come from /proc on Linux. On other systems, the high-water mark of `getrusage` is returned for both. It
    may include the parent's peak, so it is not used on Linux.
    """
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (one for one in status.read_text().splitlines() if one.startswith(field + ":"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def engine_side(job: Job, turns: Any, shares: Mapping[str, float], matmul_dtype: MatmulDtype = "float32") -> None:
    """Run this package's training loop on packs of a task mixture with these shares."""
    recipe, traffic = job.recipe, job.recipe.traffic
    base = base_model(recipe.base)
    inputs = _inputs(job)
    n, shape, dim = len(inputs.catalog), recipe.semantic_ids, recipe.encoder.dim
    ids = work_directory.provisional_ids(n, shape.depth, shape.size, dim, job.seed)
    model = fresh_model(recipe, load_base(base), ids, work_directory.untrained_encoder(n, recipe.encoder, job.seed))
    words = np.random.default_rng(job.seed).integers(0, model.vocab.base, (traffic.passages, traffic.passage_tokens))
    context = work_directory.placeholder_task_context(inputs, dim, words)
    body = decoder_shape(model.lm.config)
    round_tokens = traffic.pack_tokens * (job.steps + 2)
    packs = pack_stream(
        context, model.renderer, Trie(ids.codes, ids.size), shares, round_tokens, traffic.pack_tokens, job.seed
    )
    # the end of the schedule, validation and stages are not part of a step
    schedule = replace(recipe.schedule, tokens=10**15, validate_tokens=0, accumulate=1, adapter_share=0.0)

    def count(pack: Pack) -> dict[str, float]:
        return pack_flops(body, recipe.model, shape.size, pack, schedule.kl, recompute=False)

    turns.ready()
    clock = _Clock(turns, job.steps, count)
    hooks = Hooks(save=lambda state: None, report=lambda state, means: None, interrupted=clock.stop)
    with packed_attention(model), fused_lora(model, matmul_dtype):
        packs = clock.start(islice(packs, job.steps))
        train(Objective(model, schedule.kl), packs, schedule, optimizer_for(model, schedule), State(), hooks)


class _Clock:
    """Times the steps of `loop.train` from outside: from when it takes a pack until it asks whether to stop."""

    def __init__(self, turns: Any, steps: int, count: Callable[[Pack], Mapping[str, float]]) -> None:
        self.turns, self.left, self.count = turns, steps, count
        self.pack: Pack | None = None
        self.begun = 0.0

    def start(self, packs: Iterator[Pack]) -> Iterator[Pack]:
        """Yield each pack when this side's turn comes."""
        for pack in packs:
            self.turns.wait()
            self.pack, self.begun = pack, time.perf_counter()
            yield pack

    def stop(self) -> bool:
        """Report the finished step; return True after the last one."""
        seconds, pack = time.perf_counter() - self.begun, self.pack
        if pack is not None:
            parts = self.count(pack)
            self.turns.done(Step(seconds, pack.tokens, len(pack.levels[0]), total_flops(parts), frozen_flops(parts)))
        self.left -= 1
        return self.left <= 0


def trainer_side(job: Job, turns: Any) -> None:
    """Run transformers' Trainer over padded rows of one target each, with as many rows per step as fill a pack."""
    recipe, shape = job.recipe, job.recipe.semantic_ids
    lm, tokenizer = load_base(base_model(recipe.base))
    inputs = _inputs(job)
    dim = recipe.encoder.dim
    ids = work_directory.provisional_ids(len(inputs.catalog), shape.depth, shape.size, dim, job.seed)
    vocab = ItemVocab(lm.get_input_embeddings().weight.shape[0], ids)
    renderer = Renderer(tokenizer, vocab, recipe.model.user_slots, dim)
    context = work_directory.placeholder_task_context(inputs, dim)
    length = np.mean([len(row.ids) for row in target_rows(context, renderer, 200, job.seed)])
    batch = max(1, round(recipe.traffic.pack_tokens / float(length)))
    rows = target_rows(context, renderer, batch * job.steps, job.seed)
    collator = Collator(renderer.chat.stop, shape.depth)
    model = peft_model(lm, vocab, recipe.model)
    with tempfile.TemporaryDirectory() as out:
        loop = trainer(model, rows, collator, batch, recipe.schedule.lr_lora, job.seed, Path(out))
        loop.add_callback(StepTimer(turns.wait, lambda *step: turns.done(Step(*step)), collator))
        turns.ready()
        loop.train()


def _inputs(job: Job) -> Inputs:
    catalog, interactions = open_data(job.data)
    return Inputs(catalog, leave_one_out(interactions), job.recipe, Path("."), silent)


def serve(line: Connection, side: str, job: Job) -> None:
    """Run a side in its process; the last thing that it sends is its peak memory."""
    torch.set_num_threads(job.threads)
    turns = Turns(line)
    try:
        if side == TRAINER:
            trainer_side(job, turns)
        else:
            shares = job.recipe.traffic.shares if side == MIX else {"next_item": 1.0}
            engine_side(job, turns, shares, "bfloat16" if side == FAST else "float32")
        line.send(process_memory("VmHWM"))
    except UserError as error:
        line.send(error)
    except EOFError:
        return  # the benchmark process has closed the connection
