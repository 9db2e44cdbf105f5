"""The two endpoints for programs."""
