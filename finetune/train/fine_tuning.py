"""The fine-tuning stage: task context, stream of packs, checkpoints and validation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from llmrec.errors import Interrupted, TrainingError
from llmrec.finetune import stages
from llmrec.finetune.data.context import TaskContext
from llmrec.finetune.data.packing import Pack, pack_stream
from llmrec.finetune.data.replay import sample_passages
from llmrec.finetune.stages import Inputs, settings_hash
from llmrec.finetune.train import checkpoints
from llmrec.finetune.train.engine import accelerator_for, checkpoint_activations
from llmrec.finetune.train.fused_lora import fused_lora
from llmrec.finetune.train.interrupts import catch_interrupts
from llmrec.finetune.train.loop import Hooks, Schedule, Stage, State, optimizer_for, train
from llmrec.finetune.train.metrics_log import MetricsLog
from llmrec.finetune.train.objective import Objective
from llmrec.finetune.train.packed_attention import NAME, packed_attention
from llmrec.finetune.train.trackers import NO_TRACKERS, Trackers
from llmrec.finetune.train.validation import Validation
from llmrec.lm.base_models import BaseModelFiles
from llmrec.lm.model import RecModel
from llmrec.lm.prompts import template_names, templates_hash
from llmrec.progress import Counter, counted
from llmrec.semantic_ids.trie import Trie
from llmrec.storage.artifacts import fingerprint_arrays

# settings that do not change what a step computes: checkpoints stay valid if they change
_FREE: Any = {
    "neighbours": True,
    "profile": True,
    "engine": True,
    "schedule": {"validate_tokens", "validate_users", "patience"},
}


def fine_tune(
    inputs: Inputs,
    model: RecModel,
    trie: Trie,
    base: BaseModelFiles,
    resume: bool,
    trackers: Trackers = NO_TRACKERS,
    accelerator: Accelerator | None = None,
    vectors: Sequence[np.ndarray] | None = None,
) -> State:
    """Fine-tune from the newest intact checkpoint of this run, or from the start.

    `trackers` must be those that the accelerator was made with. `vectors` holds for each user float32[t, d], one vector
    after each train item; None takes those of the model's own encoder.

    Raises:
        Interrupted: the run was asked to stop; a checkpoint was written.
        TrainingError: a loss is not finite; earlier checkpoints are left as they are.
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
        if schedule.tokens < schedule.validate_tokens:
            inputs.say(f"fine-tuning: {single_validation_note(schedule)}")
        log = trackers.start(accelerator, inputs.recipe.model_dump(mode="json"), inputs.work)
        journal = MetricsLog(inputs.work / "metrics.jsonl", schedule.tokens, inputs.say, log)
        try:
            _run(_Job(inputs, model, trie, base, optimizer, state, fingerprints, journal, accelerator, vectors))
        except TrainingError as error:
            kept = checkpoints.newest(root)
            raise TrainingError(f"{error} ({f'{kept} is kept' if kept else 'no checkpoint yet'})") from None
    if schedule.patience and state.best_step >= 0:
        inputs.say(f"fine-tuning: the weights of step {state.best_step} are kept (ndcg@10 {state.best:.4f})")
        checkpoints.load_best(root, model, state, fingerprints)
    return state


def single_validation_note(schedule: Schedule) -> str:
    """Return the note about a run that is shorter than its own `validate_tokens`."""
    return (
        f"schedule.tokens {schedule.tokens:,} is less than schedule.validate_tokens {schedule.validate_tokens:,}: "
        "validated once, at the end"
    )


@dataclass(frozen=True, eq=False)
class _Job:
    """Everything that one run of the training loop needs."""

    inputs: Inputs
    model: RecModel
    trie: Trie
    base: BaseModelFiles
    optimizer: torch.optim.Optimizer
    state: State
    fingerprints: Mapping[str, str]
    journal: MetricsLog
    accelerator: Accelerator
    vectors: Sequence[np.ndarray] | None

    def hooks(self, interrupted: Callable[[], bool]) -> Hooks:
        """Return the hooks of the loop.

        Only the main process writes files. Validation runs in every process, with the same result in each.
        """
        root, main = self.inputs.work / "checkpoints", self.accelerator.is_main_process
        validation = Validation(self.inputs, self.model, self.trie)

        def validate(now: State) -> float:
            with self.accelerator.autocast():
                value = validation()
            if main:
                self.journal.validation(now, value)
            return value

        def save(now: State) -> None:
            if main:
                checkpoints.save(root, self.model, self.optimizer, now, self.fingerprints)
            self.accelerator.wait_for_everyone()

        def keep(now: State) -> None:
            if main:
                checkpoints.keep_best(root, self.model, now, self.fingerprints)

        def report(now: State, means: Mapping[str, float]) -> None:
            if main:
                self.journal.losses(now, means)

        schedule = self.inputs.recipe.schedule
        counter = Counter(self.inputs.say, "fine-tuning", schedule.tokens, self.state.tokens, "tokens")

        def stepped(now: State) -> None:
            counter.at(min(now.tokens, schedule.tokens))

        return Hooks(save=save, report=report, stepped=stepped, validate=validate, keep=keep, interrupted=interrupted)


def _run(job: _Job) -> None:
    """Run the remaining stages until the end, an early stop or an interruption."""
    inputs, model, state = job.inputs, job.model, job.state
    schedule, engine = inputs.recipe.schedule, inputs.recipe.engine
    with job.accelerator.main_process_first(), job.accelerator.autocast():
        context = make_task_context(inputs, model, job.base, job.vectors)
    if job.accelerator.is_main_process:
        job.journal.resume(state)
    if engine.gradient_checkpointing:
        checkpoint_activations(model.lm)
    inputs.say(f"fine-tuning: products with frozen weights in {engine.format}")
    with ExitStack() as stack:
        stack.enter_context(packed_attention(model, NAME if engine.attention == "varlen" else engine.attention))
        stack.enter_context(fused_lora(model, engine.format))
        hooks = job.hooks(stack.enter_context(catch_interrupts(inputs.say)))
        while True:
            stage = schedule.stages()[state.stage]
            packs = islice(stage_packs(inputs, model, job.trie, context, stage, state.stage), state.packs, None)
            train(Objective(model, schedule.kl), packs, schedule, job.optimizer, state, hooks, job.accelerator)
            if hooks.interrupted():
                raise Interrupted(f"stopped at step {state.step}; the same command goes on from there")
            if state.tokens >= schedule.tokens or state.stopped:
                break
            state.stage, state.packs = state.stage + 1, 0


def stage_packs(
    inputs: Inputs, model: RecModel, trie: Trie, context: TaskContext, stage: Stage, number: int
) -> Iterator[Pack]:
    """Yield the packs of one stage, starting with its first."""
    traffic = inputs.recipe.traffic
    seed = inputs.recipe.seed + 1000 * number
    return pack_stream(
        context, model.renderer, trie, traffic.shares, traffic.round_tokens, traffic.pack_tokens, seed, stage.users
    )


def fingerprints_of(inputs: Inputs, model: RecModel, base: BaseModelFiles) -> dict[str, str]:
    """Return the fingerprints that identify the run that a training checkpoint belongs to."""
    return {
        "inputs": settings_hash(
            train=inputs.split.train.fingerprint,
            ids=model.vocab.ids.fingerprint,
            base=base.sha256,
            recipe=inputs.recipe.model_dump(mode="json", exclude=_FREE),
            encoder=fingerprint_arrays(**model.encoder.state()),
            prompts=templates_hash(tuple(template_names())),
        )
    }


def make_task_context(
    inputs: Inputs, model: RecModel, base: BaseModelFiles, vectors: Sequence[np.ndarray] | None = None
) -> TaskContext:
    """Build the task context; replay passages are a stage of their own, and `vectors` is as in `fine_tune`."""
    traffic = inputs.recipe.traffic
    passages = np.zeros((0, 2), np.int64)
    if "replay" in traffic.shares:

        def sample() -> Mapping[str, np.ndarray]:
            count, length = traffic.passages, traffic.passage_tokens
            inputs.say(f"replay: {count} passages of {length} tokens are sampled from the base model")
            return {"ids": sample_passages(model, count, length, inputs.recipe.seed, say=inputs.say)}

        fingerprint = settings_hash(
            base=base.sha256,
            n=traffic.passages,
            t=traffic.passage_tokens,
            seed=inputs.recipe.seed,
            prompts=templates_hash(("everyday",)),
        )
        passages = stages.run_stage(inputs, "replay", fingerprint, sample)["ids"]
    train_part = inputs.split.train
    histories = [train_part.rows_of(user) for user in range(len(train_part.users))]
    if vectors is None:
        seen = counted(histories, "user vectors", inputs.say, "users")
        vectors = [model.encoder.trajectory(rows) for rows in seen]
    return TaskContext(inputs.catalog, histories, vectors, traffic.window, traffic.user_share, passages)
