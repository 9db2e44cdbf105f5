"""Dialogue: request parsing, state tracking, responses, and the chat that joins them."""
