"""Baselines and the choice of their settings."""
