"""Batches, fitting, evaluation, selection, and learners that can be updated."""
