"""The tables of rankers: protocol, learners, rows."""
