"""The knowledge suite: whether item notes are right, and what they are good for."""
