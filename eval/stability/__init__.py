"""The stability suite: whether the same request in other words gets the same answer."""
