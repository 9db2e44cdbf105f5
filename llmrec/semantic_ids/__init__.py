"""Semantic IDs: quantising items to paths of codes, diagnostics of the codebook, and the trie over the paths."""
