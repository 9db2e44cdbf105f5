"""Searches over the trie of the catalogue on one scoring engine, and text generation."""
