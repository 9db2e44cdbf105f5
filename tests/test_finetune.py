"""Training on the toy world: it learns the known answer, leaks nothing, resumes to the bit, saves all or nothing."""

import shutil
from contextlib import nullcontext
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import HashEmbedder, make_catalog, make_interactions, make_lm, make_model, make_tokenizer

from llmrec.data.interactions import Interactions, fusion_users, leave_one_out, model_selection_users
from llmrec.errors import ArtifactError, RecipeError
from llmrec.eval.retention.instruction_following import own_instructions
from llmrec.finetune.data.context import TaskContext
from llmrec.finetune.data.packing import pack_stream
from llmrec.finetune.data.replay import open_chats, sample_passages
from llmrec.finetune.data.tasks import TASKS
from llmrec.finetune.pipeline import RunPaths, build_model
from llmrec.finetune.recipe import EngineSettings, Recipe, load_recipe
from llmrec.finetune.train import checkpoints
from llmrec.finetune.train.loop import State, optimizer_for
from llmrec.lm.base_models import BaseModelFiles
from llmrec.lm.prompts import load_template
from llmrec.lm.rendering import Rendered
from llmrec.semantic_ids.trie import Trie
from llmrec.storage.artifacts import read_manifest

BASE = BaseModelFiles("toy", Path("."), "0" * 64)


def run(out: Path, interactions: Interactions, recipe: Recipe, say=lambda line: None, resume=True):
    tokenizer = make_tokenizer()
    loaded = (make_lm(len(tokenizer)), tokenizer)
    places = RunPaths(out / "model", out / "work")
    return build_model(make_catalog(), interactions, recipe, BASE, loaded, HashEmbedder(), places, say, resume)


def short(tokens: int) -> Recipe:
    recipe = load_recipe("smoke")
    return recipe.model_copy(update={"schedule": replace(recipe.schedule, tokens=tokens)})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The smoke recipe, whole: some ten seconds."""
    out = tmp_path_factory.mktemp("trained")
    return out, run(out, make_interactions(), load_recipe("smoke"))


def world_of(model, interactions=None) -> TaskContext:
    split = leave_one_out(interactions or make_interactions())
    histories = [split.train.rows_of(u) for u in range(len(split.train.users))]
    passages = np.zeros((2, 8), np.int64)
    return TaskContext(make_catalog(), histories, [model.encoder.trajectory(h) for h in histories], 10, 0.5, passages)


def test_the_language_model_alone_learns_the_known_successor(trained):
    from llmrec.ranking.scorer import Scorer

    model = trained[1].model
    ids = model.vocab.ids
    scorer = Scorer(
        model,
        Trie(ids.codes, ids.size, trained[1].prior),
        np.eye(12, dtype=np.float32),
        trained[1].neighbours,
        None,
        "films",
        10,
    )
    histories = [np.array([s, (s + 2) % 12, (s + 4) % 12]) for s in range(12)]
    best = scorer.llm(histories, [""] * 12).argmax(axis=1)
    assert (best == (np.arange(12) + 6) % 12).mean() >= 0.6  # chance: 1 in 12


@pytest.mark.parametrize("fails", [False, True])
def test_the_fusion_is_fitted_on_merged_weights_that_are_taken_out_again(trained, monkeypatch, fails):
    from llmrec.finetune import pipeline

    model, seen = trained[1].model, []
    scorer = SimpleNamespace(model=model)
    inputs = SimpleNamespace(recipe=SimpleNamespace(engine=EngineSettings(products="bfloat16")))
    held = [layer.base_layer.weight.detach().clone() for layer in model.lora_layers()]

    def fit(inputs, scorer):
        seen.append((scorer.model.matmul_dtype, all(layer.merged for layer in model.lora_layers())))
        if fails:
            raise KeyboardInterrupt
        return {}, {}

    monkeypatch.setattr(pipeline, "fit_fusions", fit)
    with pytest.raises(KeyboardInterrupt) if fails else nullcontext():
        pipeline._fuse(inputs, scorer)
    assert seen == [("bfloat16", True)] and model.matmul_dtype == "float32"
    for layer, before in zip(model.lora_layers(), held, strict=True):
        assert not layer.merged
        torch.testing.assert_close(layer.base_layer.weight, before, atol=1e-6, rtol=1e-5)
        layer.base_layer.weight.data.copy_(before)  # what rounding left would reach other tests


def test_every_added_parameter_moved_and_the_base_did_not(trained):
    from llmrec.finetune.pipeline import fresh_model

    tokenizer = make_tokenizer()
    model = trained[1].model
    fresh = fresh_model(load_recipe("smoke"), (make_lm(len(tokenizer)), tokenizer), model.vocab.ids, model.encoder)
    for name, tensor in fresh.added_state().items():
        assert not torch.equal(tensor, model.added_state()[name]), f"{name} did not move"
    torch.testing.assert_close(model.word_embedding.weight, fresh.word_embedding.weight)


def test_no_held_out_interaction_changes_a_byte_of_what_is_trained(tmp_path):
    """Promise 6: other test items, the same vectors, codes, traffic and weights."""
    a = make_interactions()
    rows = a.row.copy()
    last = a.offsets[1:] - 1
    rows[last] = (rows[last] + 1) % 12
    b = Interactions(a.users, a.user, rows, a.time, a.value)
    recipe = short(3000)
    one, two = run(tmp_path / "a", a, recipe), run(tmp_path / "b", b, recipe)
    assert all(torch.equal(t, two.model.added_state()[n]) for n, t in one.model.added_state().items())
    assert (one.model.vocab.ids.codes == two.model.vocab.ids.codes).all()
    assert all((t == two.model.encoder.state()[n]).all() for n, t in one.model.encoder.state().items())
    assert one.fusions == two.fusions


def test_validation_items_of_fusing_users_reach_nothing_but_the_fusion(tmp_path):
    a = make_interactions()
    split = leave_one_out(a)
    rows = a.row.copy()
    place = a.offsets[1:][fusion_users(split)] - 2
    rows[place] = (rows[place] + 2) % 12
    b = Interactions(a.users, a.user, rows, a.time, a.value)
    recipe = short(2000)
    one, two = run(tmp_path / "a", a, recipe), run(tmp_path / "b", b, recipe)
    assert all(torch.equal(t, two.model.added_state()[n]) for n, t in one.model.added_state().items())
    assert one.fusions != two.fusions
    assert not set(model_selection_users(split)) & set(fusion_users(split))


@pytest.mark.parametrize("task", sorted(TASKS))
def test_each_task_trains_something_and_only_from_train(task):
    model = make_model()
    world = world_of(model)
    for example in islice(TASKS[task](world, np.random.default_rng(0)), 20):
        rendered = example if isinstance(example, Rendered) else model.renderer.render(example)
        assert rendered.loss.any() and not rendered.loss[0]
    a = [_ids(model, e) for e in islice(TASKS[task](world, np.random.default_rng(1)), 10)]
    b = [_ids(model, e) for e in islice(TASKS[task](world, np.random.default_rng(1)), 10)]
    assert a == b


def _ids(model, example):
    return (example if isinstance(example, Rendered) else model.renderer.render(example)).ids.tolist()


def test_packed_histories_train_every_position_once_a_pass():
    model = make_model()
    world = world_of(model)
    want = sorted(int(r) for h in world.histories for r in h[1:])
    got, tasks = [], TASKS["next_item"](world, np.random.default_rng(0))
    while len(got) < len(want):
        rendered = model.renderer.render(next(tasks))
        paths = rendered.ids[rendered.loss].reshape(-1, 2)
        got += [model.vocab.row(tuple(p)) for p in paths]
    assert sorted(got) == want


def test_a_torn_newest_checkpoint_is_passed_over_with_a_message(tmp_path):
    model = make_model()
    optimizer = optimizer_for(model, load_recipe("smoke").schedule)
    for parameter in model.trainable().values():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    prints = {"inputs": "x"}
    for step in (1, 2):
        checkpoints.save(tmp_path, model, optimizer, State(step=step, packs=step, tokens=step * 10), prints)
    weights = tmp_path / "step-00000002" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-7])
    notices = []
    state = checkpoints.resume(tmp_path, make_model(), optimizer, prints, notices.append)
    assert state.step == 1 and "step-00000002 is passed over" in notices[0]
    notices.clear()
    assert checkpoints.resume(tmp_path, make_model(), optimizer, {"inputs": "y"}, notices.append).step == 0
    assert "another recipe or other data" in notices[-1]


def test_a_saved_model_loads_and_wrong_pairs_refuse(trained, tmp_path, monkeypatch):
    """Promises 9 and 10: another catalogue, base, template set, codebook, or one flipped byte."""
    import llmrec.checkpoint.pretrained as module

    out, result = trained
    tokenizer = make_tokenizer()
    monkeypatch.setattr(module, "base_model", lambda name, progress=True: BASE)
    monkeypatch.setattr(module, "load_base", lambda files: (make_lm(len(tokenizer)), tokenizer))
    loaded = module.load_pretrained(out / "model", make_catalog())
    assert loaded.fusions == result.fusions and loaded.settings["window"] == 10
    for name, tensor in result.model.added_state().items():
        torch.testing.assert_close(loaded.model.added_state()[name], tensor, atol=2e-3, rtol=2e-3)
    with pytest.raises(ArtifactError, match=r"another catalogue.*[0-9a-f]{12}.*[0-9a-f]{12}"):
        module.load_pretrained(out / "model", make_catalog(11))
    monkeypatch.setattr(module, "base_model", lambda name, progress=True: BaseModelFiles("toy", Path("."), "1" * 64))
    with pytest.raises(ArtifactError, match="another base model"):
        module.load_pretrained(out / "model", make_catalog())
    monkeypatch.setattr(module, "base_model", lambda name, progress=True: BASE)
    with monkeypatch.context() as patch:
        patch.setattr(module.prompts, "templates_hash", lambda: "f" * 64)
        with pytest.raises(ArtifactError, match="another set of prompt templates"):
            module.load_pretrained(out / "model", make_catalog())
    other = make_tokenizer()
    other.add_special_tokens({"additional_special_tokens": ["<|more|>"]})
    with monkeypatch.context() as patch:
        patch.setattr(module, "load_base", lambda files: (make_lm(len(other)), other))
        with pytest.raises(ArtifactError, match="another tokenizer"):
            module.load_pretrained(out / "model", make_catalog())
    for name in read_manifest(out / "model", "model").files:
        copy = tmp_path / name.replace(".", "_")
        shutil.copytree(out / "model", copy)
        data = bytearray((copy / name).read_bytes())
        data[len(data) // 2] ^= 1
        (copy / name).write_bytes(bytes(data))
        with pytest.raises(ArtifactError, match=r"sha256|refused"):
            module.load_pretrained(copy, make_catalog())


def test_the_saved_directory_holds_no_user_and_no_history(trained):
    text = b"".join(p.read_bytes() for p in (trained[0] / "model").rglob("*") if p.is_file())
    assert b"u1" not in text.replace(b"sha256", b"") or b'"u1"' not in text
    assert b"Funny Tale" not in text and b"Scary Tale" not in text


def test_base_samples_come_from_the_base_and_are_reproducible():
    model = make_model()
    a, b = sample_passages(model, 5, 9, seed=3, batch=2), sample_passages(model, 5, 9, seed=3, batch=2)
    assert a.shape == (5, 9) and (a == b).all()
    assert (a < model.vocab.base).all()


def test_answers_to_everyday_instructions_are_replayed_and_none_is_of_the_benchmark():
    model = make_model()
    assert len(open_chats(model, 400)) == len(load_template("everyday").user)
    asked = open_chats(model, 120)  # the toy tokenizer spells: the long ones do not fit
    assert 5 < len(asked) < len(load_template("everyday").user) and all(ids[-1] == asked[0][-1] for ids in asked)
    passages = sample_passages(model, 8, 120, seed=3, batch=2)  # documents, chats, answers, answers
    for ids in passages[4:]:
        assert any(ids[: len(one)].tolist() == one for one in asked)
    ours = {line.casefold() for line in load_template("everyday").user}
    assert ours.isdisjoint(one.prompt.casefold() for one in own_instructions()[1])


def test_the_stream_is_a_function_of_its_arguments():
    model = make_model()
    world, trie = world_of(model), Trie(model.vocab.ids.codes, 4)
    shares = {"next_item": 0.7, "wish_item": 0.3}

    def first(seed, n=12):
        return [b.ids.tobytes() for b in islice(pack_stream(world, model.renderer, trie, shares, 900, 300, seed), n)]

    assert first(0) == first(0) != first(1)
    assert len(set(first(0))) == 12


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("shares: 1", "unknown key 'shares'; valid here: base, embedder"),
        ("traffic: {shares: {next_item: 1}, windw: 3}", "unknown key 'traffic.windw'; valid here: shares, window"),
        ("traffic: {shares: {nxt: 1}}", "no task 'nxt'; there are: next_item"),
        ("traffic: {shares: {next_item: -1}}", "share -1.0; shares are at least 0"),
        ("traffic: {shares: {next_item: 0}}", "needs a share above 0"),
        ("traffic: {shares: {next_item: 1}}\nencoder: {dropot: 1}", "unknown key 'encoder.dropot'; valid here: dim"),
        ("traffic: {shares: {next_item: 1}}\nencoder: {dim: 10, heads: 4}", "dim 10 must be a multiple of heads 4"),
        ("[1]", "a recipe is a mapping"),
        ("a: [", "not YAML"),
    ],
)
def test_a_wrong_recipe_is_one_clear_line(tmp_path, text, words):
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError) as error:
        load_recipe(path)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_an_unknown_recipe_is_named():
    with pytest.raises(RecipeError, match=r"no recipe 'nope'; give a YAML file or one of: .*ml-100k"):
        load_recipe("nope")
