"""The grounding suite: whether items exist, constraints hold and texts are true."""
