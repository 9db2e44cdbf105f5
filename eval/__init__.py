"""How good the recommendations are: metrics, baselines, suites and the form that results are written in."""
