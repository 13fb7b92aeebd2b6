"""Peer libraries that run in a separate Python environment.

Each module has `prepare(setup, arrays)`, which returns a function that does one round
of work, and a function that turns its result into the compared value. They import
nothing of this project; `rounds.py` runs them and exchanges lines of JSON with
`benchmarks.rates.peer_process`.
"""
