"""Tests whether a log identifies its bias; each function returns a verdict."""
