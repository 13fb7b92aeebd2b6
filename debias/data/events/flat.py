"""Flattens events of any layout to one row per event and item."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from debias.data.arrays import (
    first_fault,
    gaps_in,
    is_list,
    list_sizes,
    plain,
    value_at,
    whole,
)
from debias.data.events.roles import EventColumns, tracker_of
from debias.data.nested import first_there, near_path, resolved, value_of
from debias.data.shown import Batch
from debias.data.tables import Part
from debias.data.text import near, printable
from debias.data.times import Times

# Kinds of rows. Kinds from CLICK on are actions, and from FIRST_TARGET on targets.
QUERY, IMPRESSION, SHOWN, CLICK, FIRST_TARGET = -1, 0, 1, 2, 3
_IGNORED, _BLANK = -3, -2
NO_TIME = np.iinfo(np.int64).min
PART_BITS = 40  # bits of a row's origin below the number of its part
NAMES = ("key", "item", "query", "user", "device", "id")


@dataclass
class First:
    """The first row of each kind of count or fault."""

    first: dict[str, int] = field(default_factory=dict)

    def note(self, what: str, rows: np.ndarray) -> int:
        """Records the first of the rows, and returns the number of rows."""
        if len(rows):
            least = int(rows.min())
            self.first[what] = min(least, self.first.get(what, least))
        return len(rows)


@dataclass
class Found(First):
    """Counts of the events in one file of the source.

    The counts of several files can be added.

    Attributes:
        rows: Number of rows.
        actions: Number of events of each name.
        blank: Number of rows that have no event, query, shown items or session, such as
            the lines `{"index": ...}` of a bulk request.
        without_item, without_session: Number of events that lack an item, and number of
            events that lack a session.
        bare_impressions, bare_clicks: Number of impressions that lack an item, and
            number of clicks that lack an item.
        calendar: Whether timestamps are calendar times, not plain numbers; None without
            timestamps.
        least: Smallest position of an impression.
        unplaced: Number of impressions at a position below 0.
        zeros, ones: Number of impressions at position 0, and at position 1.
        listed: Whether any event has a list of items.
        notices: Messages for the user about how values were interpreted.
    """

    rows: int = 0
    actions: Counter = field(default_factory=Counter)
    blank: int = 0
    without_item: int = 0
    without_session: int = 0
    bare_impressions: int = 0
    bare_clicks: int = 0
    calendar: bool | None = None
    least: int | None = None
    unplaced: int = 0
    zeros: int = 0
    ones: int = 0
    listed: bool = False
    notices: list[str] = field(default_factory=list)


Paths: TypeAlias = dict[str, tuple[str, ...]]  # columns of one file, by role


def paths_in(part: Part, columns: EventColumns) -> Paths:
    """Finds the columns of each role in one file of the source.

    The role `session` is included only if all columns of the session id exist.
    """
    found = {}
    for role, names in columns.paths().items():
        some = [resolved(part.schema, name) for name in names]
        there = tuple(path for path in some if path is not None)
        if there and (role != "session" or len(there) == len(names)):
            found[role] = there
    return found


def check_columns(
    parts: Sequence[Part], paths: Sequence[Paths], columns: EventColumns
) -> None:
    """Checks that every required column exists in some file.

    Raises:
        ValueError: A required or requested column is in no file, or only some of the
            files have the session columns. The message names the file and the column.
    """
    if columns.shown and not any("event" in each for each in paths):
        _check_not_queries(parts, paths, columns)
    need = {"event", *columns.asked()}
    if not any("shown" in each for each in paths):
        need.add("item")
    for role in sorted(need):
        names = columns.paths()[role]
        if names and not any(role in each for each in paths):
            having = [
                p for p, each in zip(parts, paths, strict=True) if "event" in each
            ]
            first = (having or parts)[0]
            raise ValueError(
                f"{first.name}: no column {printable(names[0])} for {role}: "
                f"{near_path(names[0], first.schema)}; "
                f"{_other_ways(first.schema, names[0], role)}"
            )
    having = [
        part for part, each in zip(parts, paths, strict=True) if "session" in each
    ]
    for part in parts:
        if having and part not in having:
            raise ValueError(
                f"{part.name}: no column {printable(' '.join(columns.session))} for "
                f"the session, but {having[0].name} has it: "
                f"{near(columns.session[0], part.schema.names)}; leave the file out, "
                "or say -c session=NAME"
            )


def _check_not_queries(
    parts: Sequence[Part], paths: Sequence[Paths], columns: EventColumns
) -> None:
    """Raises ValueError if a part has queries but no events."""
    for part, each in zip(parts, paths, strict=True):
        asked = [path for role in ("query", "shown") for path in each.get(role, ())]
        if asked and "item" not in each:
            raise ValueError(
                f"{part.name}: holds queries ({printable(', '.join(asked))}) but no "
                f"events: it has no column {printable(columns.event)}. Put the file of "
                "events, which for UBI is the export of the index ubi_events, into "
                "the same folder, and pass the folder"
            )


def _list_with(fields: pa.Schema | pa.StructType, name: str) -> str | None:
    """Path of the list of structs with a field of this name, or None."""
    for each in fields:
        kind = each.type
        inner = kind.value_type if is_list(kind) else kind
        if not pa.types.is_struct(inner):
            continue
        if is_list(kind) and resolved(pa.schema(list(inner)), name) is not None:
            return str(each.name)
        if not is_list(kind) and (below := _list_with(inner, name)) is not None:
            return f"{each.name}.{below}"
    return None


def _other_ways(schema: pa.Schema, name: str, role: str) -> str:
    within = _list_with(schema, name)
    if within is not None:
        return (
            "each row holds a list of events; write one event per line, as jq -c "
            f"'.{printable(within)}[]' does"
        )
    tracker = tracker_of(schema)
    if role == "event" and tracker is not None:
        return f"--preset {tracker} reads such events"
    if role == "event":
        return (
            "say -c event=NAME, or put the files of each kind of event into folders "
            "event=impression and event=click, and pass the folder that contains both"
        )
    return f"say -c {role}=NAME"


class Flattener:
    """Flattens the rows of one file of the source."""

    def __init__(self, part: Part, number: int, columns: EventColumns) -> None:
        self._part = part
        self._number = number
        self._columns = columns
        self._paths = paths_in(part, columns)
        self._clock = Times()
        self.found = Found()
        kinds = {name: IMPRESSION for name in columns.impression}
        kinds |= {name: CLICK for name in columns.click}
        for place, name in enumerate(columns.target):
            kinds.setdefault(name, FIRST_TARGET + place)
        self._kinds = kinds
        self._numbered = "session" in self._paths

    def batches(self) -> Iterator[tuple[pa.RecordBatch, float]]:
        """Yields flat batches, each with the share of the file that was read so far.

        Raises:
            ValueError: A value is not allowed in its column. The message names the
                file, the column and the row.
        """
        start = 0
        every = {path: None for paths in self._paths.values() for path in paths}
        for rows, share in self._part.read(list(every), ()):
            names, columns = rows.schema.names, map(plain, rows.columns)
            rows = pa.RecordBatch.from_arrays(list(columns), names=names)
            for flat in self._flat(rows, start):
                yield flat, share
            start += len(rows)
        self.found.rows = start
        self.found.notices = list(self._clock.notices)

    def _flat(self, rows: pa.RecordBatch, start: int) -> Iterator[pa.RecordBatch]:
        kind = self._kinds_of(rows)
        number = np.arange(start, start + len(rows))
        for some in (kind >= 0, kind == QUERY):
            if some.any():
                kept = rows if some.all() else rows.filter(pa.array(some))
                yield from self._rows(kept, kind[some], number[some])

    def _kinds_of(self, rows: pa.RecordBatch) -> np.ndarray:
        """(n,) kind of each row. Also counts the events by name."""
        if "event" not in self._paths:
            return np.full(len(rows), QUERY, np.int8)
        event = value_of(rows, self._paths["event"][0])
        if is_list(event.type) or pa.types.is_struct(event.type):
            what = f"must name an event, got {event.type}"
            raise self._fault("event", None, 0, what, "say -c event=NAME")
        event = _as_text([event])[0]
        coded = event.dictionary_encode()
        names = coded.dictionary.to_pylist()
        codes = coded.indices.fill_null(len(names)).to_numpy()
        counts = np.bincount(codes, minlength=len(names) + 1)
        self.found.actions.update(dict(zip(names, counts.tolist(), strict=False)))
        kinds = [self._kinds.get(name, _IGNORED) for name in names]
        kind = np.array([*kinds, QUERY], np.int8)[codes]
        if counts[-1]:
            blank = kind == QUERY
            for role in ("query", "shown", "session"):
                for path in self._paths.get(role, ()):
                    there = value_of(rows, path).is_valid()
                    blank &= ~there.to_numpy(zero_copy_only=False)
            kind[blank] = _BLANK
            self.found.blank += int(blank.sum())
        return kind

    def _rows(
        self, rows: pa.RecordBatch, kind: np.ndarray, number: np.ndarray
    ) -> Iterator[pa.RecordBatch]:
        """Flat rows of events, or of queries and the items that they returned."""
        origin = number + (self._number << PART_BITS)
        plain_columns = {
            "key": self._key(rows, origin),
            "time": pa.array(self._times(rows, number)),
            **{role: self._names(rows, role) for role in ("query", "user", "device")},
        }
        if "id" in self._paths:
            plain_columns["id"] = self._names(rows, "id")
        if kind[0] == QUERY:
            nothing = pa.nulls(len(rows), pa.string())
            yield self._batch(plain_columns, kind, origin, nothing, None, {}, None)
            if "shown" not in self._paths:
                return
            item, kind = self._first(rows, "shown"), np.full(len(rows), SHOWN, np.int8)
        else:
            item = self._first(rows, "item")
            item = pa.nulls(len(rows), pa.string()) if item is None else item
        assert item is not None
        position = None if kind[0] == SHOWN else self._first(rows, "position")
        keep = {}
        for path in self._paths.get("keep", ()) if kind[0] != SHOWN else ():
            keep[path.rpartition(".")[2]] = value_of(rows, path)
        at = None
        if is_list(item.type):
            sizes = list_sizes(item)
            if kind[0] != SHOWN:
                self.found.listed = True
                self._note_without_item(sizes == 0, kind, origin)
            at = np.repeat(np.arange(len(rows)), sizes)
            position = self._flat_of(position, item, at, number, "position")
            if not self._numbered:
                plain_columns["key"] = _filled(plain_columns["key"], origin)
            keep = {
                n: self._flat_of(v, item, at, number, "keep") for n, v in keep.items()
            }
            item = plain(pc.list_flatten(item))
        yield self._batch(plain_columns, kind, origin, item, position, keep, at)

    def _batch(
        self,
        columns: dict[str, pa.Array],
        kind: np.ndarray,
        origin: np.ndarray,
        item: pa.Array,
        position: pa.Array | None,
        keep: dict[str, pa.Array],
        at: np.ndarray | None,
    ) -> pa.RecordBatch:
        """Builds a flat batch of the rows that name an item and a session."""
        if at is not None:
            columns = {n: array.take(pa.array(at)) for n, array in columns.items()}
            kind, origin = kind[at], origin[at]
        item = self._as_names(item, "item", origin)
        place = self._places(position, origin, kind)
        no_key = gaps_in(columns["key"])
        no_item = gaps_in(item) & (kind != QUERY)
        self.found.without_session += int((no_key & (kind >= 0)).sum())
        self.found.note("without_session", origin[no_key & (kind >= 0)])
        self._note_without_item(no_item & ~no_key & (kind != SHOWN), kind, origin)
        columns = {
            **columns,
            "kind": pa.array(kind),
            "row": pa.array(origin),
            "item": item,
            "place": place,
            **{f"keep:{name}": plain(array) for name, array in keep.items()},
        }
        flat = pa.RecordBatch.from_pydict(columns)
        wrong = no_key | no_item
        return flat.filter(pa.array(~wrong)) if wrong.any() else flat

    def _note_without_item(
        self, without: np.ndarray, kind: np.ndarray, origin: np.ndarray
    ) -> None:
        self.found.without_item += int(without.sum())
        self.found.bare_impressions += int((without & (kind == IMPRESSION)).sum())
        self.found.bare_clicks += int((without & (kind == CLICK)).sum())
        self.found.note("without_item", origin[without])

    def _first(self, rows: pa.RecordBatch, role: str) -> pa.Array | None:
        """The first value of each row among the columns of a role."""
        arrays = [
            self._there(value_of(rows, path)) for path in self._paths.get(role, ())
        ]
        some = [each for each in arrays if each.null_count < len(each)] or arrays[:1]
        if len(some) < 2:
            return some[0] if some else None
        if role not in ("item", "shown", "position"):  # one value per row
            some = [_first_of_lists(each) for each in some]
        return first_there(some)

    def _there(self, array: pa.Array) -> pa.Array:
        """Replaces the markers of missing values by NULL."""
        if not self._columns.missing or not pa.types.is_string(array.type):
            return array
        gaps = pc.is_in(array, pa.array(self._columns.missing))
        return pc.if_else(gaps, pa.scalar(None, pa.string()), array)

    def _names(self, rows: pa.RecordBatch, role: str) -> pa.Array:
        array = self._first(rows, role)
        if array is None:
            return pa.nulls(len(rows), pa.string())
        return self._as_names(_first_of_lists(array), role, None)

    def _as_names(
        self, array: pa.Array, role: str, origin: np.ndarray | None
    ) -> pa.Array:
        """Casts ids to text or whole numbers."""
        array = self._there(array)
        kind = array.type
        if pa.types.is_string(kind) or pa.types.is_uint64(kind):
            return array
        if pa.types.is_integer(kind):
            return array.cast(pa.int64())
        if pa.types.is_null(kind):
            return array.cast(pa.string())
        try:
            return array.cast(pa.int64() if pa.types.is_floating(kind) else pa.string())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            what = f"must be text or whole numbers, got {kind}"
            raise self._fault(role, origin, 0, what, f"say {role}=NAME") from None

    def _key(self, rows: pa.RecordBatch, origin: np.ndarray) -> pa.Array:
        """The session or user of each row as text, by which events are grouped."""
        role = "session" if self._numbered else "user"
        arrays = [
            self._as_names(_first_of_lists(value_of(rows, path)), role, None)
            for path in self._paths.get(role, ())
        ]
        if not self._numbered:
            arrays = arrays[:1] if len(arrays) < 2 else [pc.coalesce(*_as_text(arrays))]
        if not arrays:
            return pa.nulls(len(rows), pa.string())
        text = _as_text(arrays)
        return text[0] if len(text) == 1 else pc.binary_join_element_wise(*text, "\x1f")

    def _times(self, rows: pa.RecordBatch, number: np.ndarray) -> np.ndarray:
        """(n,) int64 microseconds since 1970, or plain numbers times a million."""
        array = self._first(rows, "timestamp")
        if array is None or array.null_count == len(array):
            return np.full(len(rows), NO_TIME)
        path = self._paths["timestamp"][0]
        chosen: dict[str, tuple[str, ...]] = {"timestamp": (path,)}
        batch = Batch(self._part.name, 0, {"timestamp": [array]}, number, chosen)
        times = self._clock.read(batch)
        self.found.calendar = times.dtype.kind == "M"
        if self.found.calendar:
            return times.astype("datetime64[us]").astype(np.int64)  # NaT is the minimum
        gaps = np.isnan(times)
        micro = np.rint(np.where(gaps, 0, times) * 1e6).astype(np.int64)
        return np.where(gaps, NO_TIME, micro)

    def _places(
        self, position: pa.Array | None, origin: np.ndarray, kind: np.ndarray
    ) -> pa.Array:
        """Ranks as the source numbers them; NULL where the source has no rank."""
        if position is None:
            return pa.nulls(len(origin), pa.int32())
        position = self._there(position)
        if pa.types.is_floating(position.type):
            position = pc.if_else(pc.is_nan(position), None, position)
        position = whole(position)
        try:
            place = position.cast(pa.int32())
        except pa.ArrowNotImplementedError:
            what = f"must be whole numbers, got {position.type}"
            raise self._fault("position", origin, 0, what) from None
        except pa.ArrowInvalid:
            entry = first_fault(position, lambda some: some.cast(pa.int32()))
            what = f"must be a whole number, got {value_at(position, entry)}"
            raise self._fault("position", origin, entry, what) from None
        wrong = place.fill_null(0).to_numpy() < 0  # trackers write -1 for no rank
        if wrong.any():
            showing = wrong & (kind <= SHOWN)
            self.found.unplaced += int(showing.sum())
            self.found.note("unplaced", origin[showing])
            place = pc.if_else(pa.array(wrong), pa.scalar(None, pa.int32()), place)
        shown = place.filter(pa.array(kind <= SHOWN))
        least = pc.min(shown).as_py()
        if least is not None:
            self.found.zeros += pc.sum(pc.equal(shown, 0)).as_py()
            self.found.ones += pc.sum(pc.equal(shown, 1)).as_py()
            before = self.found.least
            self.found.least = least if before is None else min(least, before)
        return place

    def _flat_of(
        self,
        values: pa.Array | None,
        item: pa.Array,
        at: np.ndarray,
        number: np.ndarray,
        role: str,
    ) -> pa.Array | None:
        """One value per item, from a single value or a list with one value per item."""
        if values is None or not is_list(values.type):
            if values is None or role == "position":
                return None  # a position of the event, not of its items
            return values.take(pa.array(at))
        sizes, wanted = list_sizes(values), list_sizes(item)
        wrong = (sizes != wanted) & (sizes > 0)
        if wrong.any():
            row = int(np.argmax(wrong))
            what = f"has {sizes[row]} entries for {wanted[row]} items"
            raise self._fault(role, number, row, what, "write one entry for each item")
        starts = np.repeat(np.cumsum(sizes) - sizes, wanted)
        within = np.arange(len(at)) - np.repeat(np.cumsum(wanted) - wanted, wanted)
        gaps = np.repeat(sizes == 0, wanted)  # no value for the items of this event
        flat = plain(pc.list_flatten(values))
        return flat.take(pa.array(starts + within, mask=gaps)) if gaps.any() else flat

    def _fault(
        self,
        role: str,
        number: np.ndarray | None,
        entry: int,
        what: str,
        todo: str = "",
    ) -> ValueError:
        row = 0 if number is None else int(number[entry]) & ((1 << PART_BITS) - 1)
        path = self._paths[role][0]
        todo = todo or f"repair it, or ignore the column: {role}="
        return ValueError(
            f"{self._part.name}: column {printable(path)} ({role}) {what} at row "
            f"{row}; {todo}"
        )


def _first_of_lists(array: pa.Array) -> pa.Array:
    """The first entry of each list; other arrays are returned unchanged."""
    if not is_list(array.type):
        return array
    sizes = list_sizes(array)
    starts = np.cumsum(sizes) - sizes
    flat = plain(pc.list_flatten(array))
    return flat.take(pa.array(starts, mask=sizes == 0))


def _filled(key: pa.Array, origin: np.ndarray) -> pa.Array:
    """Gives a unique key to each row without a key."""
    if not key.null_count:
        return key
    own = pc.binary_join_element_wise("\x1e", pa.array(origin).cast(pa.string()), "")
    return pc.coalesce(key, own)


def _as_text(arrays: Sequence[pa.Array]) -> list[pa.Array]:
    return [a if pa.types.is_string(a.type) else a.cast(pa.string()) for a in arrays]
