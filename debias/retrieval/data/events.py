"""Events as they arrive: read from growing files, and appended to `Interactions`.

A stream is a set of files to which rows are only ever added, at the end. A `Mark` says
of each file how many rows have been read, with their checksum. A consumer stores marks
and results in one atomic write. Restarted from the marks, it reads the rows behind
them: no event is lost or applied twice.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from debias.data.shown import Batch, names_of, numbers_of
from debias.data.stores import store_url
from debias.data.tables import Part, Source, in_memory, near, open_parts
from debias.data.times import Times
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

    @classmethod
    def of(cls, log: Interactions) -> "Events":
        """The events of a log by raw ids.

        >>> table = FeatureTable.build({"id": ["a"]})
        >>> log = Interactions(*np.array([[0], [0], [9]]), table, table)
        >>> Events.of(log).user.tolist()
        ['a']
        """
        users, items = (t.vocabularies[ID] for t in (log.users, log.items))
        return cls(users[log.user], items[log.item], log.time)

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
    if path.suffix not in _TEXT or store_url(path) or not path.stat().st_size:
        return  # an object of a store is whole or absent
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
        times = Times().read(batch)
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
    max_events: int | None = None,
    progress: Callable[[float], None] = lambda share: None,
) -> Iterator[tuple[Events, dict[str, Mark]]]:
    """The events behind the marks, in chunks; with each, the marks once it is applied.

    Files that have no mark yet are read from their first row. A run that starts from
    the marks of a chunk gets the same further chunks as one that did not stop there.

    Args:
        source, columns, progress: As for `read_events`. A file is known by its path.
        applied: The marks so far.
        max_events: Events of a chunk, at most; None: one chunk a file.

    Raises:
        ValueError: A file has fewer rows than its mark, or others: rows that were
            applied have been changed or removed.

    >>> table = pa.table({"user": ["u", "v"], "item": ["i", "j"], "time": [1, 2]})
    >>> (first, marks), (second, end) = pending(table, {}, max_events=1)
    >>> [events.user.tolist() for events, _ in pending(table, marks)]
    [['v']]
    >>> list(pending(table, end))
    []
    """
    marks = dict(applied)
    for name, events in read_events(source, columns, progress):
        key = (
            name if in_memory(source) else store_url(name) or str(Path(name).resolve())
        )
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
            stop = None if max_events is None else rows + max_events
            chunk = events.part(rows, stop)
            rows += len(chunk.user)
            _digest(total, chunk)
            marks[key] = Mark(rows, total.hexdigest())
            yield chunk, dict(marks)


def _digest(total: Any, events: Events) -> None:
    lines = zip(*(column.tolist() for column in events), strict=True)
    total.update("".join(f"{u}\0{i}\0{t}\n" for u, i, t in lines).encode())


class Appended(NamedTuple):
    """What appending events came to.

    Attributes:
        log: Old events, then `events` new ones in the order in which they came.
        events: How many are new.
        duplicates: How many were left out: the same user has taken the same item at the
            same time.
        users, items: How many rows are new.
        bare: How many of these rows have none of the features that others have.
    """

    log: Interactions
    events: int
    duplicates: int
    users: int
    items: int
    bare: int


def append_events(
    log: Interactions,
    events: Events,
    users: Mapping[str, Any] | None = None,
    items: Mapping[str, Any] | None = None,
) -> Appended:
    """The log with further events; unknown ids get rows at the end.

    Events may come in any order of time: histories are sorted. A user or an item that
    no table describes has all its features missing.

    Args:
        log: The log so far.
        events: What is new.
        users, items: Raw feature columns of new ones, "id" among them, in any order;
            rows of known ids change nothing.

    Raises:
        ValueError: A table lacks a feature of the log's, or has another; names it.

    >>> table = FeatureTable.build({"id": ["a", "b"]})
    >>> log = Interactions(*np.array([[0], [1], [5]]), table, table)
    >>> new = Events(np.array(["a", "c"]), np.array(["b", "b"]), np.array([5, 4]))
    >>> appended = append_events(log, new)
    >>> appended.log.user.tolist(), appended.duplicates, appended.users
    ([0, 2], 1, 1)
    """
    user_table, bare_users = _with_rows(log.users, events.user, users, "users")
    item_table, bare_items = _with_rows(log.items, events.item, items, "items")
    user = user_table.encode({ID: events.user})[0][ID] - FIRST
    item = item_table.encode({ID: events.item})[0][ID] - FIRST
    time = events.time.astype(np.int64)
    new = _first_times(log, user, item, time)
    weight = None
    if log.weight is not None:
        weight = np.append(log.weight, np.ones(len(new), np.float32))
    grown = replace(
        log,
        user=np.append(log.user, user[new]).astype(np.int32),
        item=np.append(log.item, item[new]).astype(np.int32),
        time=np.append(log.time, time[new]),
        users=user_table,
        items=item_table,
        weight=weight,
        _sorted={},
    )
    return Appended(
        grown,
        len(new),
        len(time) - len(new),
        len(user_table) - len(log.users),
        len(item_table) - len(log.items),
        bare_users + bare_items,
    )


def _first_times(
    log: Interactions, user: np.ndarray, item: np.ndarray, time: np.ndarray
) -> np.ndarray:
    """Rows, rising, of the events that neither the log nor an earlier one holds."""
    known = np.isin(log.user, user)
    before = (log.user[known], log.item[known], log.time[known])
    pairs = zip(before, (user, item, time), strict=True)
    triples = np.stack([np.concatenate(pair) for pair in pairs])
    _, first = np.unique(triples, axis=1, return_index=True)
    return np.sort(first[first >= known.sum()]) - known.sum()


def _with_rows(
    table: FeatureTable, names: np.ndarray, raw: Mapping[str, Any] | None, side: str
) -> tuple[FeatureTable, int]:
    """The table with a row for each name, and how many of the new ones are bare."""
    if raw is not None:
        _check_features(table, raw, side)
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


def _check_features(table: FeatureTable, raw: Mapping[str, Any], side: str) -> None:
    for what, names in (
        ("lacks the features", table.columns.keys() - raw.keys()),
        ("has the unknown features", raw.keys() - table.columns.keys()),
    ):
        if names:
            raise ValueError(
                f"the table of {side} {what} {sorted(names)}; the model reads "
                f"{list(table.columns)}"
            )
