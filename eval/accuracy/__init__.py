"""The accuracy suite: all rankers on the same users and the whole catalogue."""
