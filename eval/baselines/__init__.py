"""Baselines and the tuning of their settings."""
