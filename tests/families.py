"""Tiny random language models of several architectures, each in a bundle over a toy catalogue."""

import torch
from conftest import make_encoder, make_ids, make_lm, make_tokenizer
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from llmrec.lm.model import ModelConfig, RecModel

SIZES = dict(
    hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
    max_position_embeddings=1024, bos_token_id=None, eos_token_id=None, pad_token_id=None, initializer_range=0.15,
)  # fmt: skip
ROPE = {"rope_type": "llama3", "rope_theta": 1e4, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64}  # fmt: skip
KINDS = ["sliding_attention", "full_attention", "sliding_attention"]

LEAN = {
    "llama": lambda words: make_lm(words, layers=3),
    "llama, scaled positions, biases": lambda words: LlamaForCausalLM(
        LlamaConfig(vocab_size=words, attention_bias=True, mlp_bias=True, rope_parameters=dict(ROPE), **SIZES)
    ),
    "qwen3": lambda words: Qwen3ForCausalLM(Qwen3Config(vocab_size=words, head_dim=16, **SIZES)),
    "qwen3, windowed": lambda words: Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=words, head_dim=16, use_sliding_window=True, sliding_window=8, layer_types=KINDS, **SIZES
        )
    ),
    "gemma3": lambda words: Gemma3ForCausalLM(
        Gemma3TextConfig(
            vocab_size=words, head_dim=16, query_pre_attn_scalar=24, sliding_window=8, layer_types=KINDS, **SIZES
        )
    ),
}
GENERIC = {
    "qwen2": lambda words: Qwen2ForCausalLM(Qwen2Config(vocab_size=words, **SIZES)),
    "mistral, windowed": lambda words: MistralForCausalLM(MistralConfig(vocab_size=words, sliding_window=8, **SIZES)),
    "llama, dynamic positions": lambda words: LlamaForCausalLM(
        LlamaConfig(
            vocab_size=words, rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}, **SIZES
        )
    ),
}


def make_bundle(make, n=30, depth=2, size=8, seed=0, merge=True):
    """A bundle around `make(words)`, all that is added random."""
    tokenizer = make_tokenizer()
    torch.manual_seed(seed)
    lm = make(len(tokenizer)).eval()
    for name, parameter in lm.named_parameters():
        if name.endswith("bias") or "norm" in name:
            parameter.data.add_(0.2 * torch.randn_like(parameter))
    config = ModelConfig(lora_rank=4, lora_alpha=8, user_slots=2, adapter_width=16)
    model = RecModel(lm, tokenizer, make_ids(n, depth, size, seed), make_encoder(n, seed=seed), config)
    with torch.no_grad():
        for name, parameter in model.trainable().items():
            parameter.normal_(std=0.3 if "lora_" not in name else 0.1)
    if merge:
        model.merge()
    return model
