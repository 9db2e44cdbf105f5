"""The server: settings, request limits, visitor sessions and feedback."""
