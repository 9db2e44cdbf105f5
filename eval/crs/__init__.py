"""Recommendation in published dialogues: ReDial and INSPIRED."""
