"""Tables of results: every model on the same simulated clicks, by one command.

`python -m benchmarks --help` lists the commands, `experiments` the tables and rows.

| folder | holds |
|---|---|
| `harness` | what a table is, running what is missing, results on disk, rendering |
| `ranking` | rows of the tables of rankers |
| `retrieval` | rows of the tables of retrieval |
| `rates` | rows of the tables of speed, cost and memory, with `peers` beside them |
"""
