"""Settings on the command line, the lists of recipes, trackers, and the validation of short runs."""

import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from accelerate import tracking
from conftest import make_model
from test_training import QUIET, trie_of, world_of
from typer.testing import CliRunner

from llmrec.app.cli.main import app
from llmrec.errors import RecipeError
from llmrec.finetune import pipeline, recipe_overrides
from llmrec.finetune.data.packing import pack_stream
from llmrec.finetune.data.tasks import TASKS
from llmrec.finetune.recipe import EngineSettings, Recipe, load_recipe
from llmrec.finetune.recipe_files import RECIPES, recipe_names, recipe_purposes
from llmrec.finetune.train import fine_tuning
from llmrec.finetune.train.engine import accelerator_for
from llmrec.finetune.train.fused_lora import fused_lora
from llmrec.finetune.train.loop import Schedule, State, optimizer_for, train
from llmrec.finetune.train.metrics_log import MetricsLog
from llmrec.finetune.train.objective import Objective
from llmrec.finetune.train.packed_attention import packed_attention
from llmrec.finetune.train.trackers import NO_TRACKERS, Trackers

KEYS = dict(recipe_overrides._keys(Recipe.model_json_schema(), Recipe.model_json_schema()["$defs"]))


def at(values, key):
    """The value of a dotted key; None where defaults are not written out."""
    for part in key.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values


@pytest.mark.parametrize("name", recipe_names())
def test_every_setting_can_be_set_to_what_it_is(name):
    """Each key takes its own value back, read by its type; so no key is missing and none is read wrongly."""
    plain = load_recipe(name)
    values = plain.model_dump(mode="json")
    set_ = [f"{key}={at(values, key) if KEYS[key] else json.dumps(at(values, key))}" for key in KEYS
            if at(values, key) is not None]  # fmt: skip
    assert len(set_) > 55 and {"schedule.tokens", "encoder.lr", "engine.attention", "base"} <= set(KEYS)
    assert load_recipe(name, set_) == plain
    every = load_recipe(name, [f"traffic.shares.{task}=0.25" for task in TASKS])
    assert every.traffic.shares == dict.fromkeys(TASKS, 0.25) or set(every.traffic.shares) == set(TASKS)


def test_settings_win_over_the_file_and_the_last_one_counts():
    changed = load_recipe("smoke", ["schedule.tokens=10", "schedule.tokens=120000", "encoder.distance=true",
                                    "engine.products=bfloat16", "encoder.lr=1e-3", "traffic.shares.replay=0",
                                    "traffic.shares={next_item: 1}", "traffic.shares.talk=2"])  # fmt: skip
    plain = load_recipe("smoke")
    assert changed.schedule == replace(plain.schedule, tokens=120_000)
    assert (changed.encoder.distance, changed.encoder.lr, changed.engine.products) == (True, 1e-3, "bfloat16")
    assert changed.traffic.shares == {"next_item": 1.0, "talk": 2.0}
    assert changed.semantic_ids == plain.semantic_ids and changed.neighbours == plain.neighbours


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("schedule.tokens", "--set 'schedule.tokens' should be key=value, such as schedule.tokens=120000"),
        ("schedule.token=1", "a recipe has no key 'schedule.token'; the closest: schedule.tokens"),
        ("tokens=1", "a recipe has no key 'tokens'; the closest: schedule.tokens"),
        ("encoder.lora_rank=1", "the closest: model.lora_rank"),
        ("xyzzy=1", "llmrec recipe show NAME prints them all"),
        ("schedule=1", "schedule is a section; set one of its keys: schedule.tokens, "),
        ("traffic.shares.next_itme=1", "the closest: traffic.shares.next_item"),
        ("schedule.tokens=many", "--set schedule.tokens=many: 'schedule.tokens': Input should be a valid integer"),
        ("schedule.tokens=0", "--set schedule.tokens=0: '': schedule.tokens is 0; it must lie between 1 and"),
        ("engine.products=int4", "--set engine.products=int4: 'engine.products': Input should be 'float32', "),
        ("traffic.shares=[", "'[' is not YAML"),
        ("model.lora_rank=", "--set model.lora_rank=: 'model.lora_rank': Input should be a valid integer"),
    ],
)
def test_a_wrong_setting_is_one_clear_line(change, words):
    with pytest.raises(RecipeError) as error:
        load_recipe("smoke", ["seed=1", change])
    assert words in str(error.value) and "\n" not in str(error.value)


def test_settings_are_in_the_plan_and_in_what_is_trained(tmp_path, monkeypatch):
    from toy_files import saved

    _, data = saved(tmp_path)
    trained = []
    monkeypatch.setattr(pipeline, "find_base_model", lambda name: SimpleNamespace(config=None, tokenizer=None))
    monkeypatch.setattr(pipeline.preflight, "check_run", lambda *given: None)
    monkeypatch.setattr(pipeline, "fetch_base_model", lambda name: None)
    monkeypatch.setattr(pipeline, "load_for_training", lambda *given: None)
    monkeypatch.setattr(pipeline.MiniLM, "load", lambda: None)
    monkeypatch.setattr(pipeline, "build_model", lambda *given: trained.append(given))
    words = ["train", str(data), "--recipe", "smoke", "--out", str(tmp_path / "out"), "--set", "schedule.tokens=1234"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.exception
    assert trained[0][2] == load_recipe("smoke", ["schedule.tokens=1234"])  # kept in the model
    asked = {}
    monkeypatch.setattr(
        "llmrec.finetune.plan.dry_run.training_plan", lambda recipe, *given: asked.update(recipe=recipe) or {}
    )
    monkeypatch.setattr("llmrec.finetune.plan.dry_run.find_base_model", lambda name: None)
    planned = CliRunner().invoke(app, [*words, "--dry-run", "--json"])
    assert json.loads(planned.stdout) == {"recipe": {"name": "smoke", "set": {"schedule.tokens": "1234"}}}
    assert asked["recipe"].schedule.tokens == 1234


def test_recipes_are_listed_and_shown(tmp_path):
    listed = CliRunner().invoke(app, ["recipe", "list"]).output.splitlines()
    assert [line.split(": ", 1)[0] for line in listed] == recipe_names() and all(len(line) > 40 for line in listed)
    found = json.loads(CliRunner().invoke(app, ["recipe", "list", "--json"]).output)["recipes"]
    assert {one["name"]: one["purpose"] for one in found} == recipe_purposes()
    assert all(what.endswith(".") and (RECIPES / f"{name}.yaml").is_file() for name, what in recipe_purposes().items())
    shown = CliRunner().invoke(app, ["recipe", "show", "smoke", "--set", "seed=7"]).output
    assert shown.startswith(f"# {recipe_purposes()['smoke']}\n")
    (tmp_path / "again.yaml").write_text(shown)
    assert load_recipe(tmp_path / "again.yaml") == load_recipe("smoke", ["seed=7"])
    assert "patience: 0" in shown  # a default that the file leaves out
    value = json.loads(CliRunner().invoke(app, ["recipe", "show", "smoke", "--json"]).output)
    assert (
        Recipe.model_validate(value["recipe"]) == load_recipe("smoke")
        and value["purpose"] == recipe_purposes()["smoke"]
    )
    wrong = CliRunner().invoke(app, ["recipe", "show", "nope"])
    assert isinstance(wrong.exception, RecipeError) and "smoke" in str(wrong.exception)
    assert yaml.safe_load(shown)["schedule"]["tokens"] == 80_000


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (
            {"tensorboard": Path("board")},
            "TensorBoard is not installed: pip install tensorboard, or leave --tensorboard",
        ),
        ({"wandb": "films"}, "Weights & Biases is not installed: pip install wandb, or leave --wandb out"),
    ],
)
def test_a_wish_for_a_tracker_without_it_is_one_clear_line(wanted, words, tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "_available_trackers", [])
    monkeypatch.setattr(pipeline, "open_data", None)  # it is known before any data is opened
    with pytest.raises(RecipeError, match=words):
        pipeline.train_model("no-data", "smoke", tmp_path / "out", **wanted)
    assert not list(tmp_path.iterdir())


class FakeRun:
    """What `wandb.init` gives: notes what it is told."""

    def __init__(self, **given):
        self.given, self.logged, self.config = given, [], {}

    def log(self, values, step):
        self.logged.append((step, values))

    def finish(self):
        self.logged.append("finished")


class FakeWriter(FakeRun):
    """What TensorBoard writes with."""

    def __init__(self, where, **given):
        super().__init__(where=where, **given)

    def add_hparams(self, values, metric_dict):
        self.config = values

    def add_scalar(self, name, value, global_step):
        self.log({name: value}, global_step)

    def flush(self):
        pass

    close = FakeRun.finish


def test_trackers_are_told_what_the_journal_is_told(tmp_path, monkeypatch):
    """Through accelerate's own trackers, on stand-ins of the two packages."""
    runs: list[FakeRun] = []

    def made(kind, *given, **named):
        runs.append(kind(*given, **named))
        return runs[-1]

    config = SimpleNamespace(update=lambda values, allow_val_change: runs[-1].config.update(values))
    wandb = SimpleNamespace(init=partial(made, FakeRun), config=config)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    written = SimpleNamespace(SummaryWriter=partial(made, FakeWriter))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", written)
    monkeypatch.setattr(torch.utils, "tensorboard", written, raising=False)
    kinds = [tracking.LoggerType.TENSORBOARD, tracking.LoggerType.WANDB]
    monkeypatch.setattr(tracking, "_available_trackers", kinds)
    monkeypatch.setenv("LLMREC_OFFLINE", "1")
    trackers = Trackers(tmp_path / "board", "films", "my-model")
    trackers.check()
    accelerator = accelerator_for(EngineSettings(), trackers=trackers)
    recipe = load_recipe("smoke", ["schedule.tokens=1234"]).model_dump(mode="json")
    log = trackers.start(accelerator, recipe, tmp_path / "work")
    journal = MetricsLog(tmp_path / "m.jsonl", 100, lambda line: None, log)
    journal.losses(State(step=10, tokens=500, seconds=1.0), {"level0": 2.0})
    journal.validation(State(step=10, tokens=500, best=0.1), 0.2)
    accelerator.end_training()
    board, project = runs
    assert board.given["where"] == str(tmp_path / "board" / "my-model" / "films")
    assert project.given == {"project": "films", "name": "my-model", "dir": str(tmp_path / "work"), "mode": "offline"}
    for one in (board, project):
        assert one.config["schedule.tokens"] == 1234 and one.config["traffic.shares.next_item"] == 0.45
        told = [(step, name, value) for step, values in one.logged[:-1] for name, value in values.items()]
        assert told == [(10, "level0", 2.0), (10, "tokens", 500), (10, "ndcg10", 0.2), (10, "tokens", 500)]
    assert project.logged[-1] == "finished"
    monkeypatch.delenv("LLMREC_OFFLINE")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    accelerator = accelerator_for(EngineSettings(), trackers=Trackers(wandb="films"))
    Trackers(wandb="films").start(accelerator, {}, tmp_path)
    assert "mode" not in runs[-1].given  # asked for: its own settings decide
    assert NO_TRACKERS.start(accelerator, recipe, tmp_path) is None


@pytest.mark.parametrize(
    ("every", "tokens", "at"), [(400, 1000, [400, 800]), (1000, 1000, [1000]), (5000, 1000, [1000]), (0, 1000, [])]
)
def test_a_short_run_is_validated_once_at_its_end(every, tokens, at):
    model, seen = make_model(), []
    schedule = Schedule(tokens=tokens, validate_tokens=every)
    hooks = replace(QUIET, validate=lambda state: seen.append(state.tokens) or 0.5)
    with packed_attention(model), fused_lora(model):
        packs_ = pack_stream(world_of(model), model.renderer, trie_of(model), {"next_item": 1.0}, 3000, 100, 0)
        train(Objective(model, 1.0), packs_, schedule, optimizer_for(model, schedule), State(), hooks)
    assert len(seen) == len(at) and all(0 <= found - wanted < 150 for found, wanted in zip(seen, at, strict=True))


def test_a_short_run_says_that_it_is_validated_at_its_end():
    said = fine_tuning.single_validation_note(Schedule(tokens=120_000, validate_tokens=400_000))
    assert said == ("schedule.tokens 120,000 is less than schedule.validate_tokens 400,000: validated once, at the end")
