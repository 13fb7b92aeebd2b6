"""Imports event logs as a click log, in bounded memory and resumable steps.

First, each file of the source is flattened and partitioned by session or user. Then the
events are joined into lists, one group of partitions at a time. Intermediate results
are in a hidden folder beside the output. At the end, the finished files move from the
hidden folder to the output.
"""

import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from debias.data.arrays import name_codes
from debias.data.events.flat import (
    IMPRESSION,
    NO_TIME,
    PART_BITS,
    SHOWN,
    Found,
    Paths,
    check_columns,
    paths_in,
)
from debias.data.events.joining import Counts, Events, How, Lists, join
from debias.data.events.roles import PRESETS, EventColumns
from debias.data.events.spill import (
    Spilled,
    common_schema,
    groups,
    read_buckets,
    spill,
)
from debias.data.files import atomic_write
from debias.data.nested import type_at
from debias.data.records import plain, read_record, write_record
from debias.data.tables import Part, Source, in_memory, open_parts, unchanged, with_json
from debias.data.text import near, printable, quoted
from debias.types import Over

PAUSE = 1800.0  # seconds
_ROW = 600  # estimated bytes in memory per joined event
_REPORT = "_import.json"  # readers of Parquet ignore names with an underscore

COUNTED = {
    "copies": "events with the id of an earlier event, left out",
    "duplicates": "impressions of an item that the list already showed, merged",
    "reranked": "lists with repeated or missing ranks, ordered by time",
    "unplaced": "impressions below the first position, treated as unranked",
    "holes": "lists with gaps in their ranks, kept unchanged",
    "orphans": "actions on an item that was not shown, left out",
    "early": "actions before the impression of their item, kept",
    "late": "actions after the window, left out",
    "unshown": "queries that showed nothing, left out",
    "parted": "additional lists of sessions that asked several queries",
    "without_item": "events without an item, left out",
    "without_session": "events without a session or user, left out",
    "blank": "rows without an event, such as lines of a bulk request, ignored",
    "other_events": "events of other kinds, ignored",
}
"""Explanations of the counts in `Imported.counts`."""
_ROLES = {
    "copies": "id",
    "duplicates": "item",
    "reranked": "position",
    "unplaced": "position",
    "holes": "position",
    "orphans": "item",
    "early": "timestamp",
    "late": "timestamp",
    "parted": "query",
    "without_item": "item",
    "without_session": "session",
}  # column that each count comes from
_JOINED = (
    "copies",
    "duplicates",
    "reranked",
    "holes",
    "orphans",
    "early",
    "late",
    "unshown",
    "parted",
)  # counts of `join`
_SUMMED = (
    "actions",
    "blank",
    "without_item",
    "without_session",
    "bare_impressions",
    "bare_clicks",
    "unplaced",
    "zeros",
    "ones",
    "notices",
)  # counts of `Found`


class Imported(NamedTuple):
    """The result of an import.

    Attributes:
        path: Path of the log.
        lists, impressions: Number of lists and of shown items.
        clicks: Number of click events on shown items.
        clicked: Number of shown items with at least one click.
        targets: Number of other actions on shown items, such as purchases, by name of
            the action.
        events: Number of events in the source, by name of the event.
        by: Rule that separates lists: "key" (by session id), "row" (each event is a
            list) or "gap" (by pauses of the user).
        first_position: Number of the first rank in the source, such as 0 or 1.
        counts: Number of events and lists that were merged, skipped or changed, by
            kind.
        notices: Messages for the user. For example, a message states each count and its
            first row.
    """

    path: str
    lists: int
    impressions: int
    clicks: int
    clicked: int
    targets: dict[str, int]
    events: dict[str, int]
    by: str
    first_position: int
    counts: dict[str, int]
    notices: tuple[str, ...]


def import_events(
    source: Source,
    out: str | Path,
    columns: EventColumns | str = "generic",
    *,
    first_position: int | None = None,
    gap: float = PAUSE,
    window: float | None = None,
    memory: float = 0.5,
    force: bool = False,
    progress: Callable[[float], None] = lambda share: None,
    over: Over = map,
) -> Imported:
    """Joins events into a click log, and writes the log as Parquet files.

    The log has one row per list. The columns `item`, `position` and `click`, the
    targets, and the columns copied by `keep` hold lists. The column `query` is always
    present. The columns `session`, `user`, `device` and `timestamp` are present if the
    source has them. `read_log` and all commands read this log without any column
    options.

    Args:
        source: See `debias.data.tables.open_parts`. Queries and events may be in
            separate files.
        out: A new folder of Parquet files, or one file NAME.parquet.
        columns: Column names of the source. Pass the name of a preset, such as "ubi",
            "ga4" or "generic", or a modified preset, such as
            `PRESETS["ubi"].replaced(["click=click,add_to_cart"])`.
        first_position: Number of the first rank in the source. None means 0 if position
            0 has at least half as many impressions as position 1, and 1 otherwise.
        gap: Longest pause in seconds within a list; a longer pause of the user starts a
            new list. `gap` is used only if events have no session id, and each event
            has a single item.
        window: Longest time in seconds from an impression to an action on the shown
            item. None means no limit if events have a session id, and `gap` otherwise.
        memory: Approximate memory for joining events, in GB.
        force: Whether to replace existing output.
        progress: Called with the share of the work done.
        over: `map`, or a function with the same interface that works in parallel. The
            workers may be on a cluster if they can read and write all paths.

    Raises:
        FileNotFoundError: Nothing is there.
        ValueError: A column is missing, a value is not allowed, a file changed while it
            was read, no event shows an item, or `out` exists. The message names the
            file, the column and the row.

    >>> import tempfile
    >>> table = pa.table({
    ...     "session": ["a", "a", "a"], "event": ["impression", "impression", "click"],
    ...     "item": ["x", "y", "y"], "position": [1, 2, 2], "query": ["q"] * 3,
    ... })
    >>> found = import_events(table, tempfile.mkdtemp() + "/log")
    >>> found.lists, found.impressions, found.clicks, found.clicked
    (1, 2, 1, 1)
    """
    out = Path(out)
    columns = _columns(columns)
    names = columns.paths()
    inside = [path for some in names.values() for path in some]
    lists = {*names["item"], *names["shown"], *names["position"]}
    parts = [with_json(part, inside, lists) for part in open_parts(source)]
    paths = [paths_in(part, columns) for part in parts]
    check_columns(parts, paths, columns)
    asked = {
        "columns": plain(vars(columns)),
        "settings": plain([first_position, gap, window, memory]),
        "files": [] if in_memory(source) else [_state(part) for part in parts],
    }
    finished = _finished(out, asked, force)
    if finished is not None:
        return finished
    with unchanged(parts):
        work = _begun(out, asked)
        spilled = _spilled(parts, columns, work / "spill", progress, over)
    made = _Making(parts, columns, paths, spilled, first_position, gap, window)
    counts = made.write(work / "parts", int(memory * 1e9 / _ROW), progress, over)
    report = made.report(out, counts)
    write_record(work / "parts" / _REPORT, {**report._asdict(), "asked": asked})
    _publish(work, out, force)
    return report


def _columns(columns: EventColumns | str) -> EventColumns:
    if not isinstance(columns, EventColumns):
        if columns not in PRESETS:
            advice = near(columns, list(PRESETS))
            raise ValueError(f"no preset {quoted(columns)}: {advice}")
        columns = PRESETS[columns]
    taken = ["session", "query", "user", "device", "timestamp", "item", "position"]
    taken += ["click", *columns.target]
    for path in columns.keep:
        name = path.rpartition(".")[2]
        if name in taken:
            raise ValueError(
                f"keep={printable(path)}: the log has another column "
                f"{printable(name)}; rename it, or leave it out of keep"
            )
        taken.append(name)
    return columns


def _spilled(
    parts: Sequence[Part],
    columns: EventColumns,
    folder: Path,
    progress: Callable[[float], None],
    over: Over,
) -> list[Spilled]:
    """Writes the flat events of each part to disk."""
    if over is map:
        return [
            spill(part, number, columns, folder, _share(progress, number, len(parts)))
            for number, part in enumerate(parts)
        ]
    found = []
    asked = list(zip(parts, range(len(parts)), strict=True))
    for each in over(partial(_spill, columns, folder), asked):
        found.append(each)
        progress(0.8 * len(found) / len(parts))
    return found


def _spill(columns: EventColumns, folder: Path, asked: tuple[Part, int]) -> Spilled:
    return spill(*asked, columns, folder, lambda share: None)


def _share(
    progress: Callable[[float], None], number: int, count: int
) -> Callable[[float], None]:
    return lambda share: progress(0.8 * (number + share) / count)


# The folder of a run


def _state(part: Part) -> list[Any]:
    """Name, size and modification time of a file, to detect changes."""
    if part.file is None:
        return [part.name]
    stat = part.file.stat()
    return [part.name, stat.st_size, stat.st_mtime_ns]


def _work(out: Path) -> Path:
    return out.parent / f".{out.name}.importing"


def _finished(out: Path, asked: dict[str, Any], force: bool) -> Imported | None:
    """The report of a finished run with the same arguments; None if no run finished.

    Raises:
        ValueError: `out` exists, but holds no such report.
    """
    if force or not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    report = out / _REPORT
    if out.is_dir() and report.exists():
        before = read_record(report, ("asked", *Imported._fields))
        if before["asked"] == plain(asked) and asked["files"]:
            found = {name: before[name] for name in Imported._fields}
            if _published(_work(out)):  # by a run that was killed while it cleaned up
                shutil.rmtree(_work(out), ignore_errors=True)
            return Imported(**{**found, "notices": tuple(before["notices"])})
    raise ValueError(f"{out}: exists; --force (force=True) replaces it")


def _begun(out: Path, asked: dict[str, Any]) -> Path:
    """Returns the working folder, emptied unless an equal run was interrupted."""
    work = _work(out)
    plan = work / "plan.json"
    try:
        same = read_record(plan, ("files",)) == plain(asked) and bool(asked["files"])
    except ValueError:
        same = False
    if not same or _published(work):
        shutil.rmtree(work, ignore_errors=True)
        (work / "parts").mkdir(parents=True)
        (work / "spill").mkdir()
        write_record(plan, asked)
    return work


def _published(work: Path) -> bool:
    """Whether the files of a run were already moved to the output."""
    return not (work / "parts").is_dir()


def _publish(work: Path, out: Path, force: bool) -> None:
    """Moves the files of a run to `out`, and removes the working folder.

    If a run is killed in between, the next equal run completes the move. The plan is
    removed before the other files, so that no later run resumes from an incomplete
    folder.
    """
    if out.suffix in (".parquet", ".pq"):
        _in_one_file(work / "parts", out)
    else:
        if out.exists():
            if not force and any(out.iterdir()):
                raise ValueError(f"{out}: exists; --force (force=True) replaces it")
            shutil.rmtree(work / "replaced", ignore_errors=True)
            out.rename(work / "replaced")
        (work / "parts").rename(out)
    (work / "plan.json").unlink()
    shutil.rmtree(work)


def _in_one_file(folder: Path, out: Path) -> None:
    files = sorted(folder.glob("*.parquet"))
    with atomic_write(out) as aside:
        schema = pq.read_schema(files[0])
        with pq.ParquetWriter(aside, schema, write_page_checksum=True) as writer:
            for path in files:
                writer.write_table(pq.read_table(path))


# Lists


class _Making:
    """Builds lists from spilled events, a group of buckets at a time."""

    def __init__(
        self,
        parts: Sequence[Part],
        columns: EventColumns,
        paths: Sequence[Paths],
        spilled: Sequence[Spilled],
        first_position: int | None,
        gap: float,
        window: float | None,
    ) -> None:
        self._parts = parts
        self._columns = columns
        self._paths = paths
        self._spilled = spilled
        self._found = [each.found for each in spilled]
        self._total = _found(self._found)
        self._schema = common_schema(spilled)
        self.how = self._how(first_position, gap, window)
        self._check()

    def _how(self, first: int | None, gap: float, window: float | None) -> How:
        showing = any(self._total.actions[name] for name in self._columns.impression)
        if self._has("session"):
            by = "key"
        else:
            by = "row" if any(found.listed for found in self._found) else "gap"
        least = [found.least for found in self._found if found.least is not None]
        counted = min(least, default=1)
        if first is not None and counted < first:
            raise ValueError(
                f"{self._parts[0].name}: a position is {counted}, below the given "
                f"first position {first}; say --first-position {counted} "
                f"(first_position={counted})"
            )
        if window is None and by != "key":
            window = gap
        zeros, ones = self._total.zeros, self._total.ones
        if first is None:  # a list that counts from 0 has ranks 0 and 1
            first = 0 if zeros and 2 * zeros >= ones else 1
        self._strays = zeros if first == 1 else 0
        return How(
            by,
            IMPRESSION if showing else SHOWN,
            first,
            int(gap * 1e6),
            None if window is None else int(window * 1e6),
            len(self._columns.target),
        )

    def _check(self) -> None:
        events, found = sorted(self._total.actions), self._total
        name = self._parts[0].name
        if self.how.shown == IMPRESSION and not len(self._schema):
            role, what = "item", "an item"
            if found.without_session:
                role, what = "session", "a session or a user"
            place = self._place(f"without_{role}", found.first[f"without_{role}"])
            raise ValueError(
                f"{name}: no event has {what}{place}; say -c {role}=NAME"
                + (", or -c session= to split lists by pauses" * (role == "session"))
            )
        unshown = self.how.shown == SHOWN and not self._has("shown")
        if unshown or not len(self._schema):
            raise ValueError(
                f"{name}: no event shows an item: column "
                f"{printable(self._columns.event)} has {_some(events)}, and none of "
                f"{printable(' '.join(self._columns.impression))}; say -c "
                "impression=NAME, or -c shown=COLUMN if a column holds the whole list"
            )
        named = {*self._columns.impression, *self._columns.click, *self._columns.target}
        others = [event for event in events if event not in named]
        if others and not {*events} & {*self._columns.click}:
            raise ValueError(
                f"{name}: no event is a click: column {printable(self._columns.event)} "
                f"has {_some(others)}, and none of "
                f"{printable(' '.join(self._columns.click))}; say -c click=NAME"
            )
        self._check_items()
        timed = any(found.calendar is not None for found in self._found)
        if self.how.by == "gap" and not timed:
            raise ValueError(
                f"{name}: events have no session and no time; "
                "say -c session=NAME, or -c timestamp=NAME to split lists by pauses"
            )

    def _check_items(self) -> None:
        """Raises ValueError if no impression, or no click, has an item."""
        found, columns = self._total, self._columns
        for word, names, bare in (
            ("impression", columns.impression, found.bare_impressions),
            ("click", columns.click, found.bare_clicks),
        ):
            events = sum(found.actions[name] for name in names)
            if 0 < events <= bare:
                item = printable(",".join(columns.item))
                raise ValueError(
                    f"{self._parts[0].name}: none of the {events:,} {word} events has "
                    f"an item in column {item}; if another column has it, give both: "
                    f"-c item={item},NAME"
                )

    def write(
        self, folder: Path, most: int, progress: Callable[[float], None], over: Over
    ) -> list[Counts]:
        """Writes one file per group of buckets, unless a complete file exists."""
        ranges = groups(self._spilled, max(most, 1))
        every = []
        for counts in over(partial(self._group, folder), list(enumerate(ranges))):
            every.append(counts)
            progress(0.8 + 0.2 * len(every) / len(ranges))
        if not any(counts.lists for counts in every):
            raise ValueError(f"{self._parts[0].name}: no event shows an item")
        return every

    def _group(self, folder: Path, asked: tuple[int, tuple[int, int]]) -> Counts:
        """Writes the file of a group of buckets unless it is complete."""
        number, (low, high) = asked
        path = folder / f"part-{number:05d}.parquet"
        record = folder.parent / f"{path.stem}.json"
        if not record.exists():
            rows = read_buckets(self._spilled, low, high, self._schema)
            table, counts = self.lists(rows)
            if len(table):
                with atomic_write(path) as aside:
                    pq.write_table(
                        table, aside, compression="lz4", write_page_checksum=True
                    )
            write_record(record, vars(counts))
        return Counts(**read_record(record, ("lists",)))

    def lists(self, rows: pa.Table) -> tuple[pa.Table, Counts]:
        """Joins events into a table of lists."""
        row = rows.column("row").to_numpy()
        order = np.argsort(row, kind="stable")
        copies = _copies(rows, row, order)
        order = order[~copies]
        codes = {n: name_codes(rows.column(n))[order] for n in ("key", "item", "query")}
        time = rows.column("time").to_numpy()[order]
        events = Events(
            rows.column("kind").to_numpy()[order],
            codes["key"],
            codes["item"],
            self._places(rows)[order],
            time,
            rows.column("row").to_numpy()[order],
            codes["query"],
        )
        lists, counts = join(events, self.how)
        counts.copies = counts.note("copies", np.unique(np.sort(row)[copies]))
        return self._table(rows, order, events, lists), counts

    def _places(self, rows: pa.Table) -> np.ndarray:
        """(n,) int64 ranks in the numbering of the source; -1 if a row has no rank."""
        place = rows.column("place").fill_null(-1).to_numpy().astype(np.int64)
        return np.where(place < self.how.first, -1, place)

    def _table(
        self, rows: pa.Table, order: np.ndarray, events: Events, lists: Lists
    ) -> pa.Table:
        first = lists.cell[lists.ends[:-1]]
        ends = pa.array(lists.ends.astype(np.int32))
        columns: dict[str, pa.Array] = {}
        if self.how.by == "key":
            columns["session"] = _taken(rows, "key", order[first])
        for role in filter(self._has, ("query", "user", "device")):
            known = self._known(rows, role, order, events, first)
            columns[role] = _taken(rows, role, order[known])
        query = columns.get("query", pa.nulls(len(first), pa.string()))
        columns["query"] = query.cast(pa.string()).fill_null("")
        if self._has("timestamp"):
            columns["timestamp"] = self._times(events.time, lists)
        cells = {
            "item": _taken(rows, "item", order[lists.cell]),
            "position": pa.array(lists.rank.astype(np.int32)),
            "click": pa.array(lists.made[:, 0] > 0),
        }
        for name in self._targets():
            number = self._columns.target.index(name)
            cells[name] = pa.array(lists.made[:, 1 + number].astype(np.int32))
        for name in rows.column_names:
            if name.startswith("keep:"):
                cells[name[5:]] = _taken(rows, name, order[lists.cell])
        for name, values in cells.items():
            columns[name] = pa.ListArray.from_arrays(ends, values)
        return pa.table(columns)

    def _targets(self) -> list[str]:
        """Names of the targets; a preset target without any event is left out."""
        asked = self._columns.target not in {each.target for each in PRESETS.values()}
        return [
            name for name in self._columns.target if asked or self._total.actions[name]
        ]

    def _has(self, role: str) -> bool:
        return any(role in each for each in self._paths)

    def _known(
        self,
        rows: pa.Table,
        role: str,
        order: np.ndarray,
        events: Events,
        first: np.ndarray,
    ) -> np.ndarray:
        """(lists,) index of an event of each list that has a value of the role."""
        there = rows.column(role).is_valid().to_numpy()[order]
        if self.how.by != "key" or there[first].all():
            return first
        # The session may know what the list does not say.
        known = np.flatnonzero(there)
        row = np.full(events.key.max(initial=0) + 1, -1)
        row[events.key[known[::-1]]] = known[::-1]
        found = row[events.key[first]]
        return np.where(there[first] | (found < 0), first, found)

    def _times(self, time: np.ndarray, lists: Lists) -> pa.Array:
        """(lists,) earliest time of each list."""
        times = time[lists.cell]
        latest = np.iinfo(np.int64).max
        times = np.where(times == NO_TIME, latest, times)
        if not len(times):
            return pa.array([], pa.timestamp("us", "UTC"))
        least = np.minimum.reduceat(times, lists.ends[:-1])
        gaps = least == latest
        if all(found.calendar is not False for found in self._found):
            return pa.array(least, mask=gaps).cast(pa.timestamp("us", "UTC"))
        return pa.array(least / 1e6, mask=gaps)

    def report(self, out: Path, every: Sequence[Counts]) -> Imported:
        """Sums up the counts of the import."""
        total, found = _added(every), self._total
        made = dict(zip(self._columns.target, total.joined[1:], strict=True))
        targets = {name: made[name] for name in self._targets()}
        named = {*self._columns.impression, *self._columns.click, *self._columns.target}
        counts = {name: getattr(total, name) for name in _JOINED}
        others = [name for name in found.actions if name not in named]
        counts |= {
            "unplaced": found.unplaced + self._strays,
            "without_item": found.without_item,
            "without_session": found.without_session,
            "blank": found.blank,
            "other_events": sum(found.actions[name] for name in others),
        }
        first = {**found.first, **total.first}
        return Imported(
            str(out),
            total.lists,
            total.impressions,
            total.joined[0],
            total.clicked,
            targets,
            dict(found.actions.most_common()),
            self.how.by,
            self.how.first,
            counts,
            tuple(self._notices(counts, first, found, others)),
        )

    def _notices(
        self,
        counts: dict[str, int],
        first: dict[str, int],
        found: Found,
        others: Sequence[str],
    ) -> list[str]:
        said = [
            f"{COUNTED[name]}: {count:,}{self._place(name, first.get(name))}"
            for name, count in counts.items()
            if count
        ]
        if others:
            said[-1] += f" ({printable(', '.join(others[:20]))})"
        never = [name for name in self._targets() if name not in found.actions]
        if never:
            said.append(
                f"no event has the name of the target {printable(', '.join(never))}: "
                "its column is 0 everywhere"
            )
        if self.how.first == 0:
            said.append("positions count from 0")
        if not self._has("query"):
            said.append(
                "no column has the query, so all lists share one query; name the "
                "column with -c query=NAME"
            )
        if self.how.shown == SHOWN:
            said.append(
                "no event is an impression: all items that a query returned count as "
                "shown, whether or not anybody saw them"
            )
        return [*said, *self._retyped(), *dict.fromkeys(found.notices)]

    def _retyped(self) -> list[str]:
        """Notices about ids that are numbers in one file and text in another."""
        said = []
        for role in ("session", "item", "query", "user", "device"):
            first: dict[bool, str] = {}  # key: whether it is text
            for part, paths in zip(self._parts, self._paths, strict=True):
                shown = paths.get("shown", ()) if role == "item" else ()
                for path in (*paths.get(role, ()), *shown):
                    kind = type_at(part.schema, path)
                    number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
                    if not pa.types.is_null(kind):
                        where = f"{printable(path)} in {part.name}"
                        first.setdefault(not number, where)
            if len(first) > 1:
                said.append(
                    f"{role} holds numbers in column {first[False]} and text in "
                    f"column {first[True]}: both are read as text"
                )
        return said

    def _place(self, what: str, origin: int | None) -> str:
        """Says where the first event of a kind was read."""
        if origin is None:
            return ""
        part = self._parts[origin >> PART_BITS]
        paths = self._paths[origin >> PART_BITS]
        role = _ROLES.get(what, "")
        columns = paths.get(role, paths.get("user", ()) if role == "session" else ())
        column = f", column {printable(columns[0])}," if columns else ""
        row = origin & ((1 << PART_BITS) - 1)
        return f", the first at {part.name}{column} row {row}"


def _some(names: Sequence[str]) -> str:
    return printable(" ".join(names[:20])) or "no event"


def _added(every: Sequence[Counts]) -> Counts:
    total = Counts(joined=[0] * len(every[0].joined))
    for each in every:
        for name, value in vars(each).items():
            if name == "joined":
                total.joined = [a + b for a, b in zip(total.joined, value, strict=True)]
            elif name == "first":
                for what, row in value.items():
                    total.first[what] = min(row, total.first.get(what, row))
            else:
                setattr(total, name, getattr(total, name) + value)
    return total


def _found(every: Sequence[Found]) -> Found:
    """The sums of the counts that the report needs."""
    total = Found()
    for each in every:
        for name in _SUMMED:
            setattr(total, name, getattr(total, name) + getattr(each, name))
        total.first = {**each.first, **total.first}  # the first file comes first
    return total


def _copies(rows: pa.Table, row: np.ndarray, order: np.ndarray) -> np.ndarray:
    """(n,) bool, whether a row that comes earlier in `order` has the same event id."""
    if "id" not in rows.column_names or not len(rows):
        return np.zeros(len(order), bool)
    code, row = name_codes(rows.column("id"))[order], row[order]
    first = np.full(code.max(initial=0) + 1, np.iinfo(np.int64).max)
    np.minimum.at(first, code[code >= 0], row[code >= 0])
    return (code >= 0) & (first[code] < row)


def _taken(rows: pa.Table, name: str, at: np.ndarray) -> pa.Array:
    taken = rows.column(name).take(pa.array(at))
    whole = taken.combine_chunks()
    return whole.chunk(0) if isinstance(whole, pa.ChunkedArray) else whole
