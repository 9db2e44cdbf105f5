"""Inference of the language model: transformer layers, KV cache, prefill, prefix cache, and matmul dtypes."""
