"""Judges a separator: the systems of the tables, their scores, the tables."""
