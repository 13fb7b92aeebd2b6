"""Batches, fitting, evaluation, and learners that go on learning."""
