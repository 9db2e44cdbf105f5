"""Training data: the context of the tasks, the tasks, and sequence packing."""
