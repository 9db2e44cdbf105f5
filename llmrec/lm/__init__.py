"""The language model: base weights, item tokens, user adapter, prompts, rendering of text to token ids, runtime."""
