"""Training: a task mixture of text and item tokens, packed LoRA fine-tuning, exact resume."""
