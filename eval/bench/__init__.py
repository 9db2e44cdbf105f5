"""Benchmarks of decoding and of ranking files."""
