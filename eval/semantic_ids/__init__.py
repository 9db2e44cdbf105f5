"""The semantic-ID suite: residual k-means against an RQ-VAE."""
