"""Peer libraries that run in a separate Python environment.

Each module has `prepare(setup, arrays)`, which returns two functions. The first
function does one round of work. The second function turns the result of a round into
the value to compare. The modules import nothing from this project. `rounds.py` runs a
module and exchanges lines of JSON with `benchmarks.rates.peer_process`.
"""
