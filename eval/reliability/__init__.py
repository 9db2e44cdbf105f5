"""The reliability suite: promises under attack, and injected faults."""
