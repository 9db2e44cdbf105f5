"""The server: settings, bounds, remembered visitors, feedback."""
