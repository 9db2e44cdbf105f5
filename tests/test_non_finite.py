"""A loss, gradient norm or weight that is not finite ends training at once; what was saved before stays good."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import HashEmbedder, make_catalog, make_interactions, make_lm, make_model, make_tokenizer
from safetensors.torch import load_file

from llmrec.data.interactions import leave_one_out
from llmrec.encoders.config import EncoderConfig
from llmrec.encoders.training import train_encoder
from llmrec.errors import TrainingError, UserError
from llmrec.finetune import pipeline, stages
from llmrec.finetune.pipeline import RunPaths, build_model
from llmrec.finetune.recipe import load_recipe
from llmrec.finetune.stages import Inputs
from llmrec.finetune.train import checkpoints, fine_tuning
from llmrec.finetune.train.loop import State, optimizer_for
from llmrec.finetune.train.non_finite import NonFiniteWatch
from llmrec.finetune.train.objective import Tally
from llmrec.lm.base_models import BaseModelFiles
from llmrec.semantic_ids import rqvae

BASE = BaseModelFiles("toy", Path("."), "0" * 64)


def toy_build(out: Path, recipe):
    tokenizer = make_tokenizer()
    loaded = (make_lm(len(tokenizer)), tokenizer)
    places = RunPaths(out / "model", out / "work")
    return build_model(
        make_catalog(), make_interactions(), recipe, BASE, loaded, HashEmbedder(), places, lambda line: None
    )


def recipe_of(**schedule):
    recipe = load_recipe("smoke")
    schedule = {"tokens": 4000, "validate_tokens": 0, **schedule}
    return recipe.model_copy(
        update={
            "schedule": replace(recipe.schedule, **schedule),
            "encoder": replace(recipe.encoder, epochs=2),
        }
    )


def saved_after_every_step(monkeypatch):
    real = fine_tuning.Hooks
    monkeypatch.setattr(fine_tuning, "Hooks", lambda **given: real(**given, save_seconds=0.0))


def poisoned(monkeypatch, at: int):
    """The `at`-th pack of a run, counted from 1, has one user vector that is not a number."""
    real = fine_tuning.pack_stream

    def stream(*given):
        for number, pack in enumerate(real(*given), 1):
            if number == at:
                pack.users[:1] = np.nan
                assert len(pack.users)
            yield pack

    monkeypatch.setattr(fine_tuning, "pack_stream", stream)


def all_finite(directory: Path) -> bool:
    tensors = [t for file in directory.glob("*.safetensors") for t in load_file(file).values()]
    return bool(tensors) and all(bool(torch.isfinite(t).all()) for t in tensors)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_poisoned_example_stops_training_at_its_step_and_the_run_can_go_on(tmp_path, monkeypatch, accumulate):
    """The step and the task are named, the checkpoint before it is sound, and from there the run ends in its bytes."""
    monkeypatch.setattr(pipeline, "_fuse", lambda inputs, scorer: ({}, {}))  # the last stage, and seconds
    recipe, at = recipe_of(accumulate=accumulate), 5
    whole = toy_build(tmp_path / "whole", recipe)
    step = (at - 1) // accumulate + 1
    with monkeypatch.context() as patch:
        saved_after_every_step(patch)
        poisoned(patch, at)
        with pytest.raises(TrainingError) as stopped:
            toy_build(tmp_path / "cut", recipe)
    said = str(stopped.value)
    assert said.startswith(f"step {step}: the loss is nan, of task") and "\n" not in said
    assert any(task in said for task in recipe.traffic.shares) and "learning rate" in said
    assert f"step-{step - 1:08d} is kept" in said and isinstance(stopped.value, UserError)
    kept = sorted((tmp_path / "cut/work/checkpoints").iterdir())
    assert kept[-1].name == f"step-{step - 1:08d}" and all(all_finite(one) for one in kept)
    assert not (tmp_path / "cut/model").exists()
    gone_on = toy_build(tmp_path / "cut", recipe)
    assert all(torch.equal(t, whole.model.added_state()[n]) for n, t in gone_on.model.added_state().items())


def test_a_learning_rate_that_is_far_too_high_stops_training(tmp_path, monkeypatch):
    saved_after_every_step(monkeypatch)
    with pytest.raises(TrainingError, match=r"step \d+.* not finite|step \d+: the (loss|gradient norm) is"):
        toy_build(tmp_path, recipe_of(lr_lora=1e30, lr_items=1e30, lr_adapter=1e30, warmup=0.0))
    assert all(all_finite(one) for one in (tmp_path / "work/checkpoints").glob("*"))


def test_a_gradient_that_is_not_finite_stops_training_before_the_weights_take_it(tmp_path, monkeypatch):
    real, models = fine_tuning.optimizer_for, []

    def hooked(model, schedule):
        models.append({n: t.clone() for n, t in model.added_state().items()})
        model.item_scale.register_hook(lambda gradient: torch.full_like(gradient, np.inf))
        models.append(model)
        return real(model, schedule)

    monkeypatch.setattr(fine_tuning, "optimizer_for", hooked)
    with pytest.raises(TrainingError, match=r"step 1: the gradient norm is (inf|nan), of tasks .*no checkpoint yet"):
        toy_build(tmp_path, recipe_of())
    before, model = models
    assert all(torch.equal(t, before[n]) for n, t in model.added_state().items())
    assert not list((tmp_path / "work/checkpoints").glob("*"))


class OnDevice:
    """A gradient norm on a GPU: asking for its value is counted, since it makes the host wait."""

    device = SimpleNamespace(type="cuda")

    def __init__(self, value):
        self.value, self.asked = value, 0

    def detach(self):
        return self

    def __float__(self):
        self.asked += 1
        return self.value


def test_a_norm_on_a_device_is_asked_for_when_the_next_step_has_waited():
    watch, norm, tally = NonFiniteWatch(), OnDevice(float("nan")), Tally({"level0": 1.0, "task/next_item": 1.0}, {})
    watch.losses(tally, 3)
    watch.norm(norm, tally, 3)
    assert norm.asked == 0 and not watch.broken
    watch.settle()
    watch.settle()
    assert norm.asked == 1 and watch.broken == "step 3: the gradient norm is nan, of task next_item"
    several = NonFiniteWatch(processes=2)
    several.norm(torch.tensor(float("inf")), tally, 4)
    assert several.broken == "step 4: the gradient norm is inf, in one of 2 processes"


def test_a_gradient_scaler_may_skip_a_step_but_no_loss_may_be_infinite():
    watch = NonFiniteWatch(scaled=True)
    watch.norm(torch.tensor(float("inf")), Tally(), 1)
    watch.norm(None, Tally(), 1)
    assert not watch.broken
    watch.losses(Tally({"text": float("inf"), "level0": 1.0}, {}), 2)
    assert watch.broken == "step 2: the loss is inf, of task replay"


def test_what_is_not_finite_is_neither_saved_nor_loaded(tmp_path, monkeypatch):
    model = make_model()
    optimizer = optimizer_for(model, load_recipe("smoke").schedule)
    for parameter in model.trainable().values():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    checkpoints.save(tmp_path, model, optimizer, State(step=1), {"inputs": "x"})
    good = {n: t.clone() for n, t in model.added_state().items()}
    with torch.no_grad():
        model.item_scale.fill_(float("nan"))
    for save in (
        lambda: checkpoints.save(tmp_path, model, optimizer, State(step=2), {"inputs": "x"}),
        lambda: checkpoints.keep_best(tmp_path, model, State(step=2), {"inputs": "x"}),
    ):
        with pytest.raises(TrainingError, match=r"step 2 is not .*item_scale is not finite"):
            save()
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    with monkeypatch.context() as patch:  # as they were saved before there was a check
        patch.setattr(checkpoints, "check_weights", lambda state, what: None)
        checkpoints.save(tmp_path, model, optimizer, State(step=2), {"inputs": "x"})
    notices, again = [], make_model(seed=4)
    assert checkpoints.resume(tmp_path, again, optimizer, {"inputs": "x"}, notices.append).step == 1
    assert "step-00000002 is passed over" in notices[0] and "not finite" in notices[0]
    assert all(torch.equal(t, good[n]) for n, t in again.added_state().items())


@pytest.mark.parametrize("kind", ["sasrec", "hstu", "bsarec"])
def test_an_encoder_that_leaves_the_numbers_is_not_kept(kind, tmp_path):
    config = EncoderConfig(kind=kind, dim=8, layers=1, heads=2, dropout=0.0, max_len=10, epochs=30, batch=16, lr=1e30)
    with pytest.raises(TrainingError, match=rf"encoder {kind}, epoch \d+, step \d+ of \d+: the .*encoder.lr is 1e\+30"):
        train_encoder(leave_one_out(make_interactions()).train, 12, config, seed=0)
    recipe = recipe_of().model_copy(update={"encoder": config})
    inputs = Inputs(make_catalog(), leave_one_out(make_interactions()), recipe, tmp_path, lambda line: None)
    with pytest.raises(TrainingError):
        stages.encoder(inputs)
    assert not (tmp_path / "encoder").exists()


def test_the_last_step_of_an_encoder_is_looked_at_too():
    """One step in all: no later loss would show what it did to the weights."""
    config = EncoderConfig(dim=8, layers=1, heads=2, dropout=0.0, max_len=10, epochs=1, batch=1000, lr=float("inf"))
    with pytest.raises(TrainingError, match="a weight is not finite"):
        train_encoder(leave_one_out(make_interactions()).train, 12, config, seed=0)


@pytest.mark.parametrize("epochs", [1, 20])
def test_an_rqvae_that_leaves_the_numbers_gives_no_codes(epochs):
    vectors = np.random.default_rng(0).normal(size=(12, 6))
    with pytest.raises(TrainingError, match=r"RQ-VAE epoch \d+: (the loss|a weight) is not finite.*kmeans"):
        rqvae.fit(vectors, 2, 4, 0, rqvae.RqVaeConfig(hidden=(8,), latent=4, epochs=epochs, lr=float("1e30")))
