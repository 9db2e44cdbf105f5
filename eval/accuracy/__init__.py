"""The accuracy suite: rankers over the same users and the whole catalogue."""
