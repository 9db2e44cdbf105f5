"""The report over all result files."""
