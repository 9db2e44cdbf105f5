"""The web page: components, event handlers and tabs."""
