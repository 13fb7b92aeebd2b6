"""Interactions, their tables of features, event streams and samplers of negatives."""
