"""The language model: base weights, item tokens, user adapter, prompts, and rendering of text to ids."""
