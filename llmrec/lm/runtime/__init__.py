"""Inference of the language model: transformer layers, KV cache, prefill, and number formats."""
