"""Words from another language model server."""
