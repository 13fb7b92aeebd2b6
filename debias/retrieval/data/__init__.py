"""Interactions, feature tables, event streams and samplers of negative items."""
