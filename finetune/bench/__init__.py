"""The training benchmark beside the usual Trainer."""
