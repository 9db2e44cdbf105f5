"""The training loop of the language model and its parts."""
