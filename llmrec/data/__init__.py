"""Catalogues, interactions and filters, and how prepared data is made and opened."""
