"""Semantic IDs: quantisation of items to paths of codes, diagnostics of the codebook, and the trie over the paths."""
