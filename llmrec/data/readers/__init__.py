"""Readers of data files: published data sets, and users' own tables."""
