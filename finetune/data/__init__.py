"""Training data: task context, tasks and sequence packing."""
