"""The page: components, handlers and tabs."""
