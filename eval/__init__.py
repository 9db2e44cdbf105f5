"""Evaluation: metrics, baselines, suites and the format of result files."""
