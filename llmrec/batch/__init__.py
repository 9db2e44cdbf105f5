"""Batch ranking: files of requests of any size."""
