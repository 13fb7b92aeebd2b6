"""Measures published results again, and compares the new values with them.

With the same package versions, CPU flags and threads, the printed digits must agree. If
the machine differs or the record does not name its machine, a metric may differ by
`LOOSE`. The reason is that sums in another order differ in the last digit, and training
amplifies this difference up to the third decimal. Rates and seconds are not compared.
"""

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness import machine, store
from benchmarks.harness.plan import Table
from benchmarks.harness.scheduler import Job
from benchmarks.harness.tables import current, decimals, views

LOOSE = 0.003


@dataclass(frozen=True)
class Published:
    """A published record, its job, and the number of printed decimals by metric."""

    record: store.Record
    job: Job
    digits: Mapping[str, int]


@dataclass(frozen=True)
class Deviation:
    """A metric whose new value differs; `found` is None if there is no new value."""

    record: store.Record
    metric: str
    published: float
    found: float | None
    allowed: float


def published(
    table: Table, records: Iterable[store.Record], rows: Iterable[str] = ()
) -> list[Published]:
    """The published records that can be measured again.

    Tables of rates and results on data from a path cannot be measured again.

    Args:
        table: The table.
        records: The published records of the table.
        rows: Names of the rows to use; () for all rows.
    """
    if table.threads is None:
        return []
    records, only = list(records), set(rows)
    experiments = {(e.row, e.population): e for e in table.experiments}
    digits = {
        view.population: _digits(view.values)
        for view in views(table, records)
        if view.dataset == table.dataset
    }
    return [
        Published(
            r,
            Job(table.name, experiments[r.row, r.population], r.dataset, r.seed),
            digits[r.population],
        )
        for r in current(table, records)
        if r.dataset == table.dataset and "data" not in r.config
        if not only or r.row in only
    ]


def _digits(
    values: Mapping[str, Mapping[str, Mapping[int, float]]],
) -> dict[str, int]:
    """Number of decimals in the column of each metric."""
    means: dict[str, list[float]] = {}
    for of_row in values.values():
        for metric, seeds in of_row.items():
            means.setdefault(metric, []).append(sum(seeds.values()) / len(seeds))
    return {metric: decimals(column) for metric, column in means.items()}


def sample(
    tables: Iterable[Table], results: Path, count: int, seed: int, rows: Iterable[str]
) -> list[Published]:
    """Draws at most `count` published records at random.

    Raises:
        ValueError: No record can be measured again.
    """
    rows, found = list(rows), []
    for table in tables:
        records = store.read(results / f"{table.name}.jsonl")
        found += published(table, records, rows)
    if not found:
        raise ValueError(
            f"{results} holds no result that can be measured again: expected one of "
            "present settings, in a table of more than rates"
        )
    return random.Random(seed).sample(found, min(count, len(found)))


def same_place(record: store.Record, threads: int) -> bool:
    """Whether a record has the versions, CPU flags and threads of this machine."""
    here = machine.describe(threads)
    versions = machine.versions() | {"debias-ranking": ""}
    return (
        dict(record.versions) | {"debias-ranking": ""} == versions
        and record.machine.get("flags") == here["flags"]
        and record.machine.get("threads") == threads
    )


def deviations(
    of: Published, metrics: Mapping[str, float], threads: int = 1
) -> list[Deviation]:
    """The metrics that are missing, or differ by more than the tolerance.

    The tolerance is half a unit of the last printed digit if `same_place` holds. If
    `same_place` does not hold, the tolerance is `LOOSE`, multiplied by the published
    value if its absolute value exceeds 1.
    """
    exact, found = same_place(of.record, threads), []
    for metric, value in of.record.metrics.items():
        if metric.endswith("seconds"):
            continue
        loose = LOOSE * max(1.0, abs(value))
        allowed = 0.5 * 10.0 ** -of.digits[metric] if exact else loose
        other = metrics.get(metric)
        if other is None or abs(other - value) > allowed:
            found.append(Deviation(of.record, metric, value, other, allowed))
    return found
