"""The training engine: equal where it should be, exact on resume, quick where it claims to be."""

import contextlib
import json
import os
import shutil
import signal
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import HashEmbedder, make_catalog, make_interactions, make_lm, make_model, make_tokenizer
from torch.nn import functional as F

from llmrec.data.interactions import leave_one_out
from llmrec.errors import ArtifactError, Interrupted, RecipeError
from llmrec.finetune.data.context import TaskContext
from llmrec.finetune.data.packing import Document, make_pack, mixture_round, pack_documents, pack_stream
from llmrec.finetune.data.tasks import TASKS
from llmrec.finetune.pipeline import RunPaths, build_model
from llmrec.finetune.recipe import EngineSettings, load_recipe
from llmrec.finetune.train import checkpoints, fine_tuning
from llmrec.finetune.train.engine import checkpoint_activations
from llmrec.finetune.train.fused_lora import fused_lora
from llmrec.finetune.train.interrupts import catch_interrupts
from llmrec.finetune.train.linear_cross_entropy import linear_cross_entropy
from llmrec.finetune.train.loop import Hooks, Schedule, State, optimizer_for, train
from llmrec.finetune.train.metrics_log import MetricsLog
from llmrec.finetune.train.objective import Objective
from llmrec.finetune.train.packed_attention import packed_attention
from llmrec.lm.base_models import BaseModelFiles
from llmrec.lm.runtime import onednn
from llmrec.lm.runtime.onednn import fastest_matmul_dtype
from llmrec.semantic_ids.trie import Trie

BASE = BaseModelFiles("toy", Path("."), "0" * 64)
SHARES = {name: 1.0 for name in TASKS}
QUIET = Hooks(save=lambda s: None, report=lambda s, m: None)


def world_of(model) -> TaskContext:
    split = leave_one_out(make_interactions())
    histories = [split.train.rows_of(u) for u in range(len(split.train.users))]
    passages = np.random.default_rng(0).integers(0, 200, (4, 12))
    return TaskContext(make_catalog(), histories, [model.encoder.trajectory(h) for h in histories], 10, 0.5, passages)


def documents_of(model, tokens=1500, seed=0, shares=None):
    return mixture_round(world_of(model), model.renderer, shares or SHARES, tokens, seed, 0)


def trie_of(model) -> Trie:
    return Trie(model.vocab.ids.codes, 4, np.log1p(np.arange(12)))


def plain_loss(model, documents, trie, kl) -> float:
    """The oracle: each document alone through transformers' own attention and the full softmaxes."""
    total = 0.0
    for document in documents:
        one = make_pack([document], trie, model.renderer)
        users = torch.from_numpy(one.users)
        hidden = model.hidden(model.embed(torch.from_numpy(one.ids)[None], users), use_cache=False)[0]
        words = one.text if document.is_text else one.words
        logp = torch.log_softmax(model.word_logits(hidden[torch.from_numpy(words.position)]), dim=-1)
        if document.is_text and kl:
            with model.base_only(), torch.no_grad():
                base = model.hidden(model.word_embedding(torch.from_numpy(one.ids)[None]), use_cache=False)[0]
            q = torch.log_softmax(model.word_logits(base[torch.from_numpy(words.position)]), dim=-1)
            total += kl * float((q.exp() * (q - logp)).sum().detach())
        else:
            total -= float(logp.gather(1, torch.from_numpy(words.answer)[:, None]).sum().detach())
        for level, t in enumerate(one.levels):
            if len(t):
                logits = model.level_logits(hidden[torch.from_numpy(t.position)], level) + torch.from_numpy(t.prior)
                total += float(F.cross_entropy(logits, torch.from_numpy(t.answer), reduction="sum").detach())
    return total


@pytest.mark.parametrize("kl", [0.0, 0.7])
def test_packed_equals_unpacked_equals_the_plain_model(kl):
    """Promise 24: one pack, packs of any size, one document at a time and transformers itself: one sum of losses."""
    model = make_model()
    trie, documents = trie_of(model), documents_of(model)
    want = plain_loss(model, documents, trie, kl)
    objective = Objective(model, kl)
    with packed_attention(model), fused_lora(model) as replaced:
        assert replaced == 14
        whole = objective(make_pack(documents, trie, model.renderer))[0].item()
        single = sum(objective(make_pack([d], trie, model.renderer))[0].item() for d in documents)
        grouped = sum(objective(p)[0].item() for p in pack_documents(documents, trie, model.renderer, 300))
    assert whole == pytest.approx(want, rel=1e-5)
    assert single == pytest.approx(want, rel=1e-5)
    assert grouped == pytest.approx(want, rel=1e-5)


def test_a_document_cannot_see_its_neighbours():
    model = make_model()
    trie = trie_of(model)
    a, b, c = documents_of(model, shares={"conversation": 1.0})[:3]
    with packed_attention(model):
        objective = Objective(model, 0.0)
        alone = objective._hidden(make_pack([a], trie, model.renderer))
        for other in (b, c):
            both = make_pack([a, other], trie, model.renderer)
            start = 0 if len(a) <= len(other) else len(other)
            torch.testing.assert_close(objective._hidden(both)[start : start + len(a)], alone, atol=1e-5, rtol=1e-5)


def test_packs_hold_every_document_once_without_padding():
    model = make_model()
    documents = documents_of(model)
    made = pack_documents(documents, trie_of(model), model.renderer, 256)
    assert sum(p.tokens for p in made) == sum(len(d) for d in documents)
    assert all(p.tokens == sum(p.lengths) for p in made)
    assert all(p.tokens <= 256 or len(p.lengths) == 1 for p in made)
    assert sum(p.targets for p in made) == sum(int(d.rendered.loss[1:].sum()) for d in documents)


def test_gradients_of_the_fused_layers_and_word_loss_are_those_of_autograd():
    model = make_model()
    one = make_pack(documents_of(model), trie_of(model), model.renderer)

    def gradients():
        for p in model.trainable().values():
            p.grad = None
        loss, _ = Objective(model, 0.5)(one)
        loss.backward()
        return loss.item(), {n: p.grad.clone() for n, p in model.trainable().items() if p.grad is not None}

    with packed_attention(model):
        plain_value, plain = gradients()
        with fused_lora(model):
            fused_value, fused = gradients()
    assert fused_value == pytest.approx(plain_value, rel=1e-6)
    assert plain.keys() == fused.keys() and len(plain) > 20
    for name, gradient in plain.items():
        torch.testing.assert_close(fused[name], gradient, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("with_base", [False, True])
def test_word_loss_equals_the_full_softmax(with_base):
    torch.manual_seed(0)
    hidden = torch.randn(300, 8, requires_grad=True)  # more than one chunk
    table, answer, base = torch.randn(50, 8), torch.randint(0, 50, (300,)), torch.randn(300, 8)
    logp = torch.log_softmax(hidden @ table.T, dim=-1)
    q = torch.log_softmax(base @ table.T, dim=-1)
    want = (q.exp() * (q - logp)).sum(-1) if with_base else -logp.gather(1, answer[:, None])[:, 0]
    weight = torch.rand(300)
    (expected,) = torch.autograd.grad((want * weight).sum(), hidden)
    got = linear_cross_entropy(hidden, table, answer, base if with_base else None)
    (gradient,) = torch.autograd.grad((got * weight).sum(), hidden)
    torch.testing.assert_close(got, want.detach(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(gradient, expected, atol=1e-6, rtol=1e-5)
    with pytest.raises(ValueError, match="must be frozen"):
        linear_cross_entropy(hidden, table.requires_grad_(), answer)


def test_one_pack_of_many_equals_many_accumulated():
    """Promise 24: 8x1 = 1x8: the trajectory of the weights over three steps."""
    results = []
    for per_pack in (1, 8):
        model = make_model(seed=1)
        trie = Trie(model.vocab.ids.codes, 4)
        documents = documents_of(model, 900)[:24]
        groups = [documents[i : i + 8] for i in range(0, 24, 8)]
        made = [make_pack(g[i : i + per_pack], trie, model.renderer) for g in groups for i in range(0, 8, per_pack)]
        schedule = Schedule(tokens=sum(p.tokens for p in made), accumulate=8 // per_pack, warmup=0.0, lr_lora=1e-3)
        with packed_attention(model), fused_lora(model):
            train(Objective(model, 1.0), iter(made), schedule, optimizer_for(model, schedule), State(), QUIET)
        results.append({n: t.clone() for n, t in model.added_state().items()})
    for name, tensor in results[0].items():
        torch.testing.assert_close(tensor, results[1][name], atol=1e-5, rtol=1e-4)


def recipe_of(tokens, **schedule):
    recipe = load_recipe("smoke")
    return recipe.model_copy(
        update={"schedule": replace(recipe.schedule, tokens=tokens, validate_tokens=0, **schedule)}
    )


def toy_build(out: Path, recipe, say=lambda line: None, **kwargs):
    tokenizer = make_tokenizer()
    loaded = (make_lm(len(tokenizer)), tokenizer)
    places = RunPaths(out / "model", out / "work")
    return build_model(make_catalog(), make_interactions(), recipe, BASE, loaded, HashEmbedder(), places, say, **kwargs)


def same_bytes(a, b) -> bool:
    return all(torch.equal(t, b.model.added_state()[n]) for n, t in a.model.added_state().items())


@pytest.mark.kernels
def test_training_twice_gives_the_same_bytes(tmp_path):
    recipe = recipe_of(4000)
    one, two = toy_build(tmp_path / "a", recipe), toy_build(tmp_path / "b", recipe)
    assert same_bytes(one, two) and one.fusions == two.fusions
    for name in ("adapter.safetensors", "semantic_ids.safetensors", "encoder.safetensors"):
        assert (tmp_path / "a/model" / name).read_bytes() == (tmp_path / "b/model" / name).read_bytes()


@pytest.mark.kernels
def test_an_interrupted_run_saves_and_goes_on_to_the_same_bytes(tmp_path, monkeypatch):
    """Ctrl-C at any step: a checkpoint, a sentence, and the uninterrupted result afterwards."""
    recipe = recipe_of(5000)
    whole = toy_build(tmp_path / "whole", recipe)
    real, wanted = fine_tuning.train, iter((3, 5, 10**9))

    def stopping(objective, packs, schedule, optimizer, state, hooks, accelerator):
        stop = next(wanted)
        flagged = replace(hooks, interrupted=lambda: state.step >= stop)
        done = real(objective, packs, schedule, optimizer, state, flagged, accelerator)
        if state.step >= stop:
            os.kill(os.getpid(), signal.SIGINT)  # what the flag stands for
        return done

    monkeypatch.setattr(fine_tuning, "train", stopping)
    for step in (3, 5):
        with pytest.raises(Interrupted, match=f"stopped at step {step}; the same command goes on from there"):
            toy_build(tmp_path / "cut", recipe)
    assert same_bytes(toy_build(tmp_path / "cut", recipe), whole)
    steps = [json.loads(line)["step"] for line in (tmp_path / "cut/work/metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps))


def _child(out: Path, recipe) -> None:
    """A training process that writes a checkpoint after every step, in a forked child with one thread."""
    torch.set_num_threads(1)
    real = fine_tuning.Hooks
    fine_tuning.Hooks = lambda **kwargs: real(**kwargs, save_seconds=0.0)
    toy_build(out, recipe)


def killed_runs(tmp_path: Path, kills: int, seed: int, tokens: int) -> tuple[int, bool]:
    """Kill -9 at random moments until `kills` came; (kills that hit a living run, final bytes equal)."""
    recipe = recipe_of(tokens)
    whole = toy_build(tmp_path / "whole", recipe)
    rng, hit = np.random.default_rng(seed), 0
    while hit < kills:
        pid = os.fork()
        if pid == 0:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            try:
                _child(tmp_path / "killed", recipe)
            finally:
                os._exit(0)
        _wait(pid, float(rng.uniform(0.05, 1.2)))
        _, status = os.waitpid(pid, 0)
        if os.WIFSIGNALED(status):
            hit += 1
        else:  # it came through: start over
            final = toy_build(tmp_path / "killed", recipe)
            assert same_bytes(final, whole)
            shutil.rmtree(tmp_path / "killed")
    return hit, same_bytes(toy_build(tmp_path / "killed", recipe), whole)


def _wait(pid: int, seconds: float) -> None:
    time.sleep(seconds)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks a process to kill it")
def test_kill_9_at_random_moments_loses_nothing(tmp_path, record_property):
    """Promise 8. Three kills here; `make faults` tries twenty."""
    kills = int(os.environ.get("LLMREC_TEST_KILLS", "3"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        hit, equal = killed_runs(tmp_path, kills, seed=0, tokens=6000)
    finally:
        torch.set_num_threads(threads)
    assert hit == kills and equal
    record_property("runs", kills)


def test_two_stages_train_the_adapter_last_and_nothing_else_then(tmp_path):
    recipe = recipe_of(6000, adapter_share=0.5)
    stages = recipe.schedule.stages()
    assert [s.groups for s in stages] == [("lora", "items"), ("adapter",)] and stages[0].users == "none"
    model = make_model()
    before = {n: t.clone() for n, t in model.added_state().items()}
    world, trie = world_of(model), trie_of(model)
    first = pack_stream(world, model.renderer, trie, SHARES, 2000, 300, 0, users="none")
    assert all(len(p.users) == 0 for p in islice(first, 8))
    with packed_attention(model), fused_lora(model):
        optimizer = optimizer_for(model, recipe.schedule)
        state = State(stage=1, tokens=5000)
        packs_ = pack_stream(world, model.renderer, trie, SHARES, 2000, 300, 1, users="only")
        train(Objective(model, 1.0), packs_, recipe.schedule, optimizer, state, QUIET)
    moved = {n for n, t in model.added_state().items() if not torch.equal(t, before[n])}
    assert moved and all(n.startswith("adapter.") for n in moved)
    result = toy_build(tmp_path, recipe)
    assert result.meta["tokens"] >= 6000


def test_early_stopping_keeps_the_best_weights(tmp_path):
    """Validations 0.3, 0.5, 0.4, 0.4: patience 2 stops at the fourth and goes back to the second."""
    recipe = recipe_of(10**6, patience=2)
    recipe = recipe.model_copy(update={"schedule": replace(recipe.schedule, validate_tokens=600)})
    values, kept = iter((0.3, 0.5, 0.4, 0.4, 0.9)), []

    class Scripted:
        def __init__(self, inputs, model, trie):
            self.model = model

        def __call__(self):
            value = next(values)
            if value == 0.5:
                kept.append({n: t.clone() for n, t in self.model.added_state().items()})
            return value

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fine_tuning, "Validation", Scripted)
        said = []
        result = toy_build(tmp_path, recipe, said.append)
    assert any("ndcg@10 0.5000" in line and "are kept" in line for line in said)
    for name, tensor in kept[0].items():
        assert torch.equal(result.model.added_state()[name], tensor)
    assert next(values) == 0.9


def test_the_best_weights_of_another_run_are_refused(tmp_path):
    model = make_model()
    checkpoints.keep_best(tmp_path, model, State(best_step=3), {"inputs": "x"})
    checkpoints.load_best(tmp_path, model, State(best_step=3), {"inputs": "x"})
    with pytest.raises(ArtifactError, match="belongs to another run"):
        checkpoints.load_best(tmp_path, model, State(best_step=4), {"inputs": "x"})


def test_the_divergence_keeps_text_nearer_to_the_base_than_no_replay_does():
    def drift(kl, replay):
        model = make_model(seed=2)
        with torch.no_grad():
            for name, p in model.trainable().items():
                if "lora_B" in name:
                    p.zero_()  # starts as the base model
        world, trie = world_of(model), trie_of(model)
        shares = {"item_title": 0.7, "talk": 0.2, "replay": replay}
        schedule = Schedule(tokens=16000, lr_lora=5e-3, kl=kl)
        with packed_attention(model), fused_lora(model):
            packs_ = pack_stream(world, model.renderer, trie, {n: s for n, s in shares.items() if s}, 4000, 500, 0)
            train(Objective(model, kl), packs_, schedule, optimizer_for(model, schedule), State(), QUIET)
            text = [Document("replay", d.rendered) for d in documents_of(model, 60, 5, {"replay": 1.0})]
            one = make_pack(text, trie, model.renderer)
            return Objective(model, 1.0)(one)[0].item() / len(one.text)

    assert drift(3.0, 0.3) < 0.5 * drift(1.0, 0.0)


def test_losses_are_told_by_kind_and_by_task():
    model = make_model()
    one = make_pack(documents_of(model, 3000), trie_of(model), model.renderer)
    with packed_attention(model):
        total, tally = Objective(model, 1.0)(one)
    kinds = [n for n in tally.sums if not n.startswith("task/")]
    assert set(kinds) == {"words", "text", "level0", "level1"}
    assert sum(tally.sums[k] for k in kinds) == pytest.approx(total.item(), rel=1e-5)
    assert sum(tally.counts[k] for k in kinds) == one.targets
    assert {n.removeprefix("task/") for n in tally.sums if n.startswith("task/")} == set(TASKS) - {"replay"}


def test_the_journal_drops_what_a_lost_stretch_wrote(tmp_path):
    said = []
    journal = MetricsLog(tmp_path / "m.jsonl", 100, said.append)
    for step in (10, 20, 30):
        journal.losses(State(step=step, tokens=step, seconds=1.0), {"level0": 2.0, "task/next_item": 3.0})
    with (tmp_path / "m.jsonl").open("a") as file:
        file.write('{"step": 40, "tok')  # the torn last line of a killed run
    journal.resume(State(step=20))
    journal.validation(State(step=20, best=0.1), 0.2)
    steps = [json.loads(line)["step"] for line in (tmp_path / "m.jsonl").read_text().splitlines()]
    assert steps == [10, 20, 20]
    assert "tokens/s" in said[0] and "next_item 3.00" in said[0] and "min left" in said[0]


def test_the_first_signal_asks_and_the_second_ends():
    said = []
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background starts ignoring it
    try:
        with catch_interrupts(said.append) as asked:
            assert not asked()
            os.kill(os.getpid(), signal.SIGINT)
            assert asked() and "once more" in said[0]
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(5)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        ("{kl: -1}", "schedule.kl is -1"),
        ("{tokens: 0}", "schedule.tokens is 0; it must lie between 1"),
        ("{accumulate: 0}", "schedule.accumulate is 0"),
        ("{adapter_share: 1.5}", "it must lie between 0 and 0.95"),
    ],
)
def test_a_schedule_out_of_range_is_one_clear_line(tmp_path, schedule, words):
    (tmp_path / "r.yaml").write_text(f"traffic: {{shares: {{next_item: 1}}}}\nschedule: {schedule}\n")
    with pytest.raises(RecipeError) as error:
        load_recipe(tmp_path / "r.yaml")
    assert words in str(error.value) and "\n" not in str(error.value)


def test_gradient_checkpointing_changes_memory_not_gradients():
    model = make_model()
    one = make_pack(documents_of(model), trie_of(model), model.renderer)
    results = []
    for on in (False, True):
        if on:
            checkpoint_activations(model.lm)
        model.train()
        with packed_attention(model), fused_lora(model):
            loss, _ = Objective(model, 1.0)(one)
            loss.backward()
        results.append({n: p.grad.clone() for n, p in model.trainable().items() if p.grad is not None})
        for p in model.trainable().values():
            p.grad = None
    assert results[0].keys() == results[1].keys()
    for name, gradient in results[0].items():
        torch.testing.assert_close(results[1][name], gradient, atol=1e-6, rtol=1e-5)


def test_a_bfloat16_recipe_trains_and_saves(tmp_path):
    from accelerate.state import AcceleratorState

    recipe = recipe_of(12000)
    recipe = recipe.model_copy(update={"engine": EngineSettings(precision="bfloat16", gradient_checkpointing=True)})
    tokenizer = make_tokenizer()
    loaded = (make_lm(len(tokenizer)).to(torch.bfloat16), tokenizer)
    AcceleratorState._reset_state(True)
    try:
        places = RunPaths(tmp_path / "model", tmp_path / "work")
        result = build_model(
            make_catalog(), make_interactions(), recipe, BASE, loaded, HashEmbedder(), places, lambda line: None
        )
    finally:
        AcceleratorState._reset_state(True)
    assert result.meta["tokens"] >= 12000
    assert all(torch.isfinite(t).all() for t in result.model.added_state().values())
    lines = [json.loads(line) for line in (tmp_path / "work/metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["level0"] < lines[0]["level0"]


@pytest.mark.kernels
def test_bfloat16_products_keep_the_direction_of_every_gradient():
    model = make_model()
    one = make_pack(documents_of(model), trie_of(model), model.renderer)
    losses, gradients = [], []
    for products in ("float32", "bfloat16"):
        with packed_attention(model), fused_lora(model, products):
            loss, _ = Objective(model, 1.0)(one)
            loss.backward()
        losses.append(loss.item())
        gradients.append({n: p.grad.clone() for n, p in model.trainable().items()})
        for p in model.trainable().values():
            p.grad = None
    assert losses[1] == pytest.approx(losses[0], rel=1e-2) and losses[1] != losses[0]
    for name, gradient in gradients[0].items():
        assert F.cosine_similarity(gradient.flatten(), gradients[1][name].flatten(), dim=0) > 0.99, name


def test_the_number_format_is_what_the_processor_says_not_what_a_moment_shows(monkeypatch):
    for has, want in (({}, "float32"), ({"avx512_bf16": True}, "bfloat16"), ({"amx_bf16": True}, "bfloat16")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda has=has: has, raising=False)
        monkeypatch.setattr(onednn, "can_prepack", lambda products="float32": True)
        assert fastest_matmul_dtype() == want
