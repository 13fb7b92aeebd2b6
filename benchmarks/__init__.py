"""Measures and prints tables of results, by one command.

`python -m benchmarks --help` lists the commands. The module `experiments` lists the
tables and their rows.

| folder | holds |
|---|---|
| `harness` | definition of tables, measurement, results on disk, rendering |
| `ranking` | rows of the ranking tables |
| `retrieval` | rows of the retrieval tables |
| `questions` | rows of the tables on open questions |
| `rates` | rows of the tables on speed, cost and memory |
| `peers` | code that runs other libraries in a separate Python environment |
"""
