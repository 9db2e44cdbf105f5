"""Benchmarks of decoding and of ranking request files."""
