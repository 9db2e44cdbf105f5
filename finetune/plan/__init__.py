"""Plans of a run that train nothing: checks, costs and times here and on GPUs."""
