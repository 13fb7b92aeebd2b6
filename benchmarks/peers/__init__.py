"""Peer libraries that run in a separate Python environment.

Each module has `prepare(setup, arrays)`, which returns two functions. The first does
one round of work. The second turns the result of a round into the value to compare. The
modules import nothing of this project. `rounds.py` runs them and exchanges lines of
JSON with `benchmarks.rates.peer_process`.
"""
