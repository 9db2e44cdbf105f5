"""Ranking of files of requests, at any size."""
