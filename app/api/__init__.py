"""The API: two endpoints for programs."""
