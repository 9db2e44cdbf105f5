"""The conversation suite: simulated dialogues, and recommendation from one sentence."""
