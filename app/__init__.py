"""The page, its two API endpoints, and the command line."""
