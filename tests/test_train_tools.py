"""Around the training engine: what a run costs, what its traffic looks like, what stops it early, how it is timed."""

import json
import os
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from conftest import HashEmbedder, make_catalog, make_interactions, make_lm, make_model, make_tokenizer
from rich.console import Console
from torch.utils.flop_counter import FlopCounterMode
from transformers import GPT2Config, GPT2LMHeadModel

from llmrec.app.cli import main
from llmrec.data.dataset import save_data
from llmrec.data.interactions import leave_one_out
from llmrec.data.readers.common import Report
from llmrec.encoders import ease
from llmrec.errors import ArtifactError, DataError, RecipeError, RequestError, UserError, WeightsError
from llmrec.eval.result_file import check_result, publish
from llmrec.finetune import stages
from llmrec.finetune.base_model_info import KNOWN, BaseModelInfo, check_architecture, fetch_base_model, find_base_model
from llmrec.finetune.bench import sides, trainer_baseline, training_speed
from llmrec.finetune.data import preview
from llmrec.finetune.data.packing import Document, make_pack, mixture_round, pack_documents
from llmrec.finetune.data.tasks import TASKS
from llmrec.finetune.plan import cost, dry_run, gpus, preflight, work_directory
from llmrec.finetune.plan.tables import print_plan
from llmrec.finetune.recipe import RECIPES, load_recipe
from llmrec.finetune.stages import Inputs
from llmrec.finetune.train import checkpoints
from llmrec.finetune.train.engine import check_gpu
from llmrec.finetune.train.fine_tuning import fingerprints_of
from llmrec.finetune.train.linear_cross_entropy import CHUNK
from llmrec.finetune.train.loop import State, optimizer_for
from llmrec.finetune.train.objective import Objective
from llmrec.finetune.train.packed_attention import packed_attention
from llmrec.lm.base_models import BaseModelFiles
from llmrec.lm.item_tokens import ItemVocab
from llmrec.lm.rendering import Renderer
from llmrec.lm.runtime import onednn
from llmrec.semantic_ids.trie import Trie


def inputs_of(work, recipe=None, interactions=None, catalog=None):
    split = leave_one_out(interactions or make_interactions())
    return Inputs(catalog or make_catalog(), split, recipe or toy_recipe(), work, lambda line: None)


def toy_recipe():
    recipe = load_recipe("smoke")
    return recipe.model_copy(update={"encoder": replace(recipe.encoder, epochs=1), "embedder": HashEmbedder.name})


def toy_base(name="toy") -> BaseModelInfo:
    tokenizer = make_tokenizer()
    return BaseModelInfo(name, make_lm(len(tokenizer)).config, tokenizer, BaseModelFiles(name, ".", "0" * 64))


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A base model, data and a recipe on disk, as the command line meets them."""
    root = tmp_path_factory.mktemp("toy")
    tokenizer = make_tokenizer()
    make_lm(len(tokenizer)).save_pretrained(root / "base")
    tokenizer.save_pretrained(root / "base")
    save_data(root / "data", make_catalog(), make_interactions(), Report({}, {}, ()))
    text = yaml.safe_load((RECIPES / "smoke.yaml").read_text())
    (root / "recipe.yaml").write_text(yaml.safe_dump({**text, "base": str(root / "base")}))
    return root


def a_work_directory(path, recipe=None, interactions=None):
    inputs = inputs_of(path, recipe, interactions)
    encoder = stages.encoder(inputs)
    text = stages.text_vectors(inputs, HashEmbedder())
    return inputs, encoder, stages.semantic_ids(inputs, text, encoder)


def files_in(path):
    return sorted((p.relative_to(path).as_posix(), p.stat().st_mtime_ns) for p in path.rglob("*"))


# cost


def test_parameters_are_counted_as_the_model_has_them():
    model = make_model()
    body = cost.decoder_shape(model.lm.config)
    named = model.trainable()
    added = cost.added_parameters(body, model.config, 2, 4, 8)
    assert added.total == sum(p.numel() for p in named.values())
    assert added.lora == sum(p.numel() for n, p in named.items() if "lora_" in n)
    base = sum(p.numel() for n, p in model.lm.named_parameters() if "lora_" not in n)
    assert base - body.parameters == body.hidden * (2 * body.layers + 1)  # the norms


def test_published_sizes_give_published_numbers_of_parameters():
    """As the model cards give them, norms included."""
    for name, wanted in (("Qwen/Qwen3-0.6B", 596_049_920), ("HuggingFaceTB/SmolLM2-135M-Instruct", 134_515_008)):
        with torch.device("meta"):
            from transformers import AutoModelForCausalLM

            assert AutoModelForCausalLM.from_config(KNOWN[name]).num_parameters() == wanted


@pytest.mark.parametrize("kl", [0.0, 1.0])
def test_operations_are_counted_as_torch_counts_them(kl):
    """An independent counter over forward and backward. It has no rule for attention on a CPU and none for products in
    place, so attention is left out and LoRA runs on peft's own path."""
    model = make_model()
    recipe = toy_recipe()
    world = work_directory.placeholder_task_context(inputs_of("."), 8, np.ones((4, CHUNK), np.int64))
    documents = mixture_round(world, model.renderer, recipe.traffic.shares | {"replay": 0.2}, 3000, 0, 0)
    one = make_pack(documents, Trie(model.vocab.ids.codes, 4), model.renderer)
    with FlopCounterMode(display=False) as counter, packed_attention(model):
        Objective(model, kl)(one)[0].backward()
    seen = counter.get_flop_counts()["Global"]
    ours = cost.pack_flops(cost.decoder_shape(model.lm.config), model.config, 4, one, kl, recompute=False)
    products = sum(n for op, n in seen.items() if str(op) in ("aten.mm", "aten.addmm"))
    text_attention = ours["kl"] - 2.0 * cost.decoder_shape(model.lm.config).weights * (one.tokens - one.text_start)
    counted = cost.total_flops(ours) - ours["attention"] - (text_attention if kl else 0.0)
    assert counted == pytest.approx(products, rel=0.002)


def test_checkpointing_trades_memory_for_operations():
    body = cost.decoder_shape(KNOWN["Qwen/Qwen3-1.7B"])
    added = cost.AddedParameters(1, 1, 1)
    recipe = load_recipe("gpu-qwen3")
    plain = recipe.engine.model_copy(update={"gradient_checkpointing": False})
    kept = [cost.training_bytes(body, 32, added, 8192, e) for e in (recipe.engine, plain)]
    assert kept[0]["activations"] < kept[1]["activations"] / 5
    assert kept[0]["base"] == kept[1]["base"] == body.parameters * 2
    four = cost.training_bytes(body, 32, added, 8192, plain.model_copy(update={"quantize": "4bit"}))
    assert four["base"] < kept[1]["base"] / 2


def test_the_rate_of_products_is_that_of_this_machine():
    body = cost.decoder_shape(make_lm(100).config)
    assert 1e6 < cost.matmul_rate(body, 64, 0.01) < 1e15


# what is there


def test_provisional_codes_are_unique_and_spread():
    ids = work_directory.provisional_ids(100, 2, 16, 3, 0)
    assert ids.codes.shape == (100, 2) and ids.codebook.shape == (2, 16, 3)
    assert len(np.unique(ids.codes, axis=0)) == 100
    assert len(np.unique(ids.codes[:, 0])) == 16
    assert work_directory.provisional_ids(3, 8, 4096, 1, 0).codes.max() < 4096  # 96 bits of paths
    with pytest.raises(DataError, match="hold 16 items; the catalogue has 17"):
        work_directory.provisional_ids(17, 2, 4, 1, 0)


def test_a_look_makes_nothing_and_finds_what_fits(tmp_path):
    base = toy_base().files
    empty = work_directory.look_up_stages(inputs_of(tmp_path / "none"), base)
    assert (empty.encoder, empty.ids) == (None, None) and not (tmp_path / "none").exists()
    inputs, encoder, ids = a_work_directory(tmp_path / "work")
    before = files_in(tmp_path)
    found = work_directory.look_up_stages(inputs, base)
    assert found.ids is not None and found.ids.fingerprint == ids.fingerprint
    assert {state for name, state in found.lines if name in ("encoder", "text", "semantic_ids")} == {
        work_directory.READY
    }
    assert dict(found.lines)["replay"] == dict(found.lines)["fine-tuning"] == work_directory.MISSING
    other = work_directory.look_up_stages(inputs_of(tmp_path / "work", interactions=make_interactions(seed=1)), base)
    assert other.encoder is None and "other inputs" in dict(other.lines)["encoder"]
    assert files_in(tmp_path) == before

    model = make_model()
    parts = SimpleNamespace(encoder=encoder, vocab=SimpleNamespace(ids=ids))
    optimizer = optimizer_for(model, inputs.recipe.schedule)
    for parameter in model.trainable().values():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    state = State(step=7, tokens=3500, seconds=7.0)
    checkpoints.save(tmp_path / "work" / "checkpoints", model, optimizer, state, fingerprints_of(inputs, parts, base))
    assert (
        "3,500 of 80,000 tokens done, at 500 tokens/s"
        in dict(work_directory.look_up_stages(inputs, base).lines)["fine-tuning"]
    )


# what stops a run early


def check(tmp_path, recipe=None, interactions=None, catalog=None, base=None):
    base = base or toy_base()
    inputs = inputs_of(tmp_path / "work", recipe, interactions, catalog)
    out = tmp_path / "model"
    preflight.check_run(inputs.recipe, inputs.catalog, inputs.split, base.config, base.tokenizer, out, inputs.work)


def changed(**sections):
    recipe = toy_recipe()
    return recipe.model_copy(
        update={name: getattr(recipe, name).model_copy(update=values) for name, values in sections.items()}
    )


def test_a_sound_run_passes(tmp_path):
    a_work_directory(tmp_path / "work")
    check(tmp_path)


@pytest.mark.parametrize(
    ("sections", "error", "words"),
    [
        ({"engine": {"quantize": "4bit"}}, RecipeError, "engine.quantize is 4bit, which needs"),
        ({"engine": {"attention": "flash_attention_2"}}, RecipeError, "flash_attention_2, which needs"),
        ({"semantic_ids": {"size": 3}}, DataError, "2 levels of 3 codes hold 9 items; the catalogue has 12"),
        ({"traffic": {"window": 1000}}, RecipeError, "traffic.window 1000 makes prompts of up to"),
        ({"traffic": {"passages": 0}}, RecipeError, "traffic.passages is 0, but the task replay has a share"),
    ],
)
def test_settings_that_cannot_work_are_one_line(tmp_path, sections, error, words):
    with pytest.raises(error) as caught:
        check(tmp_path, changed(**sections))
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "work").exists()


def no_bfloat16(monkeypatch):
    """A processor that says it has the instructions, and products that cannot be had of it."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    monkeypatch.setattr(onednn, "can_prepack", lambda products="float32": products == "float32")


def test_products_that_cannot_be_had_are_known_before_the_start(tmp_path, monkeypatch):
    no_bfloat16(monkeypatch)
    with pytest.raises(RecipeError, match=r"engine\.products is bfloat16: this processor does not multiply") as caught:
        check(tmp_path, changed(engine={"products": "bfloat16"}))
    assert "\n" not in str(caught.value) and not (tmp_path / "work").exists()
    auto = changed(engine={"products": "auto"})
    check(tmp_path, auto)
    assert auto.engine.format == "float32"


@pytest.mark.parametrize(
    "verb", ["eval --suite accuracy --out results", "rank --input none.jsonl --output out.parquet"]
)
def test_products_that_cannot_be_had_are_one_line_and_exit_code_2(verb, monkeypatch, capsys):
    no_bfloat16(monkeypatch)
    code, out, err = command([*verb.split(), "--products", "bfloat16"], monkeypatch, capsys)
    assert (code, out) == (2, "") and "does not multiply bfloat16 matrices" in err and err.strip().count("\n") == 0


def test_neighbours_that_do_not_fit_into_memory_are_known_before_the_start(tmp_path, monkeypatch):
    recipe = toy_recipe()
    ridge = recipe.model_copy(update={"neighbours": replace(recipe.neighbours, ridge=10.0)})
    monkeypatch.setattr(ease.psutil, "virtual_memory", lambda: SimpleNamespace(available=10**6))
    check(tmp_path, recipe)
    with pytest.raises(RecipeError, match=r"of 12 items need 0\.1 GB of memory; 0\.0 GB are free: leave .*ridge at 0"):
        check(tmp_path, ridge)
    assert not (tmp_path / "work").exists()


def test_data_without_a_next_item_is_refused(tmp_path):
    with pytest.raises(DataError, match="no user has two interactions in the train part"):
        check(tmp_path, interactions=make_interactions(length=3))


def test_a_base_without_the_layers_or_the_markers_is_refused(tmp_path):
    odd = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=300, n_positions=64))
    odd.save_pretrained(tmp_path / "gpt2")
    make_tokenizer().save_pretrained(tmp_path / "gpt2")
    base = find_base_model(str(tmp_path / "gpt2"))
    with pytest.raises(WeightsError, match=r"GPT2LMHeadModel has no layers q_proj.*Llama, Qwen3 and Gemma3"):
        check(tmp_path, base=base)
    with pytest.raises(WeightsError, match=r"is not a causal language model"):
        from transformers import ViTConfig

        check_architecture(ViTConfig())
    plain = make_tokenizer()
    plain.get_added_vocab = dict
    with pytest.raises(WeightsError, match="none of the chat markers"):
        check(tmp_path, base=replace(toy_base(), tokenizer=plain))


def test_two_catalogues_do_not_mix(tmp_path):
    a_work_directory(tmp_path / "work")
    with pytest.raises(ArtifactError, match=r"another catalogue or embedder: inputs [0-9a-f]{16}.*[0-9a-f]{16}"):
        check(tmp_path, catalog=make_catalog(11), interactions=make_interactions(n=11))
    for name in ("text", "encoder"):
        (tmp_path / "work" / name).rename(tmp_path / name)
    with pytest.raises(ArtifactError, match="those of 12 items, the catalogue has 11"):
        check(tmp_path, catalog=make_catalog(11), interactions=make_interactions(n=11))
    check(tmp_path, interactions=make_interactions(seed=1))  # other interactions are made again, not refused


def test_an_output_that_is_not_a_model_is_refused_before_training(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "letters.txt").write_text("mine")
    with pytest.raises(ArtifactError, match=r"model holds files but no manifest\.json; it is not replaced"):
        check(tmp_path)


def test_a_full_disk_is_known_before_the_start(tmp_path, monkeypatch):
    usage = SimpleNamespace(free=1000)
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(RecipeError, match=r"the disk of --work .* has 0.00 GB free; this run writes up to"):
        check(tmp_path)
    usage.free = 10**12
    check(tmp_path)
    big = preflight.space_needed(
        load_recipe("amazon-5core"), KNOWN["HuggingFaceTB/SmolLM2-135M-Instruct"], 12_000, 20_000
    )
    assert big["work"] > 11 * 4 * 4_884_480  # LoRA of rank 16 with its moments, three times, and the best weights


# the plan


@pytest.fixture
def no_clock(monkeypatch):
    monkeypatch.setattr(dry_run, "matmul_rate", lambda *args: 1e11)


def test_a_plan_adds_up(tmp_path, no_clock):
    recipe = toy_recipe()
    recipe = recipe.model_copy(update={"schedule": replace(recipe.schedule, adapter_share=0.25)})
    table = gpus.gpus_to_plan(None, None, None)
    made = dry_run.training_plan(
        recipe, make_catalog(), make_interactions(), toy_base(), tmp_path / "m", tmp_path / "w", table
    )
    first, second = made["fine_tuning"]
    assert first["tokens"] + second["tokens"] == recipe.schedule.tokens
    assert (first["trains"], second["trains"]) == (["lora", "items"], ["adapter"])
    for stage in (first, second):
        assert sum(stage["tokens_per_task"].values()) == pytest.approx(stage["tokens"], abs=20)
        assert stage["steps"] * stage["tokens_per_step"] == pytest.approx(stage["tokens"], rel=0.02)
        assert stage["flops"]["total"] == pytest.approx(sum(v for n, v in stage["flops"].items() if n != "total"))
    here = made["this_machine"]
    hours = here["hours_by_stage"]
    assert hours["fine-tuning"] == pytest.approx(made["flops"] / (1e11 * dry_run.CPU_EFFICIENCY["float32"]) / 3600)
    named = {"text", "encoder", "semantic_ids", "replay", "fine-tuning", "validation", "fusion", "fusion weights"}
    assert set(hours) == named and all(spent > 0 for spent in hours.values())
    assert here["hours"] == pytest.approx(sum(hours.values())) and here["fits"] and here["lacks"] == ""
    assert [gpu["name"] for gpu in made["gpus"]] == list(gpus.GPUS) and all(gpu["fits"] for gpu in made["gpus"])
    assert made["code_book"]["fingerprint"] is None and made["work"]["encoder"] == work_directory.MISSING
    json.dumps(made)
    assert not list(tmp_path.iterdir())
    console = Console(record=True, width=160, file=open(os.devnull, "w"))  # noqa: SIM115
    print_plan(made, console)
    text = console.export_text()
    for words in ("not made yet", "next_item", "word softmax", "this machine", "A100-80", "lower bound"):
        assert words in text


def test_steps_are_those_of_the_stream(tmp_path, no_clock):
    """The plan's count against a walk through the real traffic."""
    recipe, base = toy_recipe(), toy_base()
    made = dry_run.training_plan(recipe, make_catalog(), make_interactions(), base, tmp_path / "m", tmp_path / "w")
    ids = work_directory.provisional_ids(12, 2, 4, 1, 0)
    renderer = Renderer(base.tokenizer, ItemVocab(len(base.tokenizer), ids), 1, recipe.encoder.dim)
    world = work_directory.placeholder_task_context(inputs_of("."), recipe.encoder.dim)
    documents = mixture_round(world, renderer, recipe.traffic.shares, recipe.schedule.tokens, 5, 0)
    walked = len(pack_documents(documents, Trie(ids.codes, 4), renderer, recipe.traffic.pack_tokens))
    assert made["fine_tuning"][0]["steps"] == pytest.approx(walked, rel=0.03)


@pytest.mark.parametrize("name", sorted(p.stem for p in RECIPES.glob("*.yaml")))
def test_every_shipped_recipe_can_be_planned(name, tmp_path, no_clock):
    recipe = load_recipe(name)
    known = recipe.base if recipe.base in KNOWN else "HuggingFaceTB/SmolLM2-135M-Instruct"
    base = BaseModelInfo(known, KNOWN[known], make_tokenizer(), None, "published sizes")
    one = gpus.gpus_to_plan("l4", None, None)
    made = dry_run.training_plan(
        recipe, make_catalog(), make_interactions(), base, tmp_path / "m", tmp_path / "w", one, elsewhere=True
    )
    assert made["gpus"][0]["fits"] and made["flops"] > 0
    assert not made["base"]["here"] and any("is not on this machine yet" in note for note in made["notes"])


def test_what_only_this_machine_lacks_is_a_note_in_a_plan_for_another(tmp_path, no_clock):
    recipe = changed(engine={"quantize": "4bit", "precision": "bfloat16"})
    arguments = (recipe, make_catalog(), make_interactions(), toy_base(), tmp_path / "m", tmp_path / "w")
    with pytest.raises(RecipeError, match="4bit"):
        dry_run.training_plan(*arguments)
    notes = dry_run.training_plan(*arguments, elsewhere=True)["notes"]
    assert any(note.startswith("not on this machine: engine.quantize") for note in notes)


def test_a_stage_that_is_there_costs_nothing_and_folds_cost_as_many_encoders(tmp_path, no_clock):
    a_work_directory(tmp_path / "w")
    arguments = (make_catalog(), make_interactions(), toy_base(), tmp_path / "m")
    before, after = (dry_run.training_plan(toy_recipe(), *arguments, tmp_path / work) for work in ("none", "w"))
    hours = [made["this_machine"]["hours_by_stage"] for made in (before, after)]
    for stage in ("text", "encoder", "semantic_ids"):
        assert hours[0][stage] > hours[1][stage] == 0
    assert hours[0]["fusion"] == hours[1]["fusion"] > 0
    folded = dry_run.training_plan(changed(traffic={"folds": 4}), *arguments, tmp_path / "none")["this_machine"][
        "hours_by_stage"
    ]
    assert folded["crossfit"] == pytest.approx(3 * folded["encoder"])


def on_gpu(monkeypatch, there):
    monkeypatch.setattr("llmrec.finetune.train.engine.gpu_here", lambda: there)


@pytest.mark.parametrize(
    "engine", [{"precision": "bfloat16"}, {"quantize": "4bit"}, {"attention": "flash_attention_2"}]
)
def test_a_recipe_for_a_gpu_says_so_on_a_machine_without_one(engine, monkeypatch):
    settings = changed(engine=engine).engine
    ((name, value),) = engine.items()
    on_gpu(monkeypatch, False)
    with pytest.raises(RecipeError, match=rf"is for a GPU \(engine.{name}: {value}\), and there is none.*--on-cpu"):
        check_gpu(settings, on_cpu=False)
    check_gpu(settings, on_cpu=True)
    check_gpu(toy_recipe().engine, on_cpu=False)
    on_gpu(monkeypatch, True)
    check_gpu(settings, on_cpu=False)


def test_a_plan_of_a_recipe_for_a_gpu_does_not_fit_here(tmp_path, no_clock, monkeypatch):
    on_gpu(monkeypatch, False)
    recipe = changed(engine={"precision": "bfloat16"})
    arguments = (recipe, make_catalog(), make_interactions(), toy_base(), tmp_path / "m", tmp_path / "w")
    made = dry_run.training_plan(*arguments, gpus.gpus_to_plan("L4", None, None))
    assert not made["this_machine"]["fits"] and "engine.precision: bfloat16" in made["this_machine"]["lacks"]
    assert any("--on-cpu" in note for note in made["notes"]) and made["gpus"][0]["fits"]
    assert made["this_machine"]["products"] == "bfloat16"
    console = Console(record=True, width=160, file=open(os.devnull, "w"))  # noqa: SIM115
    print_plan(made, console)
    (line,) = [line for line in console.export_text().splitlines() if line.startswith("this machine")]
    assert line.endswith("no GPU") or "no GPU" in line


def test_a_base_that_cannot_be_fetched_says_what_was_tried_and_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("LLMREC_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(WeightsError) as error:
        fetch_base_model("no/such-model")
    said = str(error.value)
    for words in ("'no/such-model'", "the cache of this machine", "HF_ENDPOINT", "`base`", "smollm2-135m-instruct"):
        assert words in said
    assert "urlopen" not in said and "\n" not in said
    with pytest.raises(WeightsError, match="no base model 'nothing'") as error:
        fetch_base_model("nothing")
    assert "Tried" not in str(error.value)


def test_gpus_by_name_and_by_number():
    assert gpus.gpus_to_plan("rtx 4090", None, None)[0].vram == 24
    (own,) = gpus.gpus_to_plan(None, 100.0, 12.0)
    assert own.peak("bfloat16") == (100.0, "bfloat16") and own.vram == 12
    assert gpus.GPUS["T4"].peak("bfloat16") == (8.1, "float32")
    for given, words in (
        (("K80", None, None), "no GPU 'K80'; there are: A100-40"),
        ((None, 3.0, None), "go together"),
        ((None, 0.0, 1.0), "must be above 0"),
    ):
        with pytest.raises(RequestError, match=words):
            gpus.gpus_to_plan(*given)


def test_a_base_that_is_nowhere_is_described_where_it_is_known(monkeypatch, tmp_path):
    monkeypatch.setenv("LLMREC_OFFLINE", "1")
    monkeypatch.setattr("llmrec.finetune.base_model_info._cached", lambda name: None)
    make_lm(259).save_pretrained(tmp_path / "default")
    make_tokenizer().save_pretrained(tmp_path / "default")
    stand_in = BaseModelFiles("toy", tmp_path / "default", "0" * 64)
    monkeypatch.setattr("llmrec.finetune.base_model_info.base_model", lambda name: stand_in)
    base = find_base_model("Qwen/Qwen3-1.7B")
    assert base.files is None and "published sizes" in base.stand_in
    assert cost.decoder_shape(base.config).parameters == 1_720_451_072
    with pytest.raises(WeightsError, match="'no/such' is not on this machine and cannot be had"):
        find_base_model("no/such")


# the traffic, shown


@pytest.mark.parametrize("task", sorted(TASKS))
def test_samples_show_what_is_trained_on(task, toy):
    recipe = load_recipe(toy / "recipe.yaml")
    shown = preview.task_samples(
        task, 2, recipe, make_catalog(), make_interactions(), find_base_model(recipe.base), 0, None
    )
    assert len(shown.samples) == 2 and "provisional" in shown.provisional
    for sample in shown.samples:
        values = sample.values()
        assert len(values["ids"]) == len(values["loss"]) and sum(values["loss"]) > 0
        assert "".join(text for text, _ in sample.pieces) == values["text"].replace("⟦", "").replace("⟧", "")
        trained = sum(text.count("<|item_") for text, mark in sample.pieces if mark)
        base = 259
        assert trained == sum(
            base <= i < base + 8 and loss for i, loss in zip(values["ids"], values["loss"], strict=True)
        )
        assert values["text"].count("<user>") == values["users"] * recipe.model.user_slots
    assert ("replay text was sampled just now" in shown.provisional) == (task == "replay")


def test_samples_with_the_codes_of_a_run(tmp_path, toy):
    _, _, ids = a_work_directory(tmp_path / "work")
    base = find_base_model(load_recipe(toy / "recipe.yaml").base)
    shown = preview.task_samples(
        "title_item", 1, toy_recipe(), make_catalog(), make_interactions(), base, 0, tmp_path / "work"
    )
    assert shown.provisional == ""
    path = [i - 259 for i in shown.samples[0].rendered.ids if 259 <= i < 267]
    assert path in (ids.codes + np.array([0, 4])).tolist()


def test_the_marks_are_seen_without_colour(toy):
    recipe = load_recipe(toy / "recipe.yaml")
    shown = preview.task_samples(
        "item_title", 1, recipe, make_catalog(), make_interactions(), find_base_model(recipe.base), 0, None
    )
    console = Console(record=True, width=500, file=open(os.devnull, "w"), color_system=None)  # noqa: SIM115
    preview.print_preview(shown, console)
    text = console.export_text()
    assert "Tale" in text[text.rindex("⟦") :] and "note: item codes are provisional" in text


# the bench


def test_the_usual_way_has_one_row_a_target():
    model = make_model()
    rows = trainer_baseline.target_rows(
        work_directory.placeholder_task_context(inputs_of("."), 8), model.renderer, 9, 0, window=2
    )
    collator = trainer_baseline.Collator(0, 2)
    batch = collator(rows)
    assert (batch["labels"] != trainer_baseline.IGNORED).sum(dim=1).tolist() == [2] * 9
    assert collator.counts == [(int(batch["attention_mask"].sum()), 9)]
    at = batch["labels"] != trainer_baseline.IGNORED
    assert (batch["labels"][at] == batch["input_ids"][at]).all()
    assert (batch["attention_mask"].sum(dim=1).numpy() == [len(row.ids) for row in rows]).all()


def usual_pair():
    """The bundle and the usual model with the same weights: items as added rows, scale 1, LoRA at its start."""
    tokenizer = make_tokenizer()
    model = make_model(slots=1)
    for name, parameter in model.trainable().items():
        if "lora_B" in name:
            torch.nn.init.zeros_(parameter)
    torch.nn.init.ones_(model.item_scale)
    other = trainer_baseline.peft_model(make_lm(len(tokenizer)), model.vocab, model.config)
    for name, parameter in other.named_parameters():
        if "trainable_tokens_delta" in name:
            with torch.no_grad():
                parameter.copy_(model.items.weight)
    return model, other


def test_the_usual_loss_is_ours_but_for_what_the_softmax_is_over():
    """The same rows, the same weights: its logits, taken over the codes of the level, give our loss."""
    model, other = usual_pair()
    rows = trainer_baseline.target_rows(
        work_directory.placeholder_task_context(inputs_of("."), 8), model.renderer, 6, 0
    )
    batch = trainer_baseline.Collator(0, 2)(rows)
    with torch.no_grad():
        logits = other(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    trie = Trie(model.vocab.ids.codes, 4)
    theirs, whole = 0.0, 0.0
    documents = []
    for line, row in enumerate(rows):
        rendered = SimpleNamespace(ids=row.ids, loss=row.labels >= 0, users=np.zeros((0, 8), np.float32))
        documents.append(Document("next_item", rendered))
        for level, at in enumerate(np.flatnonzero(row.labels >= 0)):
            first = model.vocab.base + 4 * level
            single = make_pack([documents[-1]], trie, model.renderer).levels[level]
            codes = logits[line, at - 1, first : first + 4] + torch.from_numpy(single.prior[0])
            theirs -= float(torch.log_softmax(codes, -1)[int(row.labels[at]) - first])
            whole -= float(torch.log_softmax(logits[line, at - 1], -1)[int(row.labels[at])])
    with torch.no_grad(), packed_attention(model):
        ours = float(Objective(model, 0.0)(make_pack(documents, trie, model.renderer))[0])
        mean = float(other(**batch).loss)
    assert theirs == pytest.approx(ours, rel=1e-4)
    assert mean == pytest.approx(whole / 12, rel=1e-4)  # and the Trainer's is the mean over words and items


class Told:
    """Stands in for the line to the bench: every turn comes at once, what is told is kept."""

    def __init__(self):
        self.steps, self.waits = [], 0

    def ready(self):
        self.waits = 0

    def wait(self):
        self.waits += 1

    def done(self, step):
        self.steps.append(step)


def test_both_sides_train_step_by_step(toy, monkeypatch):
    job = sides.Job(load_recipe(toy / "recipe.yaml"), str(toy / "data"), 2, 0, 1)
    ours, theirs, kept = Told(), Told(), []
    real = sides.trainer
    monkeypatch.setattr(sides, "trainer", lambda model, *rest: kept.append(model) or real(model, *rest))
    sides.engine_side(job, ours, {"next_item": 1.0})
    sides.trainer_side(job, theirs)
    for told in (ours, theirs):
        assert (told.waits, len(told.steps)) == (2, 2)
        assert all(step.seconds > 0 and step.tokens > 0 and step.targets > 0 for step in told.steps)
    assert all(step.flops > step.frozen > 0 for step in ours.steps)
    assert theirs.steps[0].tokens == pytest.approx(job.recipe.traffic.pack_tokens, rel=0.25)
    moved = {n: p for n, p in kept[0].named_parameters() if p.requires_grad}
    assert any("lora_B" in n and p.abs().max() > 0 for n, p in moved.items())
    assert [p.shape for n, p in moved.items() if "trainable_tokens" in n] == [(8, 32)]  # one tied table of items


def test_a_summary_is_a_result_file(tmp_path):
    steps = [sides.Step(s, 1000, 100, 4e9, 3e9) for s in (1.0, 2.0, 3.0)]
    slow = [sides.Step(s, 500, 10) for s in (2.0, 4.0, 6.0)]
    taken = {
        training_speed.ENGINE: training_speed.SideMeasurements(steps, [0.5, 1.0, 1.5], [4e9] * 3, 10**9, 2 * 10**9),
        training_speed.TRAINER: training_speed.SideMeasurements(slow, [0.0] * 3, [4e9] * 3, 10**9, 4 * 10**9),
    }
    rows, targets = training_speed.summarise(taken, 0)
    assert targets == pytest.approx(
        {"targets_per_s_ratio": 20.0, "tokens_per_s_ratio": 4.0, "peak_memory_ratio": 0.5, "floor_ratio": 2.0}
    )
    assert rows["engine"]["tokens_per_s"] == pytest.approx((500.0, 1000 / 3, 1000.0))
    assert "floor_ratio" not in rows["usual"]
    path = tmp_path / "bench-train.json"
    publish(path, "toy", {"how": "so"}, rows, targets, 0, "llmrec bench --train", 1.0, 6)
    check_result(json.loads(path.read_text()), "bench-train")


@pytest.mark.long
def test_the_bench_runs_its_sides_as_processes(toy):
    found = training_speed.benchmark_training(toy / "recipe.yaml", str(toy / "data"), quick=True)
    assert set(found.targets) == {"targets_per_s_ratio", "tokens_per_s_ratio", "peak_memory_ratio", "floor_ratio"}
    assert all(value > 0 for value in found.targets.values())
    for side in ("engine", "usual"):
        loaded, peak = (found.rows[side][what][0] for what in ("loaded_memory_gb", "peak_memory_gb"))
        assert 0 < loaded <= peak < 4
    assert found.steps == 4


def test_a_side_that_cannot_start_says_why(toy, tmp_path):
    text = yaml.safe_load((toy / "recipe.yaml").read_text())
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({**text, "semantic_ids": {"depth": 1, "size": 2}}))
    line = SimpleNamespace(sent=[], send=lambda value: line.sent.append(value))
    sides.serve(line, training_speed.TRAINER, sides.Job(load_recipe(tmp_path / "r.yaml"), str(toy / "data"), 1, 0, 1))
    assert isinstance(line.sent[0], UserError)
    with pytest.raises(DataError, match="hold 2 items"):
        training_speed._receive(SimpleNamespace(recv=lambda: line.sent[0]), "usual")


# the command line


def command(words, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["llmrec", *words])
    code = 0
    try:
        main.main()
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("data show-traffic --task nope", "no task 'nope'; there are: next_item, user_item"),
        ("data show-traffic --task replay -n 0", "-n is 0"),
        ("data show-traffic --task replay --work /no/such", "'/no/such'"),
        ("train ml-100k --recipe smoke --out m --gpu L4", "belong to --dry-run"),
        (
            "train /no/such --recipe gpu-qwen3 --out m",
            "is for a GPU (engine.precision: bfloat16), and there is none here",
        ),
        ("train ml-100k --recipe smoke --out m --dry-run --gpu K80", "no GPU 'K80'"),
        ("train ml-100k --recipe smoke --out m --dry-run --tflops 3", "go together"),
        ("bench --train --model m", "--model belongs to decoding"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(words, named, monkeypatch, capsys):
    code, out, err = command(words.split(), monkeypatch, capsys)
    assert (code, out) == (2, "") and named in err and err.count("\n") == 1


def test_verbs_print_json(toy, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(dry_run, "matmul_rate", lambda *args: 1e11)
    given = ["--recipe", str(toy / "recipe.yaml")]
    words = ["data", "show-traffic", "--task", "wish_item", "-n", "1", "--data", str(toy / "data"), *given, "--json"]
    code, out, _ = command(words, monkeypatch, capsys)
    assert code == 0 and json.loads(out)["samples"][0]["loss"][-4:] == [1, 1, 0, 0]
    words = ["train", str(toy / "data"), *given, "--out", str(tmp_path / "m"), "--dry-run", "--gpu", "L4", "--json"]
    code, out, _ = command(words, monkeypatch, capsys)
    assert code == 0 and json.loads(out)["gpus"][0]["name"] == "L4" and not list(tmp_path.iterdir())


def test_bench_writes_its_file(tmp_path, monkeypatch, capsys):
    rows = {"engine": {"tokens_per_s": (2.0, 1.0, 3.0)}}
    targets = {"targets_per_s_ratio": 9.0, "tokens_per_s_ratio": 2.0, "peak_memory_ratio": 0.5, "floor_ratio": 1.4}
    asked = []
    found = training_speed.TrainingBenchmark(rows, targets, {"a": "b"}, 6, 1.0)
    monkeypatch.setattr(training_speed, "benchmark_training", lambda **how: asked.append(how) or found)
    words = ["bench", "--train", "--quick", "--seed", "3", "--out", str(tmp_path)]
    code, out, _ = command(words, monkeypatch, capsys)
    assert code == 0 and asked == [{"quick": True, "seed": 3}] and "tokens_per_s_ratio: 2" in out
    check_result(json.loads((tmp_path / "bench-train.json").read_text()), "bench-train")
