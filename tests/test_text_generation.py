"""Words: the same as plain greedy decoding, in eight bits nearly so; every limit holds; loops are broken."""

import os
import threading
import time
from pathlib import Path

import pytest
import torch
from conftest import make_model
from families import GENERIC, LEAN, make_bundle

from llmrec.decoding.text_generation import _Text, generate_text, penalise_repetition
from llmrec.errors import RequestError
from llmrec.lm.rendering import Message, Text
from llmrec.lm.runtime.hf_backend import build_transformer
from llmrec.lm.runtime.int8 import int8_weights, quantise
from llmrec.lm.runtime.kv_cache import Chunk, KVCache
from llmrec.lm.runtime.prefix_cache import PrefixCache
from llmrec.lm.runtime.transformer import Dense

ALL = LEAN | GENERIC
eight_bits = pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"), reason="no vectorised int8 kernel on this CPU"
)


def prompt_of(model, text="hello"):
    return model.renderer.render([Message("user", (Text(text),)), Message("assistant", (), open=True)])


@pytest.mark.parametrize("name", ALL)
def test_plain_greedy_words_are_those_of_generate(name):
    model = make_bundle(ALL[name])
    prompt = prompt_of(model)
    chat = model.renderer.chat
    expected = model.lm.generate(
        torch.from_numpy(prompt.ids)[None], attention_mask=torch.ones(1, len(prompt.ids)), max_new_tokens=40,
        do_sample=False, eos_token_id=chat.stop, pad_token_id=0,
        suppress_tokens=sorted(model.renderer.control - {chat.stop}),
    )[0, len(prompt.ids) :].tolist()  # fmt: skip
    words = model.renderer.decode_text([i for i in expected if i != chat.stop])
    streamed = "".join(generate_text(model, prompt, max_tokens=40, seconds=60, repetition=1.0))
    assert streamed == words.rstrip("\ufffd")


def test_the_end_of_the_context_ends_the_words(model):
    limit = model.lm.config.max_position_embeddings
    long = model.renderer.render([Message("user", (Text("a" * (limit - 40)),)), Message("assistant", (), open=True)])
    list(generate_text(model, long, max_tokens=500, seconds=60))
    with pytest.raises(RequestError, match="the context holds 1024"):
        next(generate_text(model, prompt_of(model, "a" * 1020)))


def test_stop_and_time_end_it_while_the_prompt_is_read(model):
    stop = threading.Event()
    stop.set()
    assert list(generate_text(model, prompt_of(model), stop=stop)) == []
    assert list(generate_text(model, prompt_of(model), seconds=0.0)) == []
    assert list(generate_text(model, prompt_of(model), max_tokens=0)) == []


def test_a_prompt_that_is_known_gives_the_same_words(model):
    prefixes = PrefixCache()
    plain = "".join(generate_text(model, prompt_of(model), max_tokens=20))
    for _ in range(2):
        assert "".join(generate_text(model, prompt_of(model), max_tokens=20, prefixes=prefixes)) == plain


def test_only_what_makes_a_repetition_longer_is_held_back():
    logits = torch.zeros(50)
    said = [1, 2, 3, 4, 9, 1, 2, 3]  # once more 1 2 3: 4 would make it longer
    penalise_repetition(logits, said, 2.0)
    assert torch.nonzero(logits).flatten().tolist() == [4]
    assert logits[4] == pytest.approx(-0.8 * 2.0)  # three tokens, two of them free
    logits = torch.zeros(50)
    penalise_repetition(logits, [5, 6, 5, 7, 5], 2.0)  # single words may return
    assert not logits.any()


def test_a_loop_is_broken():
    model = make_model(12)
    prompt = prompt_of(model, "aaaa")

    def loops(**kwargs):
        text = "".join(generate_text(model, prompt, max_tokens=200, seconds=120, **kwargs))
        pieces = [text[i : i + 12] for i in range(max(0, len(text) - 12))]
        return len(pieces) - len(set(pieces))

    assert loops() <= loops(repetition=1.0)
    assert loops() < 20


def test_a_character_of_several_tokens_comes_whole():
    model = make_model(12)
    ids = model.renderer.encode_text("naïve — 漢字 😀!")
    text = _Text(model.renderer)
    pieces = [text.add(i) for i in ids]
    assert "".join(pieces) == "naïve — 漢字 😀!" and "\ufffd" not in "".join(pieces)
    assert "" in pieces


@eight_bits
@pytest.mark.parametrize("name", LEAN)
def test_eight_bits_are_near_and_stay_beside_the_model(name):
    model = make_bundle(LEAN[name])
    weights = int8_weights(model)
    cache, other = KVCache(weights.transformer.layout, 20), KVCache(weights.transformer.layout, 20)
    x = torch.randn(20, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        exact = build_transformer(model.lm).forward(x, [Chunk.following(cache, 20)])
        near = weights.transformer.forward(x, [Chunk.following(other, 20)])
    assert float((near - exact).norm() / exact.norm()) < 0.05
    assert "".join(generate_text(model, prompt_of(model), max_tokens=12, weights=weights))


def test_eight_bits_round_to_nearest():
    weight = torch.randn(7, 48, generator=torch.Generator().manual_seed(0))
    packed = quantise(Dense((weight,), (None,)))
    error = (packed.weight.float() * packed.scale.float()[:, None] - weight).abs()
    assert (error <= packed.scale.float()[:, None] * 0.51).all()


def test_where_eight_bits_cannot_help_there_are_none(monkeypatch):
    assert int8_weights(make_bundle(GENERIC["qwen2"])) is None
    assert int8_weights(make_bundle(LEAN["llama"], merge=False)) is None
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    assert int8_weights(make_bundle(LEAN["llama"])) is None


@eight_bits
@pytest.mark.skipif(
    "LLMREC_WIKITEXT2" not in os.environ, reason="LLMREC_WIKITEXT2 does not name a WikiText-2 text file"
)
def test_perplexity_in_eight_bits_is_within_two_per_cent():
    from llmrec.eval.bench.text_generation import perplexity_ratio
    from llmrec.recommender import Recommender

    model = Recommender.from_pretrained().model
    assert perplexity_ratio(model, Path(os.environ["LLMREC_WIKITEXT2"]), blocks=4) < 1.02


def test_words_stop_when_told_and_at_every_limit(model):
    words = "".join(generate_text(model, prompt_of(model), max_tokens=12))
    assert 0 < len(words.encode()) <= 12 * 4
    stop = threading.Event()
    pieces = generate_text(model, prompt_of(model), max_tokens=500, seconds=60, stop=stop)
    next(pieces)
    stop.set()
    assert list(pieces) == []
    start = time.monotonic()
    list(generate_text(model, prompt_of(model), max_tokens=100_000, seconds=0.3))
    assert time.monotonic() - start < 3


def test_words_hold_no_item_and_no_control_token(model):
    text = "".join(generate_text(model, prompt_of(model), max_tokens=64))
    assert "<|" not in text or model.renderer.control.isdisjoint(model.renderer.encode_text(text))
