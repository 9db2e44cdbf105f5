"""Semantic IDs: how items become paths of codes, and the trie over these paths."""
