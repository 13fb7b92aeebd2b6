"""Runs, stores and prints tables."""
