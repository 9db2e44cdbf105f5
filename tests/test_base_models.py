"""A base model is found by name, directory or GGUF file; a GGUF file becomes a plain directory once."""

import hashlib
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGUFWriter
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from llmrec.errors import WeightsError
from llmrec.lm import base_models
from llmrec.lm.base_models import base_model, load_base
from llmrec.storage.registry import RESOURCES, Resource


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def visible(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.rglob("*") if p.is_file()) if folder.exists() else []


def tiny_gguf(path: Path) -> None:
    """Write a two-layer Llama with a byte-level tokenizer, as llama.cpp's converter would."""
    rng, d, f, kv = np.random.default_rng(0), 32, 48, 16
    tokens = [
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
        *sorted(pre_tokenizers.ByteLevel.alphabet()),
        "th",
        "the",
    ]
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(d)
    writer.add_block_count(2)
    writer.add_feed_forward_length(f)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(8)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 3] + [1] * (len(tokens) - 3))
    writer.add_token_merges(["t h", "th e"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template("{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}")
    shapes = {"token_embd": (len(tokens), d), "output_norm": (d,)}
    for n in range(2):
        shapes |= {f"blk.{n}.attn_q": (d, d), f"blk.{n}.attn_k": (kv, d), f"blk.{n}.attn_v": (kv, d)}
        shapes |= {f"blk.{n}.attn_output": (d, d), f"blk.{n}.ffn_gate": (f, d), f"blk.{n}.ffn_up": (f, d)}
        shapes |= {f"blk.{n}.ffn_down": (d, f), f"blk.{n}.attn_norm": (d,), f"blk.{n}.ffn_norm": (d,)}
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", rng.normal(0, 0.2, shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def gguf(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    tiny_gguf(path)
    return path


def test_a_gguf_becomes_a_plain_directory_once(gguf, tmp_path, monkeypatch):
    monkeypatch.setenv("LLMREC_HOME", str(tmp_path))
    files = base_model(str(gguf), progress=False)
    assert files.sha256 == sha(gguf.read_bytes()) and files.dir.parent == tmp_path / "base"
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(visible(files.dir))
    model, tokenizer = load_base(files)
    assert type(model) is LlamaForCausalLM and model.dtype == torch.float32 and not model.training
    assert not hasattr(model.config, "quantization_config")
    assert model.lm_head.weight is model.model.embed_tokens.weight, "tied"
    ids = torch.tensor([[1, 5, 9, 40]])
    direct = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    with torch.inference_mode():
        torch.testing.assert_close(model(ids).logits, direct(ids).logits)
    assert model.generation_config.do_sample in (None, False) and model.generation_config.eos_token_id == 2
    assert tokenizer.decode(tokenizer("the thé 1995")["input_ids"]) == "the thé 1995"
    assert (
        tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False) == "<|im_start|>hi<|im_end|>"
    )
    monkeypatch.setattr(base_models, "_convert", lambda *a: pytest.fail("converted twice"))
    assert base_model(str(gguf), progress=False) == files


def test_a_damaged_conversion_is_made_again(gguf, tmp_path, monkeypatch):
    monkeypatch.setenv("LLMREC_HOME", str(tmp_path))
    files = base_model(str(gguf), progress=False)
    whole = (files.dir / "model.safetensors").read_bytes()
    (files.dir / "model.safetensors").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert base_model(str(gguf), progress=False) == files
    assert (files.dir / "model.safetensors").read_bytes() == whole


def test_a_resource_is_converted_and_then_needs_no_gguf(gguf, tmp_path, monkeypatch):
    monkeypatch.setenv("LLMREC_HOME", str(tmp_path))
    resource = Resource("toy-lm", {"tiny.gguf": sha(gguf.read_bytes())}, "MIT", "toy==1", "0" * 64, "toy")
    monkeypatch.setattr(base_models, "RESOURCES", {**RESOURCES, "toy-lm": resource})
    monkeypatch.setattr(base_models, "fetch", lambda name, progress: gguf.parent)
    files = base_model("toy-lm", progress=False)
    assert files.id == "toy-lm" and files.sha256 == resource.files["tiny.gguf"]
    monkeypatch.setattr(base_models, "fetch", lambda *a: pytest.fail("fetched again"))
    assert base_model("toy-lm", progress=False) == files
    with pytest.raises(WeightsError, match="'ml-100k' is not a language model"):
        base_model("ml-100k")


def test_local_directories(gguf, tmp_path, monkeypatch):
    monkeypatch.setenv("LLMREC_HOME", str(tmp_path / "home"))
    plain = base_model(str(gguf), progress=False).dir
    files = base_model(str(plain))
    assert files.dir == plain and files.sha256 == sha((plain / "model.safetensors").read_bytes())
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(WeightsError, match=r"no config\.json"):
        base_model(str(empty))
    (empty / "config.json").write_text('{"model_type": "llama"}')
    (empty / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(WeightsError, match=r"no \.safetensors"):
        base_model(str(empty))
    (tmp_path / "broken.gguf").write_bytes(b"GGUF junk")
    with pytest.raises(WeightsError, match="cannot be read as a language model"):
        base_model(str(tmp_path / "broken.gguf"), progress=False)
    assert visible(tmp_path / "home" / "base" / "broken") == []


def test_unknown_names_and_the_hub(monkeypatch):
    def refuse(address: str) -> None:
        raise urllib.error.URLError("unreachable")

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("LLMREC_OFFLINE", raising=False)
    with pytest.raises(WeightsError, match="no base model 'nothing'; give smollm2-135m-instruct, a directory"):
        base_model("nothing")
    monkeypatch.setattr(base_models, "check_reachable", refuse)
    with pytest.raises(WeightsError, match=r"'org/model': the Hub did not give it: .*unreachable"):
        base_model("org/model", progress=False)
