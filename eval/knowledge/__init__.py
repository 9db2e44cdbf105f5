"""The knowledge suite: whether item notes are correct and useful."""
