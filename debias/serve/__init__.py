"""Recall and ranking over HTTP: `debias serve`."""
