"""Layers of retrieval towers: histories, SENet, capsules, views, logQ correction."""
