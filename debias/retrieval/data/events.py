"""Reads events from growing files and appends them to `Interactions`.

A stream is a set of files to which rows are only appended. A `Mark` records how many
rows of a file were read, and the checksum of these rows. A consumer of the stream
stores marks and results in one atomic write. After a restart, the consumer reads only
the rows after the marks. So every event is applied exactly once.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from debias.data.arrays import bytes_of, first_no_text, plain, whole_names
from debias.data.shown import Batch, Fault, names_of, numbers_of
from debias.data.stores import store_url
from debias.data.tables import Part, Source, in_memory, near, open_parts
from debias.data.text import quoted
from debias.data.times import Times, called, unit_clash
from debias.retrieval.data.interactions import (
    FIRST,
    ID,
    UNKNOWN,
    FeatureTable,
    Interactions,
    whole_times,
)

_TEXT = (".csv", ".tsv", ".jsonl", ".ndjson")


class Events(NamedTuple):
    """Events with raw ids of users and items.

    Attributes:
        user, item: (E,) strings.
        time: (E,) int64, or float64 if a time has a fraction. All times have the same
            unit; any unit is allowed.
        target: (E,) strings, the kind of each event, such as "click". None if the kinds
            are unknown.
    """

    user: np.ndarray
    item: np.ndarray
    time: np.ndarray
    target: np.ndarray | None = None

    @classmethod
    def of(cls, log: Interactions) -> "Events":
        """The events of a log, with raw ids instead of row numbers.

        >>> table = FeatureTable.build({"id": ["a"]})
        >>> log = Interactions(*np.array([[0], [0], [9]]), table, table)
        >>> Events.of(log).user.tolist()
        ['a']
        """
        users, items = (t.vocabularies[ID] for t in (log.users, log.items))
        target = None if log.target is None else np.array(log.targets)[log.target]
        return cls(users[log.user], items[log.item], log.time, target)

    def part(self, start: int, stop: int | None = None) -> "Events":
        some = slice(start, stop)
        target = None if self.target is None else self.target[some]
        return Events(self.user[some], self.item[some], self.time[some], target)


class Mark(NamedTuple):
    """Position in a file: the number of rows read, and the SHA-256 of these rows."""

    rows: int
    digest: str


Marks = Mapping[str, Mark]


class EventColumns(NamedTuple):
    """Column names of a table of events; the target column is optional."""

    user: str = "user"
    item: str = "item"
    time: str = "time"
    target: str | None = None

    @property
    def read(self) -> dict[str, str]:
        """Dict from each role that has a column, such as "user", to the column name."""
        return {role: name for role, name in self._asdict().items() if name}


PLAIN = EventColumns()


def read_events(
    source: Source,
    columns: EventColumns = PLAIN,
    progress: Callable[[float], None] = lambda share: None,
) -> Iterator[tuple[str, Events]]:
    """Yields (file name, events of the file) for each file, sorted by file name.

    Args:
        source: See `debias.data.tables.open_parts`: CSV, Parquet, JSON lines or an
            Arrow table, with one row per event.
        columns: Names of the columns. Ids are text or whole numbers and must not be
            missing. The text ids "007" and "7" differ. The number 7.0, which data
            frames write for 7, is read as the id "7". Times are numbers or timestamps.
            Timestamps are converted to seconds since 1970, with microsecond precision.
            Numbers may have fractions.
        progress: Function that is called with the share of the source read so far.

    Raises:
        ValueError: A column is missing, an id is empty, or a file is damaged. A time is
            NaN, or is neither a number nor a timestamp. Times have several units, such
            as seconds and milliseconds. A text file does not end with a line break, so
            its last row may be incomplete. The message names the file, the column and
            the row.

    >>> table = pa.table({"user": ["u", "v"], "item": [7, 8], "time": [3.5, 4.0]})
    >>> [(name, events.item.tolist()) for name, events in read_events(table)]
    [('table', ['7', '8'])]
    """
    parts = open_parts(source)
    for part in parts:
        for role, name in columns.read.items():
            if name not in part.schema.names:
                raise ValueError(
                    f"{part.name}: no column {name} for {role}: "
                    f"{near(name, part.schema.names)}; say {role}=NAME "
                    "(with -c of `debias retrieval train`)"
                )
        _check_end(Path(part.name))
    unit = ""
    for number, part in enumerate(parts):
        pieces, start = [_nothing(columns)], 0
        for batch, share in part.read(tuple(columns.read.values()), ()):
            pieces.append(_events_of(part, start, batch, columns))
            start += batch.num_rows
            progress((number + share) / len(parts))
        events = joined_events(pieces)
        unit, row = unit_clash(events.time, unit)
        if row >= 0:
            where = f"{part.name}: column {columns.time} at row {row}"
            raise ValueError(_clash(where, "earlier times", events.time[row], unit))
        yield part.name, events


def _clash(where: str, others: str, time: Any, unit: str) -> str:
    """The error message for a time whose unit differs from the unit of other times."""
    other = unit_clash(np.array([time]))[0]
    return (
        f"{where} holds {called(other)} since 1970, but {others} are {called(unit)}: "
        "write one unit"
    )


def _nothing(columns: EventColumns) -> Events:
    none = np.empty(0, str)
    return Events(none, none, np.empty(0, np.int64), none if columns.target else None)


def _check_end(path: Path) -> None:
    if path.suffix not in _TEXT or store_url(path) or not path.stat().st_size:
        return  # an object of a store is complete or absent
    with path.open("rb") as file:
        file.seek(-1, 2)
        if file.read() != b"\n":
            raise ValueError(
                f"{path}: the last row has no line ending and may be incomplete; "
                "complete or remove it"
            )


def _events_of(
    part: Part, start: int, rows: pa.RecordBatch, columns: EventColumns
) -> Events:
    chosen: dict[str, tuple[str, ...]] = {
        "timestamp" if role == "time" else role: (name,)
        for role, name in columns.read.items()
    }
    arrays = {role: [plain(rows.column(name[0]))] for role, name in chosen.items()}
    batch = Batch(part.name, start, arrays, None, chosen)
    for role, (array,) in arrays.items():
        if (row := first_no_text(array)) is not None:
            what = f"is not UTF-8, such as {bytes_of(array, row)}"
            raise batch.fault(role, row, what, "write the file as UTF-8")

    def names(role: str) -> np.ndarray:
        array = arrays[role][0]
        missing = pc.is_null(array, nan_is_null=True)
        if pa.types.is_string(array.type):
            missing = pc.or_kleene(missing, pc.equal(array, ""))
        if (row := pc.index(missing, True).as_py()) >= 0:
            raise batch.fault(role, row, "is empty", "fill or remove the row")
        text = whole_names(names_of(batch, role, array).cast(pa.string()))
        return text.to_numpy(zero_copy_only=False).astype(str)

    target = names("target") if columns.target else None
    try:
        times = _times(batch)
    except Fault as fault:  # its advice is that for an optional column
        raise ValueError(
            f"{part.name}: column {columns.time} {fault.what} at row {fault.row}; "
            "repair or remove the row, or name another column for time"
        ) from None
    return Events(names("user"), names("item"), times, target)


def _times(batch: Batch) -> np.ndarray:
    """Returns numbers unchanged, and timestamps as seconds since 1970."""
    array = batch.arrays["timestamp"][0]
    first = next((t for t in array.slice(0, 100).to_pylist() if t is not None), None)
    if pa.types.is_string(array.type) and _is_time(first):
        times = Times().read(batch)
    elif pa.types.is_timestamp(array.type) or pa.types.is_date(array.type):
        times = array.to_numpy(zero_copy_only=False)
    elif pa.types.is_integer(array.type) and not array.null_count:
        whole = array.to_numpy()
        if whole.max(initial=0) < 2**63:
            return whole.astype(np.int64)
        times = numbers_of(batch, "timestamp")
    else:
        times = numbers_of(batch, "timestamp")
    missing = np.isnat(times) if times.dtype.kind == "M" else ~np.isfinite(times)
    if missing.any():
        row = int(np.argmax(missing))
        what = f"must be a finite number or a time, got {times[row]}"
        raise batch.fault("timestamp", row, what, "repair or remove the row")
    if times.dtype.kind == "M":
        times = times.astype("datetime64[us]").astype(np.int64) / 1e6
    return whole_times(times)


def _is_time(text: str | None) -> bool:
    """Whether a text is a timestamp rather than a number."""
    try:
        float(text or "nan")
    except ValueError:
        return True
    return False


def read_all(
    source: Source,
    columns: EventColumns = PLAIN,
    progress: Callable[[float], None] = lambda share: None,
) -> Events:
    """Reads all events of a source; `read_events` explains the arguments.

    Raises:
        ValueError: The source has no events, or `read_events` raises an error.
    """
    every = joined_events([each for _, each in read_events(source, columns, progress)])
    if not len(every.user):
        name = "table" if in_memory(source) else source
        raise ValueError(f"{name}: holds no event")
    return every


def joined_events(parts: Sequence[Events]) -> Events:
    """Concatenates parts; either all parts or no part must have targets."""
    targets = [part.target for part in parts if part.target is not None]
    return Events(
        np.concatenate([part.user for part in parts]),
        np.concatenate([part.item for part in parts]),
        np.concatenate([part.time for part in parts]),
        np.concatenate(targets) if targets else None,
    )


def pending(
    source: Source,
    applied: Marks,
    columns: EventColumns = PLAIN,
    max_events: int | None = None,
    progress: Callable[[float], None] = lambda share: None,
) -> Iterator[tuple[Events, dict[str, Mark]]]:
    """Yields the events after the marks in chunks, with the marks after each chunk.

    Files without a mark are read from their first row. A run that starts from the marks
    of a chunk yields the same later chunks as an uninterrupted run.

    Args:
        source, columns, progress: See `read_events`. A file is identified by its path.
        applied: Marks of the events that were applied before.
        max_events: Largest number of events in a chunk. If None, each file is one
            chunk.

    Raises:
        ValueError: A file has fewer rows than its mark says, or applied rows have
            changed.

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
                f"{name}: its first {rows} rows have changed since they were applied; "
                "a file may only grow at its end: restore it, or put new events into "
                "a new file"
            )
        while rows < len(events.user):
            stop = None if max_events is None else rows + max_events
            chunk = events.part(rows, stop)
            rows += len(chunk.user)
            _digest(total, chunk)
            marks[key] = Mark(rows, total.hexdigest())
            yield chunk, dict(marks)


def _digest(total: Any, events: Events) -> None:
    given = [column.tolist() for column in events if column is not None]
    # The text of a time does not depend on whether other times have fractions.
    text = "".join(
        "\0".join([u, i, str(int(t) if t == int(t) else t), *more]) + "\n"
        for u, i, t, *more in zip(*given, strict=True)
    )
    total.update(text.encode())


class Appended(NamedTuple):
    """The result of appending events.

    Attributes:
        log: The old events, followed by the new events in order of arrival.
        events: Number of new events.
        duplicates: Number of events that were left out, because an earlier event has
            the same user, item, time and target.
        users, items: Number of new users, and number of new items.
        bare: Number of new users and items without any feature.
        late: Number of new events that are older than a known event of their user.
        lacks: Dict from "users" or "items" to a dict with two entries: "count", the
            number of new rows without features, and "features", the names of the
            missing features.
        unknown: Dict from "users" or "items" to a dict from feature name to the number
            of new rows with an unknown value.
    """

    log: Interactions
    events: int
    duplicates: int
    users: int
    items: int
    bare: int
    late: int
    lacks: Mapping[str, Any]
    unknown: Mapping[str, Mapping[str, int]]


def append_events(
    log: Interactions,
    events: Events,
    users: Mapping[str, Any] | None = None,
    items: Mapping[str, Any] | None = None,
) -> Appended:
    """Appends events to a log; unknown ids get new rows at the end.

    Events may arrive in any order, because histories are sorted by time. `late` counts
    the events that are older than a known event of their user. An event with a time far
    in the future is the latest event of its user until a later event arrives. A new
    user or item has no features if the table `users` or `items` has no row for its id.

    Args:
        log: The log to extend.
        events: The new events.
        users, items: Raw feature columns of new users and items, including "id". Rows
            may be in any order. Rows of known ids are ignored.

    Raises:
        ValueError: The features of a table and of the log differ in name or kind. The
            message names the feature. The times of the new events and the times of the
            log have different units.

    >>> table = FeatureTable.build({"id": ["a", "b"]})
    >>> log = Interactions(*np.array([[0], [1], [5]]), table, table)
    >>> new = Events(np.array(["a", "c"]), np.array(["b", "b"]), np.array([5, 4]))
    >>> appended = append_events(log, new)
    >>> appended.log.user.tolist(), appended.duplicates, appended.users
    ([0, 2], 1, 1)
    """
    unit, row = unit_clash(events.time, unit_clash(log.time)[0])
    if row >= 0:
        where, old = f"the new event {row}", "the times of the log"
        raise ValueError(_clash(where, old, events.time[row], unit))
    user_table, bare_users = _with_rows(log.users, events.user, users, "users")
    item_table, bare_items = _with_rows(log.items, events.item, items, "items")
    user = user_table.encode({ID: events.user})[0][ID] - FIRST
    item = item_table.encode({ID: events.item})[0][ID] - FIRST
    time, target = events.time, _target_codes(log, events)
    new = _first_times(log, user, item, time, target)
    weight = None
    if log.weight is not None:
        weight = np.append(log.weight, np.ones(len(new), np.float32))
    if log.target is not None and target is not None:
        target = np.append(log.target, target[new]).astype(np.int32)
    grown = replace(
        log,
        user=np.append(log.user, user[new]).astype(np.int32),
        item=np.append(log.item, item[new]).astype(np.int32),
        time=np.append(log.time, time[new]),
        users=user_table,
        items=item_table,
        weight=weight,
        target=target,
        _sorted={},
    )
    lacks = {
        side: {"count": bare, "features": [n for n in table.columns if n != ID]}
        for side, table, bare in (
            ("users", user_table, bare_users),
            ("items", item_table, bare_items),
        )
        if bare
    }
    unknown = {
        "users": _unknown(log.users, user_table),
        "items": _unknown(log.items, item_table),
    }
    return Appended(
        grown,
        len(new),
        len(time) - len(new),
        len(user_table) - len(log.users),
        len(item_table) - len(log.items),
        bare_users + bare_items,
        _late(log, user[new], time[new]),
        lacks,
        {side: found for side, found in unknown.items() if found},
    )


def _unknown(old: FeatureTable, new: FeatureTable) -> dict[str, int]:
    """For each feature, the number of new rows that have an unknown value."""
    found = {}
    for name, column in new.columns.items():
        strange = (column[len(old) :] == UNKNOWN) & (column.dtype.kind != "f")
        count = int((strange if strange.ndim == 1 else strange.any(axis=1)).sum())
        if count:
            found[name] = count
    return found


def _late(log: Interactions, user: np.ndarray, time: np.ndarray) -> int:
    known = user < len(log.users)
    latest = np.full(len(log.users), -np.inf)
    np.maximum.at(latest, log.user, log.time)
    return int((time[known] < latest[user[known]]).sum())


def _target_codes(log: Interactions, events: Events) -> np.ndarray | None:
    """(E,) int32 index into the targets of the log; None if the log has no targets."""
    if log.target is None:
        return None
    if events.target is None:
        raise ValueError(
            f"the log has the targets {' '.join(map(quoted, log.targets))}, but the "
            "events have none: name their column (-c target=NAME)"
        )
    words, place = np.unique(events.target, return_inverse=True)
    strange = [word for word in words.tolist() if word not in log.targets]
    if strange:
        raise ValueError(
            f"the events have the target {quoted(strange[0])}, but the log has "
            f"{' '.join(map(quoted, log.targets))}: train with a worth for it (--worth "
            "NAME=VALUE; 0 ignores it), or remove such events"
        )
    codes = np.array([log.targets.index(word) for word in words.tolist()], np.int32)
    return codes[place] if len(words) else place.astype(np.int32)


def _first_times(
    log: Interactions,
    user: np.ndarray,
    item: np.ndarray,
    time: np.ndarray,
    target: np.ndarray | None,
) -> np.ndarray:
    """Ascending rows of events that are neither in the log nor in an earlier row."""
    known = np.isin(log.user, user)
    before = [log.user[known], log.item[known], log.time[known]]
    given = [user, item, time]
    if log.target is not None and target is not None:
        before, given = [*before, log.target[known]], [*given, target]
    pairs = zip(before, given, strict=True)
    triples = np.stack([np.concatenate(pair) for pair in pairs])
    _, first = np.unique(triples, axis=1, return_index=True)
    return np.sort(first[first >= known.sum()]) - known.sum()


def _with_rows(
    table: FeatureTable, names: np.ndarray, raw: Mapping[str, Any] | None, side: str
) -> tuple[FeatureTable, int]:
    """Adds a row for each new id; also counts the new rows without features."""
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
        try:
            table = table.append(some)
        except ValueError as error:
            raise ValueError(f"the table of {side}: {error}") from None
    if not here.all():
        table = table.append({ID: new[~here]})
    return table, int((~here).sum()) if len(table.columns) > 1 else 0


def _check_features(table: FeatureTable, raw: Mapping[str, Any], side: str) -> None:
    more, fewer = raw.keys() - table.columns.keys(), table.columns.keys() - raw.keys()
    for what, names, todo in (
        ("lacks the features", fewer, "add them, empty"),
        ("has the unknown features", more, "leave them out"),
    ):
        if names:
            raise ValueError(
                f"the table of {side} {what} {sorted(names)}; the model reads "
                f"{list(table.columns)}: {todo}, or train anew"
            )
