"""Scores of items and their fusion into ranked lists; explanations; grounding checks of generated text."""
