"""Layers of towers: histories, SENet, capsules, views, and the logQ correction."""
