"""The conversation suite: scripted dialogues, and recommendation from one sentence."""
