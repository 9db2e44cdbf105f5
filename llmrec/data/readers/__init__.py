"""Readers of data files: published data sets, and a person's own tables."""
