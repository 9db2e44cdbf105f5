"""Scores and their fusion into ranked lists, explanations, and checks of generated text."""
