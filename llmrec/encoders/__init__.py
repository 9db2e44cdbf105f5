"""Encoders: sequential models of histories, sentence vectors of texts, and item-to-item neighbours."""
