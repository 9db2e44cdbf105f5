"""The retention suite: how much general language ability is kept."""
