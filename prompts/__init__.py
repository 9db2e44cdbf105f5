"""Prompt templates as data: YAML files, one a purpose, read by `llmrec.lm.prompts`."""
