"""Results on disk: one JSON object per line, appended and never rewritten.

Any number of processes may append to one file, and any of them may be killed at any
moment. A killed process can leave an incomplete line. Readers drop an incomplete line
and warn about it. The next append marks the incomplete line with `TORN`. Readers treat
all other damaged lines as errors.
"""

import json
import math
import os
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

TORN = b" # half-written"


@dataclass(frozen=True)
class Record:
    """One experiment, measured once.

    Args:
        table: Name of the table.
        row: Name of the row, usually a model.
        dataset: Name of the ranking data.
        population: Name of the simulated population.
        seed: Random seed.
        metrics: Finite value of each metric, by name.
        seconds: Wall-clock time of the measurement.
        config: The experiment's settings, as JSON values.
        versions: Versions of the packages, by name.
        machine: CPU, hash of the CPU flags, cores and threads; empty in old records.
    """

    table: str
    row: str
    dataset: str
    population: str
    seed: int
    metrics: Mapping[str, float]
    seconds: float
    config: Mapping[str, Any]
    versions: Mapping[str, str]
    machine: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Key of the measurement; repeated measurements have the same key."""
        return key(
            self.table, self.row, self.dataset, self.population, self.seed, self.config
        )


FIELDS = {each.name for each in fields(Record)}


def key(
    table: str,
    row: str,
    dataset: str,
    population: str,
    seed: int,
    config: Mapping[str, Any],
) -> str:
    """Canonical text of the properties that identify a measurement.

    >>> a = key("main", "naive", "generated", "mixed", 0, {"a": 1, "b": (2,)})
    >>> a == key("main", "naive", "generated", "mixed", 0, {"b": [2], "a": 1})
    True
    """
    return json.dumps([table, row, dataset, population, seed, config], sort_keys=True)


def append(path: Path, record: Record) -> None:
    """Appends a record as one line; first marks an incomplete last line.

    Raises:
        ValueError: A metric is not finite, or the record does not fit into JSON.
        OSError: The line could not be written completely.
    """
    for name, value in record.metrics.items():
        if not math.isfinite(value):
            raise ValueError(
                f"metric {name} of row {record.row} must be finite, got {value}"
            )
    line = json.dumps(asdict(record), allow_nan=False).encode() + b"\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        size = os.fstat(file).st_size
        if size and os.pread(file, 1, size - 1) != b"\n":
            line = TORN + b"\n" + line
        if (written := os.write(file, line)) != len(line):
            raise OSError(f"{path}: wrote {written} of {len(line)} bytes")
        os.fsync(file)
    finally:
        os.close(file)


def read(path: Path) -> list[Record]:
    """All records of a file in order; none if the file is absent.

    Warns:
        UserWarning: A half-written line is dropped. The warning names the file and the
            line.

    Raises:
        ValueError: A complete line is not a record. The error message names the file
            and the line.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    records = []
    for number, line in enumerate(lines, start=1):
        torn = number == len(lines) or line.endswith(TORN)
        # The line is only the mark if two appends met the same truncated line.
        line = line.removesuffix(TORN)
        if not line.strip():
            continue
        try:
            records.append(_record(json.loads(line)))
        except ValueError as error:
            if not torn:
                raise ValueError(f"{path}, line {number}: {error}") from error
            warnings.warn(
                f"{path}, line {number}: dropped, it was half-written", stacklevel=2
            )
    return records


def read_all(folder: Path, tables: Iterable[str]) -> dict[str, list[Record]]:
    """The records of each table, from its file in a folder."""
    return {name: read(folder / f"{name}.jsonl") for name in tables}


def newest(records: Iterable[Record]) -> dict[str, Record]:
    """The last record of each key, in the order in which the keys first appear."""
    return {record.key: record for record in records}


def _record(line: Any) -> Record:
    if not isinstance(line, dict) or line.keys() | {"machine"} != FIELDS:
        found = sorted(line) if isinstance(line, dict) else type(line).__name__
        raise ValueError(f"expected an object of {sorted(FIELDS)}, got {found}")
    for name in ("metrics", "config", "versions", "machine"):
        if not isinstance(line.setdefault(name, {}), dict):
            raise ValueError(f"{name} must be an object, got {line[name]!r}")
    for name, value in line["metrics"].items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value):
            raise ValueError(f"metric {name} must be a finite number, got {value!r}")
    if type(line["seed"]) is not int:
        raise ValueError(f"seed must be an integer, got {line['seed']!r}")
    return Record(**line)
