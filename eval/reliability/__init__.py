"""The reliability suite: promises under attack, and fault injection."""
