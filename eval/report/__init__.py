"""The report on all result files."""
