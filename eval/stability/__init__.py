"""The stability suite: the same request said otherwise."""
