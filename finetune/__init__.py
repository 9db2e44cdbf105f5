"""Training: traffic of words and item tokens, packed LoRA fine-tuning, exact resume."""
