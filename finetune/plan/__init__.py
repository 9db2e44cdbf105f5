"""Plans a training run without training: checks, costs and times on this machine and on GPUs."""
