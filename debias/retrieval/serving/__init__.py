"""Indexes, published versions, queries and updates."""
