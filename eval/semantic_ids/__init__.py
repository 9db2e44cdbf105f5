"""The semantic-ID suite: residual k-means beside an RQ-VAE."""
