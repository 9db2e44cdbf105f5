"""Plans a training run without training: checks, costs and times here and on GPUs."""
