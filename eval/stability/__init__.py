"""The stability suite: the same request in other words."""
