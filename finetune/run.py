"""The fine-tuning stage of a recipe: its world, its stream, its checkpoints, its validation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

import numpy as np
from accelerate import Accelerator

from llmrec.artifacts import fingerprint_arrays
from llmrec.errors import Interrupted
from llmrec.finetune import checkpoints, stages
from llmrec.finetune.build import Pack, stream
from llmrec.finetune.engine import accelerator_for, checkpoint_activations
from llmrec.finetune.fused import fast_products, fused_lora
from llmrec.finetune.interrupts import polite
from llmrec.finetune.journal import Journal
from llmrec.finetune.objective import Objective
from llmrec.finetune.sft import Hooks, Stage, State, optimizer_for, train
from llmrec.finetune.stages import Inputs, key
from llmrec.finetune.text import sample_base
from llmrec.finetune.validate import Validation
from llmrec.finetune.varlen import NAME, packed_attention
from llmrec.finetune.world import World
from llmrec.model import RecModel
from llmrec.templates import names, version
from llmrec.trie import Trie
from llmrec.weights import BaseFiles

# these do not decide what a step does: another value goes on from the same checkpoints
_FREE = {"neighbours": True, "engine": True, "schedule": {"validate_tokens", "validate_users", "patience"}}


def fine_tune(
    inputs: Inputs,
    model: RecModel,
    trie: Trie,
    base: BaseFiles,
    resume: bool,
    board: Path | None = None,
    accelerator: Accelerator | None = None,
) -> State:
    """Fine-tune from the newest sound checkpoint of this very run, or from the start.

    Raises:
        Interrupted: asked to stop; a checkpoint was written.
    """
    schedule = inputs.recipe.schedule
    accelerator = accelerator or accelerator_for(inputs.recipe.engine)
    fingerprints = fingerprints_of(inputs, model, base)
    optimizer = optimizer_for(model, schedule)
    root = inputs.work / "checkpoints"
    state = checkpoints.resume(root, model, optimizer, fingerprints, inputs.say) if resume else State()
    if state.tokens >= schedule.tokens or state.stopped:
        inputs.say("fine-tuning: already there")
    else:
        _run(inputs, model, trie, base, optimizer, state, fingerprints, board, accelerator)
    if schedule.patience and state.best_step >= 0:
        inputs.say(f"fine-tuning: the weights of step {state.best_step} are kept (ndcg@10 {state.best:.4f})")
        checkpoints.load_best(root, model, state, fingerprints)
    return state


def _run(
    inputs: Inputs,
    model: RecModel,
    trie: Trie,
    base: BaseFiles,
    optimizer: object,
    state: State,
    fingerprints: Mapping[str, str],
    board: Path | None,
    accelerator: Accelerator,
) -> None:
    schedule, engine, root = inputs.recipe.schedule, inputs.recipe.engine, inputs.work / "checkpoints"
    with accelerator.main_process_first(), accelerator.autocast():
        world = make_world(inputs, model, base)
    main = accelerator.is_main_process
    journal = Journal(inputs.work / "metrics.jsonl", schedule.tokens, inputs.say, board)
    if main:
        journal.resume(state)
    if engine.gradient_checkpointing:
        checkpoint_activations(model.lm)
    with ExitStack() as stack:
        stack.enter_context(packed_attention(model, NAME if engine.attention == "varlen" else engine.attention))
        products = fast_products() if engine.products == "auto" else engine.products
        stack.enter_context(fused_lora(model, products))
        inputs.say(f"fine-tuning: products with frozen weights in {products}")
        interrupted = stack.enter_context(polite(inputs.say))
        validation = Validation(inputs, model, trie)

        def validate(now: State) -> float:
            with accelerator.autocast():
                value = validation()
            if main:
                journal.validation(now, value)
            return value

        def save(now: State) -> None:
            if main:
                checkpoints.save(root, model, optimizer, now, fingerprints)
            accelerator.wait_for_everyone()

        hooks = Hooks(
            save=save,
            report=lambda now, means: journal.losses(now, means) if main else None,
            validate=validate,
            keep=lambda now: checkpoints.keep_best(root, model, now, fingerprints) if main else None,
            interrupted=interrupted,
        )
        while True:
            stage = schedule.stages()[state.stage]
            packs = islice(pack_stream(inputs, model, trie, world, stage, state.stage), state.packs, None)
            train(Objective(model, schedule.kl), packs, schedule, optimizer, state, hooks, accelerator)
            if interrupted():
                raise Interrupted(f"stopped at step {state.step}; the same command goes on from there")
            if state.tokens >= schedule.tokens or state.stopped:
                break
            state.stage, state.packs = state.stage + 1, 0


def pack_stream(inputs: Inputs, model: RecModel, trie: Trie, world: World, stage: Stage, number: int) -> Iterator[Pack]:
    """The packs of one stage from its first one on."""
    traffic = inputs.recipe.traffic
    seed = inputs.recipe.seed + 1000 * number
    return stream(
        world, model.renderer, trie, traffic.shares, traffic.round_tokens, traffic.pack_tokens, seed, stage.users
    )


def fingerprints_of(inputs: Inputs, model: RecModel, base: BaseFiles) -> dict[str, str]:
    """What a training checkpoint belongs to."""
    return {
        "inputs": key(
            train=inputs.split.train.fingerprint,
            ids=model.vocab.ids.fingerprint,
            base=base.sha256,
            recipe=inputs.recipe.model_dump(mode="json", exclude=_FREE),
            encoder=fingerprint_arrays(**model.encoder.state()),
            prompts=version(tuple(names())),
        )
    }


def make_world(inputs: Inputs, model: RecModel, base: BaseFiles) -> World:
    """Everything that traffic is made from; the replay passages are a stage of their own."""
    traffic = inputs.recipe.traffic
    passages = np.zeros((0, 2), np.int64)
    if "replay" in traffic.shares:

        def sample() -> Mapping[str, np.ndarray]:
            count, length = traffic.passages, traffic.passage_tokens

            def told(done: int) -> None:
                inputs.say(f"replay: {done} of {count} passages sampled from the base model")

            return {"ids": sample_base(model, count, length, inputs.recipe.seed, progress=told)}

        fingerprint = key(base=base.sha256, n=traffic.passages, t=traffic.passage_tokens, seed=inputs.recipe.seed)
        passages = stages.stage(inputs, "replay", fingerprint, sample)["ids"]
    train_part = inputs.split.train
    histories = [train_part.of(user) for user in range(len(train_part.users))]
    vectors = [model.encoder.trajectory(rows) for rows in histories]
    return World(inputs.catalog, histories, vectors, traffic.window, traffic.user_share, passages)
