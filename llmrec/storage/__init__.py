"""Artifacts on disk: verified directories, atomic replacement, locks, and downloads of pinned files."""
