"""Constrained decoding over the trie of semantic IDs, all on one scoring engine, and text generation."""
