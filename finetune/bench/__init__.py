"""The training benchmark against transformers' Trainer."""
