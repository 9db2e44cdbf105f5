"""The grounding suite: whether items exist, constraints hold and words are true."""
