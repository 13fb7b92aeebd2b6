"""Reads a click log from any table with columns for query, item and click.

A table has either one row per shown item, with a session id, or one row per session,
with lists of items and clicks. `Columns` maps columns to roles. Each item of the
resulting ranking data is a (query, item) pair, and the log holds the numbers of the
pairs. Features are stored once per pair, so a log needs only a few bytes per shown
item.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from debias.data.coded import NUMBER
from debias.data.kinds import FIRST, Feature
from debias.data.log import ClickLog
from debias.data.pairs import (
    Items,
    Pairs,
    in_rows,
    index_in,
    join,
    pair_up,
    ranking_of,
    read_items,
    read_known,
)
from debias.data.presentation import Scales, codes_of, scale_of
from debias.data.ranking import RankingData
from debias.data.roles import Columns, choose
from debias.data.rows import LONGEST, Rows, positions, read_rows
from debias.data.shown import REMEDIES
from debias.data.tables import (
    Part,
    Retyped,
    Source,
    open_parts,
    unchanged,
    with_lists,
)

__all__ = ["Columns", "Reading", "read_log"]

FARTHEST = 32_767  # largest distance of the first position from 1
_PIECE = 1 << 16  # sessions that are checked at a time


class Reading(NamedTuple):
    """A log with its ranking data, and the names of its items and queries.

    Attributes:
        log: The sessions.
        data: Features and grades of the items; None if the source has no features.
            `qid` holds the names of the queries.
        items: (items,) name of each item in the source. An item shown for two queries
            has two numbers.
        queries: (queries,) name of each query; None if queries have no names.
        devices: Names of the devices with the codes 1, 2, and so on.
        users: (S,) number of the user of each session; None if the source has no users.
        timestamps: (S,) first timestamp of each session; None without timestamps.
        scales: Meaning of the codes of each presentation column, by name of the column.
        pair: (items,) number of the (query, item) pair of each row of features. None if
            each pair has a single row.
        unused: Columns of the source that have no role and are not read.
        notices: Messages for the user, for example about empty columns.
    """

    log: ClickLog
    data: RankingData | None
    items: np.ndarray
    queries: np.ndarray | None
    devices: tuple[str, ...] = ()
    users: np.ndarray | None = None
    timestamps: np.ndarray | None = None
    scales: Scales = MappingProxyType({})
    pair: np.ndarray | None = None
    unused: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()

    def by_pair(self) -> "Reading":
        """Returns a copy with one item per (query, item) pair.

        Each item has the first row of features of its pair.

        Estimates of examination use one item per pair, because an item remains the same
        item after its price changes.
        """
        if self.pair is None or self.data is None:
            return self
        data = self.data
        _, first = np.unique(self.pair, return_index=True)
        counts = np.bincount(data.query_of_item()[first])
        fewer = data.with_trusted(
            features=data.features[first],
            labels=None if data.labels is None else data.labels[first],
            offsets=np.concatenate([[0], np.cumsum(counts)]),
        )
        item = np.where(self.log.mask, self.pair[self.log.item], -1).astype(np.int32)
        log = replace(self.log, item=item).of_items(fewer)
        return self._replace(log=log, data=fewer, items=self.items[first], pair=None)


def read_log(
    source: Source,
    columns: Columns | None = None,
    items: Source | None = None,
    *,
    list_size: int | None = None,
    first_position: int = 1,
    first_features: bool = False,
    devices: Sequence[str] | None = None,
    scales: Scales | None = None,
    progress: Callable[[float], None] = lambda share: None,
) -> Reading:
    """Reads a log from any source, with ranking data if the source has features.

    A column that is NULL in every row is ignored, and `Reading.notices` says so.

    Args:
        source: Table in any format that `debias.data.tables.open_parts` opens, such as
            Parquet or CSV.
        columns: Mapping of roles to columns. None means that each column has the name
            of its role.
        items: Table with features and labels of items. The table is joined by item, or
            by query and item if it has a query column. With a query column, the ranking
            data contains all items of the table, including items that were never shown.
        list_size: Number of top positions to keep. None keeps all positions, and a
            position beyond 1000 is then an error.
        first_position: Number of the first position, row and column in the log, such as
            0.
        first_features: Whether to keep only the first row of features of each (query,
            item) pair. If False, each distinct row of features becomes a separate item.
        devices: Names of the devices with the codes 1, 2, and so on; other devices get
            code 0. None means the devices of the log in alphabetical order. To apply a
            model that reads devices, pass the devices of the training log.
        scales: Meaning of the codes of presentation columns. None chooses the codes
            from the values in the log. To apply a trained model, pass the scales of the
            training log.
        progress: Called with the share of the work done.

    Raises:
        FileNotFoundError: Nothing is there.
        ValueError: A column is missing or has a wrong type, a value is not allowed,
            rows contradict each other, or a file changed while it was read. The message
            names the file, the column and the first wrong row, counted from 0.

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
    if abs(first_position) > FARTHEST:
        raise ValueError(
            f"first_position must be in -{FARTHEST}..{FARTHEST}, got {first_position}"
        )
    if not isinstance(columns, Columns | None):
        raise TypeError(f"columns must be debias.Columns(...), got {columns!r}")
    asked = columns or Columns()
    table = None if items is None else read_items(items, asked)
    if table is not None:
        asked = replace(asked, features=None, label=None)
    parts = open_parts(source)
    how = list_size, first_position, first_features, devices, scales, progress
    with unchanged(parts):
        while True:
            try:
                return _reading(parts, asked, table, *how)
            except Retyped:
                continue


def _reading(
    parts: Sequence[Part],
    asked: Columns,
    table: Items | None,
    list_size: int | None,
    first_position: int,
    first_features: bool,
    devices: Sequence[str] | None,
    scales: Scales | None,
    progress: Callable[[float], None],
) -> Reading:
    parts = with_lists(parts, asked.item)
    chosen = choose(parts, asked)
    passes = 2 if "features" in chosen else 1
    rows = read_rows(parts, chosen, lambda share: progress(share / passes))
    position = positions(rows, first_position, list_size)
    pairs, data = pair_up(rows, position <= (list_size or LONGEST)), None
    known = None if table is None else table.known
    rows_of_pairs = None
    if table is not None:
        pairs, data = join(rows, pairs, table)
    log, first, rectangle_of, odd = _log(rows, pairs, position, devices)
    log, scales = _with_many(log, rows, first, rectangle_of, scales)
    if passes == 2:
        # Features need most of the memory, so what they do not need is freed first.
        pairs = pairs._replace(key=np.zeros(0, np.int64))
        rows.let_go("session", "query", "item", "click")
        del position
        known = read_known(
            parts,
            chosen,
            pairs.number,
            len(pairs.query),
            first_features,
            lambda share: progress((1 + share) / 2),
        )
        if known.number is not pairs.number:  # features change between sessions
            pairs, rows_of_pairs = in_rows(pairs, known), known.pair
            log = replace(log, item=rectangle_of(pairs.number, -1))
        data = ranking_of(pairs, known)
    more = {"users": rows.codes.get("user"), "timestamps": rows.values.get("timestamp")}
    read = {name for names in chosen.values() for name in names}
    return Reading(
        log if data is None else log.of_items(data),
        data,
        pairs.items,
        pairs.queries,
        _device_names(rows, devices),
        **{name: v if v is None else v[first] for name, v in more.items()},
        scales=scales,
        pair=rows_of_pairs,
        unused=tuple(name for name in parts[0].schema.names if name not in read),
        notices=rows.notices + odd + (() if known is None else known.notices),
    )


def _log(
    rows: Rows,
    pairs: Pairs,
    position: np.ndarray,
    devices: Sequence[str] | None,
) -> tuple[
    ClickLog,
    np.ndarray,
    Callable[[np.ndarray, float], np.ndarray],
    tuple[str, ...],
]:
    """The log, first rows of sessions, a function from rows to cells, and notices."""
    kept = np.flatnonzero(pairs.number >= 0).astype(np.int32)
    everything = len(kept) == len(pairs.number)
    session = rows.session if everything else rows.session[kept]
    present = np.bincount(session) > 0
    if not present.all():
        session = (np.cumsum(present) - 1)[session]
    count, list_size = int(session.max()) + 1, int(position[kept].max())
    first = np.empty(count, np.int64)
    first[session[::-1]] = kept[::-1]  # the first of several stays
    cells_type = np.int32 if count * list_size < 1 << 31 else np.int64
    cell = session.astype(cells_type) * list_size + (position[kept] - 1)

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
        number = index_in(rows.names["device"].cast(pa.string()), known) + 1
        device = rows.codes["device"][first]
        log["device"] = np.where(device >= 0, number[device], 0)
    if "context" in rows.values:
        log["context"] = rows.values["context"][first]
    return ClickLog(**log), first, rectangle_of, _odd_lists(rows, kept, cell, item)


def _odd_lists(
    rows: Rows, kept: np.ndarray, cell: np.ndarray, item: np.ndarray
) -> tuple[str, ...]:
    """Notices about lists that show an item twice, or that have gaps in their ranks."""
    width = item.shape[1]
    found = []
    for role, odd_of, what, policy in (
        ("item", _again, "shows an item twice", "both cells are kept"),
        ("position", _holes, "leaves out ranks", "their cells are empty"),
    ):
        count, first = 0, None
        for start in range(0, len(item), _PIECE):
            odd = odd_of(item[start : start + _PIECE])
            lists = odd.any(axis=1)
            count += int(lists.sum())
            if first is None and lists.any():
                at = int(np.argmax(lists))
                first = (start + at) * width + int(np.argmax(odd[at]))
        if first is not None and role in rows.batches[0].chosen:
            entry = int(kept[np.argmax(cell == first)])
            what = f"{what} in {count:,} of {len(item):,} lists, the first"
            found.append(str(rows.fault(role, entry, what, policy)))
    return tuple(found)


def _again(item: np.ndarray) -> np.ndarray:
    """(S, L) bool: whether the item is also shown at a higher position of its list.

    >>> _again(np.array([[4, 5, 4], [4, 5, -1]])).tolist()
    [[False, False, True], [False, False, False]]
    """
    found = np.zeros(item.shape, bool)
    ordered = np.sort(item, axis=1)
    odd = np.flatnonzero(_equal(ordered).any(axis=1))
    order = np.argsort(item[odd], axis=1, kind="stable")
    cells = np.zeros(order.shape, bool)
    np.put_along_axis(cells, order[:, 1:], _equal(ordered[odd]), axis=1)
    found[odd] = cells
    return found


def _equal(ordered: np.ndarray) -> np.ndarray:
    """(S, L - 1) bool: whether the item equals the previous item."""
    return (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)


def _holes(item: np.ndarray) -> np.ndarray:
    """(S, L) bool: whether a shown cell is below an empty cell.

    >>> _holes(np.array([[4, -1, 5], [4, 5, -1]])).tolist()
    [[False, False, True], [False, False, False]]
    """
    shown = item >= 0
    return shown & np.logical_or.accumulate(~shown, axis=1)


def _with_many(
    log: ClickLog,
    rows: Rows,
    first: np.ndarray,
    rectangle_of: Callable[[np.ndarray, float], np.ndarray],
    scales: Scales | None,
) -> tuple[ClickLog, Scales]:
    """Adds presentation columns and further targets; also returns the scales.

    A column becomes one value per list if it is constant within every list.
    """
    shown: dict[str, np.ndarray] = {}
    found = {}
    for number, feature in enumerate(rows.many.get("presentation", ())):
        if feature.kind == "categories":
            column = rows.batches[0].chosen["presentation"].index(feature.name)
            what, todo = "holds several values a cell", REMEDIES["presentation"]
            raise rows.batches[0].fault("presentation", 0, what, todo, column)
        values = rows.values["presentation"][:, number]
        scale = (scales or {}).get(feature.name)
        scale = scale_of(feature, values) if scale is None else scale
        codes = codes_of(feature, values, scale)
        cells, top = rectangle_of(codes, 0), codes[first]
        alike = (cells == top[:, None]) | ~log.mask
        shown[feature.name] = top if alike.all() else cells
        found[feature.name] = scale
    targets = {}
    for number, feature in enumerate(rows.many.get("target", ())):
        values = rows.values["target"][:, number]
        if feature.coded:
            raise _text_in_target(rows, feature, values)
        values = np.nan_to_num(values)
        targets[feature.name] = rectangle_of(values, 0)
    if shown or targets:
        log = replace(log, presentation=shown or None, targets=targets or None)
    return log, found


def _text_in_target(rows: Rows, feature: Feature, codes: np.ndarray) -> ValueError:
    """The error for the first text value of a target."""
    words = [not re.fullmatch(NUMBER, value) for value in feature.values]
    entry = int(np.argmax(np.isin(codes, FIRST + np.flatnonzero(words))))
    column = rows.batches[0].chosen["target"].index(feature.name)
    what = "must be numbers, got text"
    return rows.fault("target", entry, what, REMEDIES["target"], column)


def _device_names(rows: Rows, devices: Sequence[str] | None) -> tuple[str, ...]:
    if devices is not None or "device" not in rows.names:
        return tuple(devices or ())
    return tuple(sorted(rows.names["device"].cast(pa.string()).to_pylist()))


def _raise_twice(rows: Rows, kept: np.ndarray, cell: np.ndarray) -> None:
    order = np.argsort(cell, kind="stable")
    again = order[1:][np.diff(cell[order]) == 0]
    entry = int(kept[again.min()])
    role = "position" if "position" in rows.batches[0].chosen else "item"
    what = "gives a second item to a position of the session"
    raise rows.fault(role, entry, what, "is the session's name used twice?")


def _check_constant(
    rows: Rows, kept: np.ndarray, first: np.ndarray, session: np.ndarray
) -> None:
    """Raises ValueError if query, user, device or context changes in a session."""
    every = {**rows.codes, **rows.values}
    for role in ("query", "user", "device", "context"):
        if role in every:
            values = every[role]
            wrong = values[kept] != values[first][session]
            if wrong.any():
                entry = int(kept[np.argmax(wrong.reshape(len(kept), -1).any(axis=1))])
                what = "differs from the row that its session began with"
                raise rows.fault(role, entry, what, "is the session's name used twice?")
