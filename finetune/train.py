"""Data and a recipe in, a model directory out: all stages in order, each skipped when its artifact is already there."""

from __future__ import annotations

import time
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from llmrec import datasets
from llmrec.artifacts import fingerprint_arrays
from llmrec.catalog import Catalog
from llmrec.embed import Embedder, MiniLM
from llmrec.errors import RecipeError
from llmrec.finetune import checkpoints, stages
from llmrec.finetune.build import stream
from llmrec.finetune.card import model_card
from llmrec.finetune.fusing import fit_fusions
from llmrec.finetune.recipe import Recipe, load_recipe
from llmrec.finetune.sft import State, optimizer_for, train
from llmrec.finetune.stages import Inputs, key
from llmrec.finetune.tasks import World
from llmrec.finetune.text import sample_base
from llmrec.interactions import Interactions, leave_one_out
from llmrec.model import RecModel
from llmrec.neighbours import neighbours_of
from llmrec.pretrained import Pretrained, save_pretrained
from llmrec.scoring import Scorer
from llmrec.semid import SemanticIds, whitening
from llmrec.sequence import SequenceEncoder
from llmrec.trie import Trie, log_mass
from llmrec.weights import BaseFiles, base_model, load_base


def run(
    data_dir: str | Path, recipe_path: str | Path, out_dir: Path, resume: bool = True, work: Path | None = None
) -> None:
    """Train a model directory from prepared data. Without `resume`, earlier fine-tuning checkpoints are ignored.

    Raises:
        UserError: anything wrong with data, recipe, weights or artifacts, before any training starts.
    """
    recipe = load_recipe(recipe_path)
    catalog, interactions = datasets.open_data(data_dir)
    console = Console(stderr=True)
    start = time.monotonic()

    def say(line: str) -> None:
        console.print(f"[{time.monotonic() - start:6.0f} s] {line}", highlight=False, markup=False)

    work = Path(work) if work else Path(out_dir).with_name(Path(out_dir).name + ".work")
    base = base_model(recipe.base)
    if recipe.embedder != MiniLM.name:
        raise RecipeError(f"no embedder '{recipe.embedder}'; there is: {MiniLM.name}")
    name = datasets.short_name(data_dir)
    loaded = load_base(base)
    build(catalog, interactions, recipe, base, loaded, MiniLM.load(), Path(out_dir), work, say, resume, name)


def build(
    catalog: Catalog,
    interactions: Interactions,
    recipe: Recipe,
    base: BaseFiles,
    loaded_base: tuple[Any, Any],
    embedder: Embedder,
    out: Path,
    work: Path,
    say: stages.Say,
    resume: bool = True,
    data: str = "",
) -> Pretrained:
    """All stages on loaded inputs; the language model and embedder are arguments so that tests bring tiny ones."""
    split = leave_one_out(interactions)
    inputs = Inputs(catalog, split, recipe, work, say)
    trained = stages.encoder(inputs)
    prior = log_mass(split.train.row, len(catalog))
    text = stages.text_vectors(inputs, embedder)
    ids = stages.semantic_ids(inputs, text, trained)
    model = fresh_model(recipe, loaded_base, ids, trained)
    trie = Trie(ids.codes, ids.size, prior)
    state = fine_tune(inputs, model, trie, base, resume)
    model.merge()
    neighbours = neighbours_of(split.train, len(catalog), recipe.neighbours)
    scorer = Scorer(model, trie, text, neighbours, embedder, catalog.domain, recipe.traffic.window)
    weights, gains = fit_fusions(inputs, scorer)
    meta = {
        "recipe": recipe.model_dump(mode="json"),
        "train_fingerprint": split.train.fingerprint,
        "tokens": state.tokens,
        "steps": state.step,
        "seconds": round(state.seconds),
        "semantic_ids": ids.statistics(),
        "fusion_gain_nats": gains,
    }
    settings = {"window": recipe.traffic.window, "embedder": recipe.embedder, "data": data}
    for layer in model.lora_layers():
        layer.unmerge()
    result = Pretrained(model, prior, neighbours, weights, settings, meta)
    save_pretrained(out, result, catalog, base, model_card(result, catalog, base))
    say(f"saved {out}")
    return result


def fresh_model(recipe: Recipe, loaded_base: tuple[Any, Any], ids: SemanticIds, trained: SequenceEncoder) -> RecModel:
    """The bundle before training, its new parts started from the code book."""
    torch.manual_seed(recipe.seed)  # peft draws LoRA's A matrices, torch the adapter's
    model = RecModel(*loaded_base, ids, trained, recipe.model)
    model.start_embeddings(whitening(trained.item_vectors, trained.config.dim), recipe.seed)
    return model


def fine_tune(inputs: Inputs, model: RecModel, trie: Trie, base: BaseFiles, resume: bool) -> State:
    """Fine-tune from the newest sound checkpoint of this very run, or from the start."""
    recipe, split = inputs.recipe, inputs.split
    fingerprints = {
        "inputs": key(
            train=split.train.fingerprint,
            ids=model.vocab.ids.fingerprint,
            base=base.sha256,
            recipe=recipe.model_dump(mode="json", exclude={"neighbours"}),
            encoder=fingerprint_arrays(**model.encoder.state()),
        )
    }
    optimizer = optimizer_for(model, recipe.schedule)
    root = inputs.work / "checkpoints"
    state = checkpoints.resume(root, model, optimizer, fingerprints, inputs.say) if resume else State()
    if state.tokens >= recipe.schedule.tokens:
        inputs.say("fine-tuning: already there")
        return state
    traffic = recipe.traffic
    world = make_world(inputs, model, base)
    batches = stream(
        world, model.renderer, trie, traffic.shares, traffic.round_tokens, traffic.batch_tokens, recipe.seed
    )
    schedule = recipe.schedule

    def report(now: State, losses: Mapping[str, float]) -> None:
        rate = now.tokens / max(now.seconds, 1e-9)
        left = (schedule.tokens - now.tokens) / max(rate, 1e-9) / 60
        words = "  ".join(f"{name} {loss:.3f}" for name, loss in sorted(losses.items()))
        inputs.say(f"step {now.step}  {words}  {rate:.0f} tokens/s  {left:.0f} min left")

    return train(
        model,
        islice(batches, state.batches, None),
        schedule,
        optimizer,
        state,
        lambda now: checkpoints.save(root, model, optimizer, now, fingerprints),
        report,
    )


def make_world(inputs: Inputs, model: RecModel, base: BaseFiles) -> World:
    """Everything that traffic is made from; the replay passages are a stage of their own."""
    traffic = inputs.recipe.traffic
    passages = np.zeros((0, 2), np.int64)
    if "replay" in traffic.shares:

        def sample() -> Mapping[str, np.ndarray]:
            inputs.say(f"replay: sampling {traffic.passages} passages from the base model")
            return {"ids": sample_base(model, traffic.passages, traffic.passage_tokens, inputs.recipe.seed)}

        fingerprint = key(base=base.sha256, n=traffic.passages, t=traffic.passage_tokens, seed=inputs.recipe.seed)
        passages = stages.stage(inputs, "replay", fingerprint, sample)["ids"]
    train_part = inputs.split.train
    histories = [train_part.of(user) for user in range(len(train_part.users))]
    vectors = [model.encoder.trajectory(rows) for rows in histories]
    return World(inputs.catalog, histories, vectors, traffic.window, traffic.user_share, passages)
