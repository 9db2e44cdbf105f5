"""Model directories: saving, loading, validation, model cards, and the Hub."""
