"""Reads a click log of your own: any table with a column for query, item and click.

A row is a shown item, and a column says which session it belongs to; or a row is a
session, and items and clicks are lists. Which column plays which part is `Columns`.
Item numbers of the log are those of the ranking data that comes with it, whose items
are the pairs of a query and an item: features are kept once a pair, wherever they come
from, so that a log costs a few bytes a shown item.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from debias.data.by_name import list_features
from debias.data.log import ClickLog
from debias.data.ranking import RankingData
from debias.data.shown import (
    NAMES,
    REPAIR,
    SEVERAL,
    Batch,
    cell_fault,
    check_finite,
    is_list,
    listed,
    matching,
    matrix_of,
    names_of,
    numbers_of,
    shown_batches,
    side_by_side,
    times_of,
)
from debias.data.tables import Part, Source, near, open_parts

HIGHEST = 127  # grade that ranking data can hold
LONGEST = 1000  # positions of a session unless the caller wants more


@dataclass(frozen=True)
class Columns:
    """Which column of a table plays which part.

    A name that is the default is used where the table has it; any other must be there,
    and so must query, item and click. None switches a part off; with `query=None` all
    sessions ask the same.

    Attributes:
        session: What the shown items of a session share; not read where a row is a
            session.
        query: What was asked: a search, a page, a slot. A session has one.
        item: What was shown. NULL in a list, or a negative number, is padding.
        click: 0 or 1, or a bool.
        position: Rank from 1, from the top. Without it, the order in which rows (or a
            session's list) come, or of row and column.
        row, column: Place on a grid, from 1.
        features: One column of lists of numbers; or columns, a pattern such as "f_*"
            or several names and patterns.
        label: A grade of the pair of query and item, 0 up.
        timestamp: When.
        user: Who.
        device: On what: any names; `Reading.devices` numbers them.
        context: What else is known of a session: numbers, named as features are.
        propensity: Chance, in (0, 1], that the logging policy puts this item at this
            position given the items above.

    >>> columns = Columns.of(["query=q", "features=f_*,price", "user="])
    >>> columns.query, columns.features, columns.user, columns.item
    ('q', ('f_*', 'price'), None, 'item')
    """

    session: str | None = "session"
    query: str | None = "query"
    item: str = "item"
    click: str = "click"
    position: str | None = "position"
    row: str | None = "row"
    column: str | None = "column"
    features: str | tuple[str, ...] | None = "features"
    label: str | None = "label"
    timestamp: str | None = "timestamp"
    user: str | None = "user"
    device: str | None = "device"
    context: str | tuple[str, ...] | None = "context"
    propensity: str | None = "propensity"

    @classmethod
    def of(cls, texts: Sequence[str]) -> Self:
        """Columns from texts PART=NAME; PART= is None, commas part several names."""
        known = [field.name for field in fields(cls)]
        given: dict[str, Any] = {}
        for text in texts:
            part, equals, name = text.partition("=")
            if not equals or part not in known:
                raise ValueError(f"{text!r} is not PART=NAME: {near(part, known)}")
            several = tuple(name.split(",")) if "," in name else name
            given[part] = several or None
        return cls(**given)


class Reading(NamedTuple):
    """A log of numbers, and what they stand for.

    Attributes:
        log: The sessions.
        data: Features and grades of the items, its `qid` the queries' names; None where
            the source has no features.
        items: (items,) what the source calls each item; one item under two queries has
            two numbers.
        queries: (queries,) what it calls each query; None where nothing names them.
        devices: Names of devices 1, 2 and so on.
        users: (S,) number of each session's user, None without users.
        timestamps: (S,) the first of each session's, None without.
        unused: Columns of the source that were not read.
    """

    log: ClickLog
    data: RankingData | None
    items: np.ndarray
    queries: np.ndarray | None
    devices: tuple[str, ...] = ()
    users: np.ndarray | None = None
    timestamps: np.ndarray | None = None
    unused: tuple[str, ...] = ()


def read_log(
    source: Source,
    columns: Columns | None = None,
    items: Source | None = None,
    *,
    list_size: int | None = None,
    first_position: int = 1,
    first_features: bool = False,
    devices: Sequence[str] | None = None,
    progress: Callable[[float], None] = lambda share: None,
) -> Reading:
    """Reads a log of any make, with its ranking data where it has features.

    Args:
        source: Parquet, CSV, JSON lines or an Arrow table, see `open_parts`.
        columns: Which column plays which part; None for those of the parts' own names.
        items: A table of items to take features and label from, by item or, where it
            has the query's column too, by query and item. In the second case its items
            are those of the ranking data, shown or not.
        list_size: Positions to keep, the first ones; None keeps all, 1000 at most.
        first_position: What the log calls the first position, row and column.
        first_features: Whether the features of a pair may differ from row to row; its
            first row's are kept then.
        devices: Names of devices 1, 2, ..., others become 0; None for those of the log
            in alphabetical order. A log to be scored by a model that reads devices
            needs those that the model was trained with.
        progress: Called with the share of the work done.

    Raises:
        FileNotFoundError: Nothing is there.
        ValueError: A column is missing or of the wrong type, a value is not allowed, or
            rows contradict each other; names file, column and first row, from 0.

    >>> table = pa.table({
    ...     "session": [7, 7, 8], "query": ["a", "a", "b"], "item": ["x", "y", "x"],
    ...     "click": [0, 1, 0], "f_price": [2.0, 3.0, 2.0],
    ... })
    >>> reading = read_log(table, Columns(features="f_*"))
    >>> reading.log.item.tolist(), reading.data.features.tolist()
    ([[0, 1], [2, -1]], [[2.0], [3.0], [2.0]])
    >>> reading.queries.tolist(), reading.items.tolist()
    (['a', 'b'], ['x', 'y', 'x'])
    """
    asked = columns or Columns()
    table = None if items is None else _item_table(items, asked)
    if table is not None:
        asked = replace(asked, features=None, label=None)
    parts = open_parts(source)
    chosen = _chosen(parts, asked)
    passes = 2 if "features" in chosen else 1
    rows = _rows(parts, chosen, lambda share: progress(share / passes))
    position = _positions(rows, first_position, list_size)
    pairs = _pairs(rows, position <= (list_size or LONGEST))
    data = None
    if table is not None:
        pairs, data = _joined(rows, pairs, table)
    log, first = _log(rows, pairs, position, devices)
    if passes == 2:
        found = _features(
            parts,
            chosen,
            pairs.number,
            len(pairs.query),
            first_features,
            lambda share: progress((1 + share) / 2),
        )
        data = _ranking(pairs, found)
    time = rows.values.get("timestamp")
    return Reading(
        log if data is None else log.of_items(data),
        data,
        pairs.items,
        pairs.queries,
        _device_names(rows, devices),
        None if (user := rows.codes.get("user")) is None else user[first],
        None if time is None else time[first],
        tuple(
            name
            for name in parts[0].schema.names
            if not any(name in names for names in chosen.values())
        ),
    )


# Which columns


def _chosen(parts: Sequence[Part], asked: Columns) -> dict[str, tuple[str, ...]]:
    """The columns that play each part; all files must have them."""
    name, names = parts[0].name, parts[0].schema.names
    chosen: dict[str, tuple[str, ...]] = {}
    patterns = {}
    for field in fields(asked):
        wanted = getattr(asked, field.name)
        if wanted is None:
            continue
        if field.name in SEVERAL:
            patterns[field.name] = wanted
        elif wanted in names:
            chosen[field.name] = (wanted,)
        elif wanted != field.default or field.name in ("query", "item", "click"):
            raise ValueError(
                f"{name}: no column {wanted} to be the {field.name}: "
                f"{near(wanted, names)}; say {field.name}=NAME"
                + (", or query= where all ask the same" * (field.name == "query"))
            )
    taken = {column for columns in chosen.values() for column in columns}
    for part, wanted in patterns.items():
        found = matching([wanted] if isinstance(wanted, str) else wanted, names, taken)
        if found is None and wanted != getattr(Columns, part):
            raise ValueError(
                f"{name}: no column {wanted} to be {part}: "
                f"{near(str(wanted), names)}; say {part}=NAME"
            )
        if found is not None:
            chosen[part] = found
    if not listed(parts[0], chosen) and "session" not in chosen:
        raise ValueError(
            f"{name}: no column session: {near('session', names)}; where a row is a "
            "shown item, say session=NAME"
        )
    for part_ in parts[1:]:
        for role, columns in chosen.items():
            for column in columns:
                if column not in part_.schema.names:
                    raise ValueError(
                        f"{part_.name}: no column {column} for {role}, which {name} "
                        f"has: {near(column, part_.schema.names)}"
                    )
        if listed(part_, chosen) != listed(parts[0], chosen):
            raise ValueError(
                f"{part_.name}: column {chosen['item'][0]}: a row is a session in one "
                f"of this file and {name}, and a shown item in the other"
            )
    return chosen


# The first pass: all but features


@dataclass
class _Rows:
    """Everything of the shown items but features; n of them.

    Attributes:
        session: (n,) number of the session, by first appearance.
        codes: (n,) numbers of names by part, -1 for none.
        names: What the numbers stand for.
        values: (n,) or (n, C) numbers by part.
        batches: Where they were read; without the columns.
        ends: How many shown items there are up to the end of each batch.
    """

    session: np.ndarray
    codes: dict[str, np.ndarray]
    names: dict[str, pa.Array]
    values: dict[str, np.ndarray]
    batches: list[Batch]
    ends: np.ndarray

    def fault(self, role: str, entry: int, what: str, todo: str = "") -> ValueError:
        number = int(np.searchsorted(self.ends, entry, side="right"))
        before = int(self.ends[number - 1]) if number else 0
        return self.batches[number].fault(role, entry - before, what, todo)


def _rows(
    parts: Sequence[Part],
    chosen: dict[str, tuple[str, ...]],
    progress: Callable[[float], None],
) -> _Rows:
    roles = [role for role in chosen if role not in ("features", "label")]
    chunks: dict[str, list[pa.DictionaryArray]] = {}
    pieces: dict[str, list[np.ndarray]] = {}
    batches: list[Batch] = []
    sizes: list[int] = []
    sessions = 0
    for batch, share in shown_batches(parts, chosen, roles):
        for role, arrays in batch.arrays.items():
            if role in NAMES:
                chunk = names_of(batch, role, arrays[0]).dictionary_encode()
                first = chunks.setdefault(role, [chunk])[0]
                if chunk.type != first.type:
                    raise ValueError(
                        f"{batch.part}: column {chosen[role][0]} ({role}) mixes types: "
                        f"{chunk.type.value_type} here, {first.type.value_type} in "
                        f"{batches[0].part}; write it as one type"
                    )
                if chunk is not first:
                    chunks[role].append(chunk)
            elif role == "timestamp":
                pieces.setdefault(role, []).append(times_of(batch, arrays[0]))
            else:
                several = [numbers_of(batch, role, i) for i in range(len(arrays))]
                together = several[0] if role != "context" else side_by_side(several)
                pieces.setdefault(role, []).append(together)
        sizes.append(len(batch.arrays["item"][0]))
        if batch.at is not None:  # the session is the row, the rank its place in it
            rows = int(batch.at[-1]) + 1
            start = np.flatnonzero(np.diff(batch.at, prepend=-1))
            rank = np.arange(sizes[-1]) - start[batch.at]
            pieces.setdefault("rank", []).append(rank.astype(np.int32) + 1)
            pieces.setdefault("session", []).append(
                batch.at.astype(np.int32) + sessions
            )
            sessions += rows
        batches.append(batch._replace(arrays={}))
        progress(share)
    codes: dict[str, np.ndarray] = {}
    names: dict[str, pa.Array] = {}
    for role in list(chunks):
        unified = pa.chunked_array(chunks.pop(role)).unify_dictionaries()
        names[role] = unified.chunk(0).dictionary
        indices = [chunk.indices.fill_null(-1) for chunk in unified.chunks]
        codes[role] = np.concatenate([index.to_numpy() for index in indices])
    values = {role: np.concatenate(pieces.pop(role)) for role in list(pieces)}
    if "session" in values:
        session, _ = values.pop("session"), codes.pop("session", None)
        if pa.types.is_integer(names["item"].type):  # a negative number is padding
            negative = names["item"].to_numpy() < 0
            codes["item"] = np.where(negative[codes["item"]], -1, codes["item"])
    else:
        session = codes.pop("session", np.zeros(0, np.int32))
    return _Rows(session, codes, names, values, batches, np.cumsum(sizes))


# Positions and pairs


def _positions(rows: _Rows, first_position: int, list_size: int | None) -> np.ndarray:
    """(n,) int32 position of each shown item, from 1."""
    for role in ("position", "row", "column"):
        if role in rows.values:
            values = rows.values[role] = rows.values[role] - (first_position - 1)
            wrong = (values < 1) & (rows.codes["item"] >= 0)
            if wrong.any():
                entry = int(np.argmax(wrong))
                what = (
                    f"must count from {first_position}, "
                    f"got {values[entry] + first_position - 1}"
                )
                todo = REPAIR
                if values[entry] + first_position == 1:
                    todo = (
                        "say first_position=0 (--first-position 0) if that is the "
                        "log's first"
                    )
                raise rows.fault(role, entry, what, todo)
    if "position" in rows.values:
        position = rows.values.pop("position")
    elif "rank" in rows.values:
        position = rows.values["rank"]
    else:
        position = _ranks(rows)
    if list_size is None and position.size and position.max() > LONGEST:
        entry = int(np.argmax(position > LONGEST))
        what = f"stands at position {position[entry]}, of {LONGEST} at most"
        todo = "say list_size=N (--list-size N) to keep the first N"
        raise rows.fault("item", entry, what, todo)
    return position


def _ranks(rows: _Rows) -> np.ndarray:
    """Ranks within the session by row and column, else by appearance."""
    session = rows.session
    if {"row", "column"} <= set(rows.values):
        order = np.lexsort((rows.values["column"], rows.values["row"], session))
    elif (np.diff(session) >= 0).all():
        order = None
    else:
        order = np.argsort(session, kind="stable")
    grouped = session if order is None else session[order]
    start = np.flatnonzero(np.diff(grouped, prepend=-1))
    rank = np.arange(len(grouped), dtype=np.int32)
    rank -= np.repeat(start, np.diff(start, append=len(grouped))).astype(np.int32)
    if order is None:
        return rank + 1
    placed = np.empty_like(rank)
    placed[order] = rank + 1
    return placed


class _Pairs(NamedTuple):
    """The pairs of a query and an item, numbered so that a query's are consecutive.

    Attributes:
        number: (n,) pair of each shown item, -1 for what is not kept.
        query: (P,) query number of each pair, ascending from 0.
        items: (P,) name of each pair's item.
        queries: Names of the queries, None where nothing names them.
        key: (P,) query and item as the rows have them: query code times items + item.
    """

    number: np.ndarray
    query: np.ndarray
    items: np.ndarray
    queries: np.ndarray | None
    key: np.ndarray


def _pairs(rows: _Rows, kept: np.ndarray) -> _Pairs:
    count, item = len(rows.names["item"]), rows.codes["item"]
    kept = kept & (item >= 0)
    if not kept.any():
        raise rows.fault("item", 0, "shows nothing in any session")
    key = _key(rows)
    coded = pa.array(key if kept.all() else key[kept]).dictionary_encode()
    del key
    unique = coded.dictionary.to_numpy()
    order = np.argsort(unique // count, kind="stable")
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order))
    number = np.full(len(item), -1, np.int32)
    number[kept] = rank[coded.indices.to_numpy()]
    unique = unique[order]
    present, query = np.unique(unique // count, return_inverse=True)
    queries = rows.names.get("query")
    return _Pairs(
        number,
        query,
        _array(rows.names["item"].take(pa.array(unique % count))),
        None if queries is None else _array(queries.take(pa.array(present))),
        unique,
    )


def _array(names: pa.Array) -> np.ndarray:
    return names.to_numpy(zero_copy_only=False)


# Features


class _Found(NamedTuple):
    """What is known of P pairs of a query and an item.

    Attributes:
        features: (P, F) float32.
        names: (F,) what the source calls them.
        label: (P,) grades, None without.
    """

    features: np.ndarray
    names: tuple[str, ...]
    label: np.ndarray | None

    def take(self, rows: np.ndarray) -> "_Found":
        label = None if self.label is None else self.label[rows]
        return self._replace(features=self.features[rows], label=label)


def _features(
    parts: Sequence[Part],
    chosen: dict[str, tuple[str, ...]],
    number: np.ndarray,
    count: int,
    first_features: bool,
    progress: Callable[[float], None],
) -> _Found:
    """The second pass: features and, where the source has them, grades.

    Args:
        number: (n,) pair of each shown item, -1 for none.
        count: P, how many pairs there are.
    """
    tables: dict[str, np.ndarray] = {}
    have = np.zeros(count, bool)
    names: tuple[str, ...] = ()
    start = 0
    for batch, share in shown_batches(parts, chosen, ("item", "features", "label")):
        size = len(batch.arrays["item"][0])
        names = names or _feature_names(batch)
        entries = np.flatnonzero(number[start : start + size] >= 0)
        pair = number[start : start + size][entries]
        new = np.flatnonzero(~have[pair])
        for role in ("features", "label"):
            if role not in chosen:
                continue
            values = matrix_of(batch, role, size)[entries]
            high = HIGHEST if role == "label" else None
            check_finite(batch, role, values, entries, high)
            table = tables.setdefault(
                role, np.zeros((count, values.shape[1]), np.float32)
            )
            table[pair[new[::-1]]] = values[new[::-1]]  # of several, the first stays
            if not first_features:
                _check_same(batch, role, values, table[pair], entries)
        have[pair] = True
        start += size
        progress(share)
    label = tables["label"][:, 0] if "label" in tables else None
    return _Found(tables["features"], names, label)


def _feature_names(batch: Batch) -> tuple[str, ...]:
    """The names of the features, those of lists with their numbers."""
    names: list[str] = []
    for number, column in enumerate(batch.chosen["features"]):
        if is_list(batch.arrays["features"][number].type):
            width = numbers_of(batch, "features", number).shape[1]
            names += list_features(column, width)
        else:
            names.append(column)
    return tuple(names)


def _check_same(
    batch: Batch,
    role: str,
    values: np.ndarray,
    known: np.ndarray,
    entries: np.ndarray,
) -> None:
    differs = values != known
    if differs.any():
        entry, column = np.argwhere(differs)[0]
        what = (
            f"is {values[entry, column]:g} where the same item under the same query "
            f"had {known[entry, column]:g} before,"
        )
        todo = (
            "say first_features=True (--first-features) to keep the first, or put what "
            "changes it into the name of the item"
        )
        raise cell_fault(batch, role, int(entries[entry]), int(column), what, todo)


def _ranking(pairs: _Pairs, found: _Found) -> RankingData:
    label = found.label
    if label is not None and (label == label.astype(np.int8)).all():
        label = label.astype(np.int8)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(pairs.query))])
    highest = 4 if label is None else max(4, int(np.ceil(label.max())))
    return RankingData(
        found.features, label, offsets, pairs.queries, highest, found.names
    )


# A table of items


class _Items(NamedTuple):
    """A table of items: its names as rows have them, and what `_features` found."""

    rows: _Rows
    found: _Found


def _item_table(source: Source, asked: Columns) -> _Items:
    parts = open_parts(source)
    name, names = parts[0].name, parts[0].schema.names
    if asked.item not in names:
        raise ValueError(f"{name}: no column {asked.item}: {near(asked.item, names)}")
    chosen: dict[str, tuple[str, ...]] = {"item": (asked.item,)}
    for role, column in (("query", asked.query), ("label", asked.label)):
        if column is not None and column in names:
            chosen[role] = (column,)
    wanted = asked.features or ()
    taken = {column for columns in chosen.values() for column in columns}
    columns = matching([wanted] if isinstance(wanted, str) else wanted, names, taken)
    if not columns:
        raise ValueError(
            f"{name}: no column {wanted} for features: {near(str(wanted), names)}; say "
            "features=NAME, or features=* for all others"
        )
    rows = _rows(parts, chosen, lambda share: None)
    key = _key(rows)
    order = np.argsort(key, kind="stable")
    again = order[1:][np.diff(key[order]) == 0]
    if again.size:
        what = "names the same item of the same query again"
        raise rows.fault("item", int(again.min()), what, "remove the row")
    chosen["features"] = columns
    number = np.arange(len(key))
    found = _features(parts, chosen, number, len(key), False, lambda share: None)
    return _Items(rows, found)


def _key(rows: _Rows) -> np.ndarray:
    """(n,) int64 that tells pairs of query and item apart."""
    key = rows.codes["item"].astype(np.int64)
    if "query" in rows.codes:
        key += rows.codes["query"].astype(np.int64) * len(rows.names["item"])
    return key


def _joined(rows: _Rows, pairs: _Pairs, table: _Items) -> tuple[_Pairs, RankingData]:
    """The pairs with the features and grades of a table of items."""
    codes, names = table.rows.codes, table.rows.names
    count = len(rows.names["item"])
    wanted = _index_in(rows.names["item"], names["item"])[pairs.key % count]
    if "query" in codes:
        query = _index_in(rows.names["query"], names["query"])[pairs.key // count]
        known = (wanted >= 0) & (query >= 0)
        wanted = np.where(known, query * len(names["item"]) + wanted, -1)
    key = _key(table.rows)
    order = np.argsort(key)
    row = order[np.searchsorted(key, wanted, sorter=order).clip(max=len(key) - 1)]
    missing = np.flatnonzero(key[row] != wanted)
    if missing.size:
        entry = int(np.argmax(pairs.number == missing[0]))
        where = table.rows.batches[0].part
        what = f"is {pairs.items[missing[0]]!r}, which {where} lacks,"
        raise rows.fault("item", entry, what, "add it there")
    if "query" not in codes:
        return pairs, _ranking(pairs, table.found.take(row))
    order = np.argsort(codes["query"], kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    moved = np.where(pairs.number >= 0, place[row][pairs.number], -1)
    items = _array(names["item"].take(pa.array(codes["item"][order])))
    whole = _Pairs(
        moved, codes["query"][order], items, _array(names["query"]), key[order]
    )
    return whole, _ranking(whole, table.found.take(order))


def _index_in(names: pa.Array, known: pa.Array) -> np.ndarray:
    """The place of each name among `known`, -1 where it is not there."""
    if names.type != known.type:  # numbers in one file, their text in the other
        names, known = names.cast(pa.string()), known.cast(pa.string())
    return pc.index_in(names, known).fill_null(-1).to_numpy().astype(np.int64)


# The log


def _log(
    rows: _Rows,
    pairs: _Pairs,
    position: np.ndarray,
    devices: Sequence[str] | None,
) -> tuple[ClickLog, np.ndarray]:
    """The log, and the first row of each of its sessions."""
    kept = np.flatnonzero(pairs.number >= 0)
    everything = len(kept) == len(pairs.number)
    session = rows.session if everything else rows.session[kept]
    present = np.bincount(session) > 0
    if not present.all():
        session = (np.cumsum(present) - 1)[session]
    count, list_size = int(session.max()) + 1, int(position[kept].max())
    first = np.empty(count, np.int64)
    first[session[::-1]] = kept[::-1]  # of several, the first stays
    cell = session.astype(np.int64) * list_size + (position[kept] - 1)

    def rectangle_of(values: np.ndarray, fill: float) -> np.ndarray:
        cells = np.full(count * list_size, fill, values.dtype)
        cells[cell] = values[kept]
        return cells.reshape(count, list_size)

    item = rectangle_of(pairs.number, -1)
    if np.count_nonzero(item >= 0) < len(kept):
        _raise_twice(rows, kept, cell)
    if "rank" not in rows.values:
        _check_constant(rows, kept, first, session)
    log = {
        "query": pairs.query[pairs.number[first]].astype(np.int32),
        "item": item,
        "click": rectangle_of(rows.values["click"], 0).astype(bool),
    }
    for role, fill in (("row", 0), ("column", 0), ("propensity", 1)):
        if role in rows.values:
            name = "logging_propensity" if role == "propensity" else role
            log[name] = rectangle_of(rows.values[role], fill)
    if "device" in rows.codes:
        known = pa.array(_device_names(rows, devices), pa.string())
        number = _index_in(rows.names["device"].cast(pa.string()), known) + 1
        device = rows.codes["device"][first]
        log["device"] = np.where(device >= 0, number[device], 0)
    if "context" in rows.values:
        log["context"] = rows.values["context"][first]
    return ClickLog(**log), first


def _device_names(rows: _Rows, devices: Sequence[str] | None) -> tuple[str, ...]:
    if devices is not None or "device" not in rows.names:
        return tuple(devices or ())
    return tuple(sorted(rows.names["device"].cast(pa.string()).to_pylist()))


def _raise_twice(rows: _Rows, kept: np.ndarray, cell: np.ndarray) -> None:
    order = np.argsort(cell, kind="stable")
    again = order[1:][np.diff(cell[order]) == 0]
    entry = int(kept[again.min()])
    role = "position" if "position" in rows.batches[0].chosen else "item"
    what = "gives a second item to a position of the session"
    raise rows.fault(role, entry, what, "is the session's name used twice?")


def _check_constant(
    rows: _Rows, kept: np.ndarray, first: np.ndarray, session: np.ndarray
) -> None:
    """A session has one query, user, device and context."""
    every = {**rows.codes, **rows.values}
    for role in ("query", "user", "device", "context"):
        if role in every:
            values = every[role]
            wrong = values[kept] != values[first][session]
            if wrong.any():
                entry = int(kept[np.argmax(wrong.reshape(len(kept), -1).any(axis=1))])
                what = "differs from the row that its session began with"
                raise rows.fault(role, entry, what, "is the session's name used twice?")
