"""Changes to a trained model's catalogue without training it again."""
