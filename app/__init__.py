"""The application: web page, API and command line."""
