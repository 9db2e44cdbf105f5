"""Packed weights: the same products, the same bits beside any neighbours, never those of weights that have changed."""

import pytest
import torch
from families import LEAN, make_bundle

from llmrec.errors import RequestError
from llmrec.lm.runtime import onednn
from llmrec.lm.runtime.hf_backend import build_transformer
from llmrec.lm.runtime.kv_cache import Chunk, KVCache
from llmrec.lm.runtime.onednn import (
    PrepackedLinear,
    can_prepack,
    fastest_matmul_dtype,
    parse_matmul_dtype,
    prepack,
    prepacked_head,
)
from llmrec.lm.runtime.transformer import Dense, native_transformer

needs_kernels = pytest.mark.skipif(
    not can_prepack(), reason="this build of torch has no oneDNN kernels for linear layers"
)


def run(transformer, x):
    with torch.inference_mode():
        return transformer.forward(x, [Chunk.following(KVCache(transformer.layout, len(x)), len(x))])


@needs_kernels
def test_products_with_and_without_bias_are_those_of_the_plain_matrices():
    torch.manual_seed(0)
    weights, bias, x = (torch.randn(5, 12), torch.randn(3, 12)), torch.randn(3), torch.randn(7, 12)
    for biases in ((None, None), (None, bias)):
        dense = Dense(weights, biases)
        for found, expected in zip(prepack(dense)(x), dense(x), strict=True):
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
        assert [y.shape for y in prepack(dense)(x[:0])] == [(0, 5), (0, 3)]


@pytest.mark.kernels
@needs_kernels
def test_products_in_bfloat16_are_those_of_the_plain_matrices_but_for_rounding():
    torch.manual_seed(0)
    if fastest_matmul_dtype() != "bfloat16":
        pytest.skip("this processor does not multiply bfloat16 matrices")
    weights, bias, x = (torch.randn(50, 64), torch.randn(30, 64)), torch.randn(30), torch.randn(7, 64)
    for biases in ((None, None), (None, bias)):
        dense = Dense(weights, biases)
        for found, expected in zip(prepack(dense, matmul_dtype="bfloat16")(x), dense(x), strict=True):
            assert found.dtype == torch.float32 and not torch.equal(found, expected)
            torch.testing.assert_close(found, expected, atol=0.15, rtol=0.02)


@pytest.mark.kernels
@needs_kernels
def test_a_row_has_the_same_bits_beside_any_neighbours_and_on_any_number_of_threads():
    torch.manual_seed(0)
    product = prepack(Dense((torch.randn(192, 160),), (None,)))
    x = torch.randn(300, 160)
    (all_rows,) = product(x)
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            for n in (1, 2, 10, 63, 300):
                assert torch.equal(product(x[:n])[0], all_rows[:n])
    finally:
        torch.set_num_threads(before)


@needs_kernels
def test_merged_weights_are_packed_once_and_again_after_they_changed():
    model = make_bundle(LEAN["llama"], merge=True)
    x = torch.randn(6, 32)
    first = build_transformer(model.lm)
    assert all(isinstance(p, PrepackedLinear) for p in first.projections())
    again = build_transformer(model.lm)
    assert all(a.weight is b.weight for a, b in zip(first.projections(), again.projections(), strict=True))
    for layer in model.lora_layers():  # the way peft writes them leaves no mark on the tensors' version counters
        layer.unmerge()
    assert not any(isinstance(p, PrepackedLinear) for p in build_transformer(model.lm).projections())
    with torch.no_grad():
        for name, weight in model.lm.named_parameters():
            if "lora_B" in name:
                weight.add_(0.1)
    model.merge()
    torch.testing.assert_close(
        run(build_transformer(model.lm), x), run(native_transformer(model.lm), x), atol=1e-4, rtol=1e-4
    )
    assert not torch.allclose(run(build_transformer(model.lm), x), run(first, x), atol=1e-3)


def test_without_the_kernels_the_plain_matrices_are_used(monkeypatch):
    monkeypatch.setattr(onednn, "can_prepack", lambda *products: False)
    model = make_bundle(LEAN["llama"], merge=True)
    assert all(isinstance(p, Dense) for p in build_transformer(model.lm).projections())


def test_the_packed_word_head_gives_the_models_own_logits():
    for name in LEAN:
        model = make_bundle(LEAN[name], merge=True)
        hidden = torch.randn(32)
        found = prepacked_head(model.lm)(hidden)
        torch.testing.assert_close(found, model.word_logits(hidden), atol=1e-5, rtol=1e-4)


@pytest.mark.kernels
def test_a_number_format_is_taken_by_name_or_refused(monkeypatch):
    assert parse_matmul_dtype("float32") == "float32"
    for fast in ("float32", "bfloat16"):
        monkeypatch.setattr(onednn, "fastest_matmul_dtype", lambda fast=fast: fast)
        assert parse_matmul_dtype("auto") == fast
    assert parse_matmul_dtype("bfloat16") == "bfloat16"
    monkeypatch.setattr(onednn, "fastest_matmul_dtype", lambda: "float32")
    with pytest.raises(RequestError, match="does not multiply bfloat16"):
        parse_matmul_dtype("bfloat16")
    with pytest.raises(RequestError, match="no number format 'int4'"):
        parse_matmul_dtype("int4")


@needs_kernels
def test_what_the_processor_says_is_tried_before_it_is_believed(monkeypatch):
    """As where `ONEDNN_MAX_CPU_ISA` keeps oneDNN from instructions that the processor has."""
    original = onednn.prepack

    def refused(dense, scale=None, matmul_dtype="float32"):
        if matmul_dtype == "bfloat16":
            raise RuntimeError("mkldnn_reorder_linear_weight: bf16 path needs the cpu support")
        return original(dense, scale, matmul_dtype)

    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    monkeypatch.setattr(onednn, "prepack", refused)
    model = make_bundle(LEAN["llama"], merge=True)
    can_prepack.cache_clear()
    try:
        assert can_prepack() and not can_prepack("bfloat16")
        assert fastest_matmul_dtype() == parse_matmul_dtype("auto") == "float32"
        for ask in (lambda: parse_matmul_dtype("bfloat16"), lambda: build_transformer(model.lm, "bfloat16")):
            with pytest.raises(RequestError, match="does not multiply bfloat16"):
                ask()
    finally:
        can_prepack.cache_clear()


@pytest.mark.kernels
@needs_kernels
def test_both_formats_are_kept_and_neither_outlives_its_weights():
    if fastest_matmul_dtype() != "bfloat16":
        pytest.skip("this processor does not multiply bfloat16 matrices")
    model, x = make_bundle(LEAN["llama"], merge=True), torch.randn(6, 32)
    exact, rounded = (run(build_transformer(model.lm, products), x) for products in ("float32", "bfloat16"))
    assert not torch.equal(exact, rounded)
    torch.testing.assert_close(rounded, exact, atol=0.1, rtol=0.1)
    assert torch.equal(run(build_transformer(model.lm), x), exact)
    for layer in model.lora_layers():
        layer.unmerge()
    with torch.no_grad():
        for name, weight in model.lm.named_parameters():
            if "lora_B" in name:
                weight.add_(0.1)
    model.merge()
    assert not torch.equal(run(build_transformer(model.lm, "bfloat16"), x), rounded)
