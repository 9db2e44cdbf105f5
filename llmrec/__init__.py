"""llmrec: a conversational recommender made of one open language model."""

__version__ = "0.1.0"
