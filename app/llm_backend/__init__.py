"""Text generation by an external language model server."""
