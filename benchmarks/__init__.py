"""Results tables: every model on the same simulated clicks, with one command.

`python -m benchmarks --help` says what can be run. `experiments` says what the rows
are, `plan` what a table is made of, `scheduler` runs what is missing, `store` keeps it
and `tables` reads it back.
"""
