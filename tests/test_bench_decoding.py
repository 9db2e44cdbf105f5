"""The benchmark compares like with like, counts what it says, and writes the one form."""

import json

import numpy as np
import pytest
import torch
from conftest import make_model
from families import GENERIC, LEAN, make_bundle

from llmrec.errors import ArtifactError, RequestError
from llmrec.eval.bench import decoding, decoding_costs, generate_baseline, text_generation
from llmrec.eval.bench.generate_baseline import load_merged, plain_copy, random_prompts, synthetic_pair
from llmrec.eval.result_file import check_result
from llmrec.lm.runtime.hf_backend import build_transformer
from llmrec.semantic_ids.trie import Trie


@pytest.fixture(scope="module")
def merged():
    model = make_model(12)
    model.merge()
    return model


@pytest.fixture(scope="module")
def pair(merged):
    return synthetic_pair(merged, seed=0, items=60, depth=3, size=6)


@pytest.mark.parametrize("beams", [1, 4, 12])
def test_both_sides_return_the_same_items(pair, beams):
    prompts = random_prompts(pair.bundle, 3, 20, seed=1)
    assert pair.ours(prompts, beams) == pair.reference(prompts, beams)


@pytest.mark.parametrize("name", ["qwen3", "llama, scaled positions, biases"])
def test_other_architectures_agree_too(name):
    pair = synthetic_pair(make_bundle(LEAN[name]), seed=0, items=60, depth=3, size=6)
    prompts = random_prompts(pair.bundle, 2, 20, seed=1)
    assert pair.ours(prompts, 8) == pair.reference(prompts, 8)


def test_an_architecture_that_cannot_be_compared_is_refused(merged):
    with pytest.raises(RequestError, match="not qwen2"):
        synthetic_pair(make_bundle(GENERIC["qwen2"]), seed=0, items=60, depth=3, size=6)
    with pytest.raises(RequestError, match="not merged"):
        synthetic_pair(make_model(12), seed=0, items=60, depth=3, size=6)
    with pytest.raises(ArtifactError, match="no model directory"):
        load_merged("/no/such/model")
    assert merged.lm.config.tie_word_embeddings


@torch.inference_mode()
def test_the_copy_shares_its_weights_and_computes_the_same(merged):
    copy = plain_copy(merged.lm)
    x = torch.randint(0, 100, (1, 9))
    torch.testing.assert_close(copy(x).logits[0], merged.word_logits(merged.hidden(merged.word_embedding(x)))[0])
    assert copy.model.embed_tokens.weight.data_ptr() == merged.word_embedding.weight.data_ptr()


def test_even_masses_leave_the_logits_alone():
    codes = np.unique(np.random.default_rng(0).integers(0, 5, (40, 3)), axis=0)
    trie = Trie(codes, 5, generate_baseline.even_masses(codes))
    for level in range(3):
        for node in range(1 if level == 0 else trie.nodes(level - 1)):
            prior = trie.priors(level, trie.children(level, np.array([node])))
            assert np.ptp(prior[np.isfinite(prior)]) < 1e-5


def test_operations_are_those_of_the_layers(pair):
    prompts = random_prompts(pair.bundle, 2, 20, seed=1)
    matrices = 32 * 32 * 2 + 32 * 16 * 2 + 3 * 32 * 64
    assert generate_baseline.linear_parameters(pair.lm) == 2 * matrices
    keys, attention = 2 * 32 * 16, 4 * 32
    need = 2 * matrices * 20 + attention * 210 + 2 * keys * 20 + 2 * matrices + attention * 20
    need += 2 * 32 * 6 * (1 + 4 + 4) + 2 * 4 * (2 * matrices + attention * 21) + 2 * 4 * (2 * matrices + attention * 22)
    assert decoding_costs.beam_search_flops(pair, prompts, 4) == 2 * need


def test_peaks_of_memory_are_of_what_lives_at_a_time():
    def call():
        for _ in range(3):
            torch.zeros(1000, 256)

    assert 1_024_000 <= decoding_costs.peak_bytes(call) < 1_100_000


def test_beams_take_little_memory_beside_the_prompt(pair):
    assert decoding_costs.memory_ratio(pair, random_prompts(pair.bundle, 1, 400, seed=1), 12) < 1.3


def test_masking_steps_are_timed_on_real_tries():
    codes = decoding_costs.random_paths(5000, 0)
    assert len(np.unique(codes, axis=0)) == 5000
    found = decoding_costs.mask_time(5000, repeats=3)
    assert found.items == 5000 and found.step > 0 and found.build > 0


def test_words_are_compared_on_the_same_questions(merged):
    speed = text_generation.text_speed(merged, plain_copy(merged.lm), tokens=6, repeats=1)
    assert speed.same_words == 1.0 and speed.reference > 0 and speed.float32 > 0


def test_perplexity_in_eight_bits(merged, tmp_path):
    if build_transformer(merged.lm) is None or text_generation.int8_weights(merged) is None:
        pytest.skip("no vectorised int8 kernel on this CPU")
    text = tmp_path / "text.txt"
    text.write_text("some words of a text that goes on and on\n" * 60)
    assert text_generation.perplexity_ratio(merged, text, blocks=2) == pytest.approx(1.0, abs=0.05)


@pytest.fixture
def small(monkeypatch, merged):
    monkeypatch.setattr(decoding, "load_merged", lambda _: (merged, "toy"))
    monkeypatch.setattr(decoding, "synthetic_pair", lambda m, s: synthetic_pair(m, s, items=60, depth=3, size=6))
    monkeypatch.setattr(decoding, "REPEATS", 1)
    monkeypatch.setattr(decoding, "USERS", (1, 16))
    monkeypatch.setattr(decoding.decoding_costs, "matmul_rate", lambda: 1e11)
    monkeypatch.setattr(decoding.decoding_costs, "MASK_ITEMS", (100, 1000))


def test_quick_ends_with_its_one_number(small, tmp_path, capsys):
    decoding.benchmark_decoding(None, tmp_path, quick=True)
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert float(last.removeprefix("decode_speedup_vs_generate: ")) > 0
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_the_whole_bench_writes_the_one_form_and_a_picture(small, tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "LENGTHS", (16, 256))
    monkeypatch.setattr(decoding, "BEAMS", (10, 50))
    decoding.benchmark_decoding(None, tmp_path)
    result = json.loads((tmp_path / "bench-decode.json").read_text())
    check_result(result, "bench-decode")
    rows = {row["name"]: row["metrics"] for row in result["rows"]}
    assert rows["beams50_prompt256_users16"]["same_items"]["mean"] == 1.0
    assert (tmp_path / "bench-decode.svg").read_text().startswith("<?xml")
