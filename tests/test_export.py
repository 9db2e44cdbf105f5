"""Exports: plain weights say what the model says when others load them, traffic is what training reads."""

import json
import warnings

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from conftest import make_catalog, make_interactions, make_lm, make_model, make_tokenizer
from toy_files import saved
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from llmrec.app.cli.main import app
from llmrec.checkpoint.pretrained import load_pretrained
from llmrec.data import prepared
from llmrec.errors import RequestError
from llmrec.finetune.base_model_info import BaseModelInfo
from llmrec.finetune.data import traffic_table
from llmrec.finetune.data.preview import task_samples
from llmrec.finetune.export import KIND, export_weights, plain_model
from llmrec.finetune.recipe import load_recipe
from llmrec.storage.artifacts import read_manifest


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("exported"))


def served(path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a weight that is missing or left over would be told here
        return AutoModelForCausalLM.from_pretrained(path, local_files_only=True).eval()


def ours(files):
    catalog, _ = prepared.open_data(files[1])
    return load_pretrained(files[0], catalog).model


@torch.inference_mode()
def test_words_have_the_same_logits_in_transformers(files, tmp_path):
    about = export_weights(files[0], tmp_path / "plain")
    model, plain = ours(files), served(tmp_path / "plain")
    ids = torch.from_numpy(np.random.default_rng(0).integers(0, model.vocab.base, (2, 9)))
    hidden = model.hidden(model.embed(ids, torch.zeros(0, 8)))
    assert torch.allclose(plain(ids).logits, model.word_logits(hidden), atol=1e-4)
    assert plain.config.vocab_size == model.vocab.base == about["words"] and about["item_tokens"] == 0
    assert plain.config.tie_word_embeddings
    with model.base_only():
        base = model.word_logits(model.hidden(model.embed(ids, torch.zeros(0, 8))))
    assert not torch.allclose(plain(ids).logits, base, atol=1e-2), "what was fine-tuned is in it"


@torch.inference_mode()
def test_item_tokens_have_the_same_logits_in_transformers(files, tmp_path):
    export_weights(files[0], tmp_path / "plain", items=True)
    model, plain = ours(files), served(tmp_path / "plain")
    base, size = model.vocab.base, model.vocab.ids.size
    ids = torch.tensor([[65, 66, *model.vocab.tokens[3], 67, *model.vocab.tokens[8]]])
    hidden = model.hidden(model.embed(ids, torch.zeros(0, 8)))
    logits = plain(ids).logits
    assert torch.allclose(logits[..., :base], model.word_logits(hidden), atol=1e-4)
    for level in range(model.vocab.ids.depth):
        found = logits[..., base + level * size : base + (level + 1) * size]
        assert torch.allclose(found, model.level_logits(hidden, level), atol=1e-4)
    assert logits.shape[-1] == base + len(model.vocab)


def test_the_vocabulary_names_every_item_and_the_tokenizer_spells_none(files, tmp_path):
    export_weights(files[0], tmp_path / "plain", items=True)
    about = json.loads((tmp_path / "plain" / "vocabulary.json").read_text())
    lines = [json.loads(line) for line in (tmp_path / "plain" / "items.jsonl").read_text().splitlines()]
    model = ours(files)
    assert [line["tokens"] for line in lines] == model.vocab.tokens.tolist()
    assert [line["id"] for line in lines] == [item.id for item in make_catalog().items]
    assert about["names"] == model.vocab.names() and len(about["names"]) == about["item_tokens"]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "plain", local_files_only=True)
    assert max(tokenizer("".join(about["names"]))["input_ids"]) < about["words"], "typed names stay letters"
    assert read_manifest(tmp_path / "plain", KIND).meta["items"] == 12


def test_export_on_the_command_line_in_half_precision(files, tmp_path):
    words = ["export", "--model", str(files[0]), "--out", str(tmp_path / "plain"), "--json", "--precision"]
    result = CliRunner().invoke(app, [*words, "bfloat16"])
    assert result.exit_code == 0, result.exception
    assert json.loads(result.output)["precision"] == "bfloat16"
    assert served(tmp_path / "plain").dtype in (torch.bfloat16, torch.float32)
    with pytest.raises(RequestError, match="--precision 'int3'"):
        CliRunner().invoke(app, [*words, "int3"], catch_exceptions=False)


def test_an_untied_base_keeps_its_head(files):
    model = make_model()
    model.lm.config.tie_word_embeddings = False
    head = torch.nn.Linear(32, model.vocab.base, bias=False)
    model.lm.set_output_embeddings(head)
    ids = torch.arange(6)[None]
    with torch.inference_mode():
        expected = model.word_logits(model.hidden(model.embed(ids, torch.zeros(0, 8))))
        assert torch.allclose(plain_model(model, False)(ids).logits, expected, atol=1e-4)
        found = plain_model(model, True)(ids).logits[..., : model.vocab.base]
        assert torch.allclose(found, expected, atol=1e-4)


def toy_base():
    tokenizer = make_tokenizer()
    return BaseModelInfo("toy", make_lm(len(tokenizer)).config, tokenizer, None)


@pytest.fixture(scope="module")
def recipe():
    found = load_recipe("smoke")
    shares = {name: share for name, share in found.traffic.shares.items() if name != "replay"}
    return found.model_copy(update={"traffic": found.traffic.model_copy(update={"shares": shares})})


def test_traffic_is_what_training_reads_with_each_tasks_share(recipe):
    data = (make_catalog(), make_interactions())
    table, notes = traffic_table.task_table_rows(recipe, *data, toy_base(), 30_000, 0, None)
    total = sum(len(row["input_ids"]) for row in table)
    assert abs(total - 30_000) < 3_000 and any("provisional" in note for note in notes)
    for task, share in recipe.traffic.shares.items():
        rows = [row for row in table if row["task"] == task]
        wanted = share / sum(recipe.traffic.shares.values())
        assert abs(sum(len(row["input_ids"]) for row in rows) / total - wanted) < 0.05, task
        first = task_samples(task, 1, recipe, *data, toy_base(), 0, None).samples[0]
        assert rows[0]["input_ids"] == first.rendered.ids.tolist() and rows[0]["users"] == len(first.rendered.users)
        kept = [label for label in rows[0]["labels"] if label != traffic_table.IGNORED]
        assert kept == first.rendered.ids[first.rendered.loss].tolist()


def test_both_forms_hold_the_same_rows(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(traffic_table, "load_recipe", lambda name: recipe)
    monkeypatch.setattr(traffic_table.prepared, "open_data", lambda name: (make_catalog(), make_interactions()))
    monkeypatch.setattr(traffic_table, "find_base_model", lambda name: toy_base())
    found = {}
    for name in ("t.jsonl", "t.parquet"):
        words = ["data", "export-traffic", "--out", str(tmp_path / name), "--tokens", "3000", "--json"]
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, result.exception
        found[name] = json.loads(result.output)["rows"]
    lines = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    assert pq.read_table(tmp_path / "t.parquet").to_pylist() == lines and len(lines) == found["t.jsonl"]
    assert len({line["task"] for line in lines[:20]}) > 3, "tasks are mixed"
    for wrong, words in (
        (["--out", "t.csv"], "should end in .jsonl"),
        (["--out", "t.jsonl", "--tokens", "0"], "at least 1"),
    ):
        result = CliRunner().invoke(app, ["data", "export-traffic", *wrong])
        assert isinstance(result.exception, RequestError) and words in str(result.exception)
