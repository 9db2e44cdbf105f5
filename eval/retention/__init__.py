"""The retention suite: how much English is kept."""
