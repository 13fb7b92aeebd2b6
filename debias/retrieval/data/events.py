"""Events as they arrive: read from growing files, and taken into `Interactions`.

A stream is a set of files whose rows are only ever added, at the end. How far it has
been read is a `Mark` for each file: so many rows, and what they were. Marks are what a
consumer keeps beside what it made of the events, in one atomic write: started again
from the marks, it reads on exactly behind them, and nothing is lost or comes twice.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from debias.data.shown import Batch, names_of, numbers_of, times_of
from debias.data.tables import Part, Source, near, open_parts
from debias.retrieval.data.interactions import (
    FIRST,
    ID,
    UNKNOWN,
    FeatureTable,
    Interactions,
)

_TEXT = (".csv", ".tsv", ".jsonl", ".ndjson")


class Events(NamedTuple):
    """Who took what, when, by the names that the outside world has for them.

    Attributes:
        user, item: (E,) strings.
        time: (E,) int64, any unit.
    """

    user: np.ndarray
    item: np.ndarray
    time: np.ndarray

    def part(self, start: int, stop: int | None = None) -> "Events":
        return Events(*(column[start:stop] for column in self))


class Mark(NamedTuple):
    """How far one file has been read: its rows, and a SHA-256 of what they say."""

    rows: int
    digest: str


Marks = Mapping[str, Mark]


class EventColumns(NamedTuple):
    """What a table of events calls its columns."""

    user: str = "user"
    item: str = "item"
    time: str = "time"


PLAIN = EventColumns()


def read_events(
    source: Source,
    columns: EventColumns = PLAIN,
    progress: Callable[[float], None] = lambda share: None,
) -> Iterator[tuple[str, Events]]:
    """The events of each file, in the order of the files' names, each with its name.

    Args:
        source: As for `debias.data.tables.open_parts`: CSV, Parquet, JSON lines or an
            Arrow table, a row an event.
        columns: Their names. Ids are text or whole numbers; times are numbers, of which
            the fraction is cut off, or times, which become seconds since 1970.
        progress: Called with the share that is read.

    Raises:
        ValueError: A column is missing; an id is empty, or a time neither number nor
            time, NaN for instance; a file is damaged, or its text does not end with the
            end of a line, so that its last row may be cut. Names file, column and row.

    >>> table = pa.table({"user": ["u", "v"], "item": [7, 8], "time": [3.5, 4.0]})
    >>> [(name, events.item.tolist()) for name, events in read_events(table)]
    [('table', ['7', '8'])]
    """
    parts = open_parts(source)
    for part in parts:
        for role, name in columns._asdict().items():
            if name not in part.schema.names:
                raise ValueError(
                    f"{part.name}: no column {name} for {role}: "
                    f"{near(name, part.schema.names)}; say {role}=NAME"
                )
        _check_end(Path(part.name))
    for number, part in enumerate(parts):
        pieces, start = [_NONE], 0
        for batch, share in part.read(columns, ()):
            pieces.append(_events_of(part, start, batch, columns))
            start += batch.num_rows
            progress((number + share) / len(parts))
        yield part.name, Events(*map(np.concatenate, zip(*pieces, strict=True)))


_NONE = Events(np.empty(0, str), np.empty(0, str), np.empty(0, np.int64))


def _check_end(path: Path) -> None:
    if path.suffix not in _TEXT or not path.stat().st_size:
        return
    with path.open("rb") as file:
        file.seek(-1, 2)
        if file.read() != b"\n":
            raise ValueError(
                f"{path}: the last row does not end with the end of a line, it may be "
                "cut in the middle; complete it, or remove it"
            )


def _events_of(
    part: Part, start: int, rows: pa.RecordBatch, columns: EventColumns
) -> Events:
    chosen: dict[str, tuple[str, ...]] = {
        role: (name,)
        for role, name in zip(("user", "item", "timestamp"), columns, strict=True)
    }
    arrays = {role: [rows.column(name[0])] for role, name in chosen.items()}
    batch = Batch(part.name, start, arrays, None, chosen)

    def names(role: str) -> np.ndarray:
        array = names_of(batch, role, arrays[role][0])
        text = array.cast(pa.string()).fill_null("").to_numpy(zero_copy_only=False)
        if not all(text):
            row = int(np.argmax(text == ""))
            raise batch.fault(role, row, "is empty", "fill or remove the row")
        return text.astype(str)

    return Events(names("user"), names("item"), _seconds(batch))


def _seconds(batch: Batch) -> np.ndarray:
    array = batch.arrays["timestamp"][0]
    if pa.types.is_string(array.type) and len(array) and _is_time(array[0].as_py()):
        times = times_of(batch, array)
    elif pa.types.is_temporal(array.type):
        times = array.to_numpy(zero_copy_only=False)
    elif pa.types.is_integer(array.type) and not array.null_count:
        return array.to_numpy().astype(np.int64)
    else:
        times = numbers_of(batch, "timestamp")
    missing = np.isnat(times) if times.dtype.kind == "M" else ~np.isfinite(times)
    if missing.any():
        row = int(np.argmax(missing))
        what = f"must be a finite number or a time, got {times[row]}"
        raise batch.fault("timestamp", row, what, "repair or remove the row")
    if times.dtype.kind == "M":
        times = times.astype("datetime64[s]")
    return times.astype(np.int64)


def _is_time(text: str | None) -> bool:
    """Whether a text is rather a time than a number."""
    try:
        float(text or "nan")
    except ValueError:
        return True
    return False


def pending(
    source: Source,
    applied: Marks,
    columns: EventColumns = PLAIN,
    most: int | None = None,
    progress: Callable[[float], None] = lambda share: None,
) -> Iterator[tuple[Events, dict[str, Mark]]]:
    """The events behind the marks, and with each lot the marks once it is applied.

    Files that have no mark yet are read from their first row. Where a run stops between
    two lots and another begins from the marks of the last, it gets the same lots that
    the first would have got.

    Args:
        source, columns, progress: As for `read_events`. A file is known by its path.
        applied: The marks so far.
        most: How many events a lot has at most; None: one lot a file.

    Raises:
        ValueError: A file has fewer rows than its mark, or others: rows that were
            applied have been changed or removed.

    >>> table = pa.table({"user": ["u", "v"], "item": ["i", "j"], "time": [1, 2]})
    >>> (first, marks), (second, end) = pending(table, {}, most=1)
    >>> [events.user.tolist() for events, _ in pending(table, marks)]
    [['v']]
    >>> list(pending(table, end))
    []
    """
    marks = dict(applied)
    for name, events in read_events(source, columns, progress):
        key = name if isinstance(source, pa.Table) else str(Path(name).resolve())
        mark = marks.get(key, Mark(0, ""))
        rows, total = mark.rows, hashlib.sha256()
        _digest(total, events.part(0, rows))
        if len(events.user) < rows or (rows and total.hexdigest() != mark.digest):
            raise ValueError(
                f"{name}: its first {rows} rows are not those that were applied; a "
                "file may only grow at its end: restore it, or give new events a new "
                "name"
            )
        while rows < len(events.user):
            lot = events.part(rows, None if most is None else rows + most)
            rows += len(lot.user)
            _digest(total, lot)
            marks[key] = Mark(rows, total.hexdigest())
            yield lot, dict(marks)


def _digest(total: Any, events: Events) -> None:
    lines = zip(*(column.tolist() for column in events), strict=True)
    total.update("".join(f"{u}\0{i}\0{t}\n" for u, i, t in lines).encode())


class TakenIn(NamedTuple):
    """What became of events.

    Attributes:
        log: Old events, then `events` new ones in the order in which they came.
        events: How many are new.
        duplicates: How many were left out, for the same user took the same item at the
            same time already.
        users, items: How many rows are new.
        bare: How many of these have none of the features that others have.
    """

    log: Interactions
    events: int
    duplicates: int
    users: int
    items: int
    bare: int


def take_in(
    log: Interactions,
    events: Events,
    users: Mapping[str, Any] | None = None,
    items: Mapping[str, Any] | None = None,
) -> TakenIn:
    """The log with further events; ids that it does not know get rows at the end.

    Events may come in any order of time: histories are sorted. A user or an item that
    no table describes has all its features missing.

    Args:
        log: The log so far.
        events: What is new.
        users, items: Raw feature columns of new ones, "id" among them, and of any
            others; those that the log knows keep what it knows of them.

    >>> table = FeatureTable.build({"id": ["a", "b"]})
    >>> log = Interactions(*np.array([[0], [1], [5]]), table, table)
    >>> new = Events(np.array(["a", "c"]), np.array(["b", "b"]), np.array([5, 4]))
    >>> taken = take_in(log, new)
    >>> taken.log.user.tolist(), taken.duplicates, taken.users
    ([0, 2], 1, 1)
    """
    rows, tables, bare = [], [], 0
    for table, names, raw in (
        (log.users, events.user, users),
        (log.items, events.item, items),
    ):
        table, undescribed = _with_rows(table, names, raw)
        rows.append(table.encode({ID: names})[0][ID] - FIRST)
        tables.append(table)
        bare += undescribed
    time = events.time.astype(np.int64)
    known = np.isin(log.user, rows[0])
    before = [log.user[known], log.item[known], log.time[known]]
    triples = np.stack(
        [np.concatenate(pair) for pair in zip(before, [*rows, time], strict=True)]
    )
    _, first = np.unique(triples, axis=1, return_index=True)
    new = np.sort(first[first >= known.sum()]) - known.sum()
    weight = None
    if log.weight is not None:
        weight = np.append(log.weight, np.ones(len(new), np.float32))
    grown = replace(
        log,
        user=np.append(log.user, rows[0][new]).astype(np.int32),
        item=np.append(log.item, rows[1][new]).astype(np.int32),
        time=np.append(log.time, time[new]),
        users=tables[0],
        items=tables[1],
        weight=weight,
        _sorted={},
    )
    return TakenIn(
        grown,
        len(new),
        len(time) - len(new),
        len(tables[0]) - len(log.users),
        len(tables[1]) - len(log.items),
        bare,
    )


def _with_rows(
    table: FeatureTable, names: np.ndarray, raw: Mapping[str, Any] | None
) -> tuple[FeatureTable, int]:
    """The table with a row for each name, and how many of the new ones are bare."""
    _, first = np.unique(names, return_index=True)
    names = names[np.sort(first)]
    new = names[table.encode({ID: names})[0][ID] == UNKNOWN]
    if not len(new):
        return table, 0
    described = FeatureTable.build({ID: [] if raw is None else raw[ID]})
    place = described.encode({ID: new})[0][ID] - FIRST
    here = place >= 0
    if raw is not None and here.any():
        some = {
            name: [values[row] for row in place[here]] for name, values in raw.items()
        }
        table = table.append(some)
    if not here.all():
        table = table.append({ID: new[~here]})
    return table, int((~here).sum()) if len(table.columns) > 1 else 0
