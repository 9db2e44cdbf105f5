"""Prompt templates as YAML data, one file per purpose, read by `llmrec.lm.prompts`."""
