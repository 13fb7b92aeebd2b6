"""Tables of results: every model on the same simulated clicks, by one command.

`python -m benchmarks --help` lists the commands. The module `experiments` lists the
tables and their rows.

| folder | holds |
|---|---|
| `harness` | definition of tables, measurement, results on disk, rendering |
| `ranking` | rows of the tables of rankers |
| `retrieval` | rows of the tables of retrieval |
| `questions` | rows of the tables on open questions |
| `rates` | rows of the tables of speed, cost and memory |
| `peers` | other libraries, which run in a separate Python environment |
"""
