"""Constrained decoding over the trie of semantic IDs, by one scoring engine; and text generation."""
