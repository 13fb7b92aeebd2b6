"""Retrieval and ranking over HTTP: `debias serve`."""
