"""The tables of retrieval."""
