"""Exports: plain weights say what the model says when others load them, traffic is what training reads."""

import json
import warnings

import numpy as np
import pytest
import torch
from conftest import make_catalog, make_model
from toy_files import saved
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from llmrec.app.cli.main import app
from llmrec.checkpoint.pretrained import load_pretrained
from llmrec.data.dataset import open_data
from llmrec.errors import RequestError
from llmrec.finetune.export import KIND, export_weights, plain_model
from llmrec.storage.artifacts import read_manifest


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("exported"))


def served(path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a weight that is missing or left over would be told here
        return AutoModelForCausalLM.from_pretrained(path, local_files_only=True).eval()


def ours(files):
    catalog, _ = open_data(files[1])
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
