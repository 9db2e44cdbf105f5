"""What is trained on: the context of the tasks, the tasks themselves, and packing."""
