"""Diagnostic tests of a click log; each test returns a verdict."""
