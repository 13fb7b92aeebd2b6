"""Interactions between a table of users and a table of items.

A table stores codes instead of strings, like
`keras.layers.StringLookup(mask_token="")`. Code 0 means missing or padding, code 1
means out of vocabulary, and the codes of known values start at 2. The id of a row is a
feature with the name "id". Row r has the id code r + 2, and an unseen user or item has
code 1.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

import numpy as np

from debias.data.features import ID
from debias.data.text import one_of
from debias.retrieval.data.taken import Ragged, Taken, joined

MISSING, UNKNOWN, FIRST = 0, 1, 2
_COLUMNS = ("user", "item", "time", "weight", "target")  # one entry per event


@dataclass(frozen=True)
class FeatureTable:
    """A table with one row per user or item, and one column per feature.

    The array of a column determines its kind: (n,) int32 is categorical, (n, m) int32
    is multi-valued and padded with 0, and (n,) float32 is numeric.

    Attributes:
        columns: Dict from feature name to array. All arrays have the same number of
            rows.
        vocabularies: Dict from the name of a categorical or multi-valued feature to
            (V,) strings. Code c means `vocabularies[name][c - 2]`.

    >>> table = FeatureTable.build({"id": ["a", "b"], "genre": [["x", "y"], []]})
    >>> table.columns["id"].tolist(), table.columns["genre"].tolist()
    ([2, 3], [[2, 3], [0, 0]])
    >>> table.encode({"id": ["b", "z"], "genre": [["y", "q"], []]})[1]
    {'id': 1, 'genre': 1}
    """

    columns: Mapping[str, np.ndarray]
    vocabularies: Mapping[str, np.ndarray]

    def __post_init__(self) -> None:
        lengths = {name: len(column) for name, column in self.columns.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"columns must have equally many rows, got {lengths}")
        for name, column in self.columns.items():
            if column.dtype.kind == "f":
                if column.ndim != 1 or not np.isfinite(column).all():
                    raise ValueError(f"numeric column {name!r} must be (n,) and finite")
            elif name not in self.vocabularies:
                raise ValueError(f"column {name!r} has codes but no vocabulary")
            elif column.size and not (
                column.min() >= 0 and column.max() < self.size(name)
            ):
                raise ValueError(
                    f"codes of column {name!r} must be in [0, {self.size(name)})"
                )

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def size(self, name: str) -> int:
        """Number of codes of a column, including the two reserved codes."""
        return len(self.vocabularies[name]) + FIRST

    @property
    def schema(self) -> dict[str, dict[str, Any]]:
        """Kind and number of codes of each column, as plain data for a config."""

        def describe(name: str, column: np.ndarray) -> dict[str, Any]:
            if column.dtype.kind == "f":
                return {"kind": "numeric"}
            kind = "categorical" if column.ndim == 1 else "multivalued"
            return {"kind": kind, "size": self.size(name)}

        return {name: describe(name, column) for name, column in self.columns.items()}

    def take(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """The columns at `rows`, an int array of any shape."""
        return {name: column[rows] for name, column in self.columns.items()}

    def append(self, raw: Mapping[str, Sequence[Any] | np.ndarray]) -> "FeatureTable":
        """A copy of the table with additional rows for new ids.

        Old rows and codes do not change, so the embedding tables of a model stay valid.
        New ids get the next codes. The values of other features are encoded by the
        existing vocabularies; unknown values get the out-of-vocabulary code. If `raw`
        lacks a feature, its value in the new rows is code 0 (missing) or, in a numeric
        column, the number 0.

        Raises:
            ValueError: An id exists already, repeats, or is missing.

        >>> table = FeatureTable.build({"id": ["a"], "genre": ["x"]})
        >>> more = table.append({"id": ["b", "c"], "genre": ["x", "y"]})
        >>> more.columns["id"].tolist(), more.columns["genre"].tolist()
        ([2, 3, 4], [2, 2, 1])
        """
        if ID not in raw or ID not in self.columns:
            raise ValueError(f"both must have a column 'id', got {list(raw)}")
        columns, _ = self.encode(raw)
        ids, _ = _flatten(ID, raw[ID])
        _, first = np.unique(ids, return_index=True)
        old = (columns[ID] != UNKNOWN) | ~np.isin(np.arange(len(ids)), first)
        if old.any():
            row = int(np.argmax(old))
            raise ValueError(
                "column 'id' must be new, distinct ids; "
                f"row {row} has {str(ids[row])!r}"
            )
        columns[ID] = np.arange(len(ids), dtype=np.int32) + self.size(ID)
        names = np.concatenate([self.vocabularies[ID], ids])
        joined = {n: _stacked(own, columns[n]) for n, own in self.columns.items()}
        return FeatureTable(joined, {**self.vocabularies, ID: names})

    @classmethod
    def build(
        cls,
        raw: Mapping[str, Sequence[Any] | np.ndarray],
        min_count: int | Mapping[str, int] = 1,
    ) -> "FeatureTable":
        """Makes a table and its vocabularies from raw columns.

        Columns of strings, integers or None are categorical. Columns of sequences of
        strings or integers are multi-valued; None in a sequence is ignored. Columns of
        floats or decimals are numeric, and missing numbers (NaN) become 0. A vocabulary
        keeps the values that occur at least `min_count` times, in order of first
        appearance. `min_count` is an integer, or a dict with an integer per column. All
        ids are kept and must differ.
        """
        columns, vocabularies = {}, {}
        for name, values in raw.items():
            if _is_numeric(values):
                with np.errstate(over="ignore"):  # the check below reports it
                    numbers = np.asarray(values, np.float32)
                if np.isinf(numbers).any():
                    raise ValueError(
                        f"{name!r} of row {int(np.argmax(np.isinf(numbers)))} is "
                        "infinite or beyond single precision: give a finite number, "
                        "or leave it empty if it is unknown"
                    )
                columns[name] = np.nan_to_num(numbers)
                continue
            flat, lengths = _flatten(name, values)
            words, first, counts = np.unique(
                flat, return_index=True, return_counts=True
            )
            if name == ID and (lengths is not None or (counts > 1).any()):
                raise ValueError(
                    "column 'id' must be one distinct value per row; "
                    f"{words[counts > 1][:3].tolist()} repeat"
                )
            needed = min_count if isinstance(min_count, int) else min_count.get(name, 1)
            keep = (words != "") & (counts >= (1 if name == ID else needed))
            order = np.argsort(first[keep], kind="stable")
            vocabularies[name] = words[keep][order]
            columns[name] = _codes(flat, lengths, vocabularies[name])
        return cls(columns, vocabularies)

    def encode(
        self, raw: Mapping[str, Sequence[Any] | np.ndarray]
    ) -> tuple[dict[str, np.ndarray], dict[str, int]]:
        """Encodes raw columns by the vocabularies of this table; counts unknown values.

        If `raw` lacks a feature, its value in every row is code 0 (missing) or, in a
        numeric column, the number 0. Returns the columns and, for each column, the
        number of unknown values. A value is unknown if it is out of vocabulary or, in a
        numeric column, not finite.

        Raises:
            ValueError: A column is unknown, or has another kind than in the table.
        """
        lengths = {len(values) for values in raw.values()}
        strange = set(raw) - set(self.columns)
        if len(lengths) != 1 or strange:
            raise ValueError(
                f"raw must hold columns of one length, among {list(self.columns)}; got "
                f"lengths {sorted(lengths)} and unknown columns {sorted(strange)}"
            )
        (rows,) = lengths
        columns, unknown = {}, {}
        for name, column in self.columns.items():
            if name not in raw:
                columns[name] = np.zeros((rows, *column.shape[1:]), column.dtype)
                unknown[name] = 0
            elif column.dtype.kind == "f":
                values = _floats(name, raw[name])
                unknown[name] = int((~np.isfinite(values)).sum())
                columns[name] = np.where(np.isfinite(values), values, np.float32(0))
            else:
                flat, counts = _flatten(name, _words(name, raw[name]))
                if column.ndim == 1 and counts is not None:
                    raise ValueError(f"column {name!r} takes one value per row")
                if column.ndim == 2 and counts is None:
                    counts = np.ones(rows, int)
                columns[name] = _codes(flat, counts, self.vocabularies[name])
                unknown[name] = int((columns[name] == UNKNOWN).sum())
        return columns, unknown


def _stacked(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Stacks two columns; multi-valued columns are padded to the greater width."""
    if above.ndim == 1:
        return np.concatenate([above, below])
    width = max(above.shape[1], below.shape[1])
    return np.concatenate(
        [np.pad(part, ((0, 0), (0, width - part.shape[1]))) for part in (above, below)]
    )


def _is_numeric(values: Sequence[Any] | np.ndarray) -> bool:
    if isinstance(values, np.ndarray) and values.dtype != object:
        return values.dtype.kind == "f"
    return any(isinstance(value, float | np.floating | Decimal) for value in values)


def _floats(name: str, values: Sequence[Any] | np.ndarray) -> np.ndarray:
    try:
        return np.asarray(values, np.float32)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"column {name!r} must be numbers, as it was in training: {error}"
        ) from None


def _words(name: str, values: Sequence[Any] | np.ndarray) -> Sequence[Any] | np.ndarray:
    """Values of a category, in which floats are converted back to integers."""
    if not _is_numeric(values):
        return values
    numbers = _floats(name, values).astype(np.float64)
    there = np.isfinite(numbers)
    if (numbers[there] != np.rint(numbers[there])).any():
        row = int(np.argmax(there & (numbers != np.rint(numbers))))
        raise ValueError(
            f"column {name!r} must be categories, as it was in training, got "
            f"{values[row]} in row {row}"
        )
    return [int(n) if ok else None for n, ok in zip(numbers, there, strict=True)]


def _flatten(
    name: str, values: Sequence[Any] | np.ndarray
) -> tuple[np.ndarray, np.ndarray | None]:
    """All values as strings, and the number per row, or None for single values."""
    if isinstance(values, np.ndarray) and values.dtype.kind in "iuUS":
        if values.ndim == 2:
            return values.astype(str).ravel(), np.full(len(values), values.shape[1])
        return values.astype(str), None
    nested = [isinstance(value, list | tuple | np.ndarray) for value in values]
    if not any(nested):
        return np.array(["" if v is None else str(v) for v in values], str), None
    if not all(nested):
        row = nested.index(False)
        raise ValueError(f"column {name!r} mixes sequences and values, e.g. row {row}")
    flat = ["" if v is None else str(v) for row in values for v in row]
    return np.array(flat, str), np.array([len(row) for row in values])


def _codes(
    flat: np.ndarray, lengths: np.ndarray | None, vocabulary: np.ndarray
) -> np.ndarray:
    order = np.argsort(vocabulary, kind="stable")
    place = np.searchsorted(vocabulary[order], flat)
    place = order[np.minimum(place, max(len(order) - 1, 0))] if len(order) else place
    known = vocabulary[place] == flat if len(order) else np.zeros(len(flat), bool)
    codes = np.where(known, place + FIRST, np.where(flat == "", MISSING, UNKNOWN))
    codes = codes.astype(np.int32)
    if lengths is None:
        return codes
    padded = np.zeros((len(lengths), max(int(lengths.max(initial=0)), 1)), np.int32)
    padded[np.arange(padded.shape[1]) < lengths[:, None]] = codes
    return padded


@dataclass(frozen=True)
class Interactions:
    """Events (user, item, time) in any order, and the tables of users and items.

    Attributes:
        user: (E,) int32 rows of `users`.
        item: (E,) int32 rows of `items`.
        time: (E,) int64, or float64 if a time has a fraction, in any unit. Events with
            equal times keep their order.
        users: Table of users.
        items: Table of items, the catalogue.
        weight: (E,) float32 rating or count of each event. None if events have no
            weights.
        before: Items that users took in older events, which `latest` removed. None if
            no event was removed.
        target: (E,) int32 kind of each event, such as a click or an order, as an index
            into `targets`. None if all events are of one kind.
        targets: Names of the kinds of events.

    Users cannot have a feature "history", because user towers read a user's items under
    this name. The names of features cannot contain "/".
    """

    user: np.ndarray
    item: np.ndarray
    time: np.ndarray
    users: FeatureTable
    items: FeatureTable
    weight: np.ndarray | None = None
    before: Taken | None = None
    target: np.ndarray | None = None
    targets: tuple[str, ...] = ()
    _sorted: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in _COLUMNS:
            column = getattr(self, name)
            if column is not None and np.shape(column) != (len(self.user),):
                raise ValueError(
                    f"{name} must have shape ({len(self.user)},), got "
                    f"{np.shape(column)}"
                )
        for name, table in (("user", self.users), ("item", self.items)):
            _check_names(f"{name}s", table)
            rows = getattr(self, name)
            if len(rows) and not (rows.min() >= 0 and rows.max() < len(table)):
                bad = int(np.argmax((rows < 0) | (rows >= len(table))))
                raise ValueError(
                    f"{name} must be rows of a table of {len(table)}, got {rows[bad]} "
                    f"at event {bad}"
                )

    def __len__(self) -> int:
        return len(self.user)

    def take(self, index: np.ndarray) -> "Interactions":
        """The events at `index` (positions or a mask), with unchanged tables."""
        columns = {name: getattr(self, name) for name in _COLUMNS}
        taken: dict[str, Any] = {
            name: None if column is None else column[index]
            for name, column in columns.items()
        }
        return replace(self, **taken, _sorted={})

    def of_target(self, name: str) -> "Interactions":
        """The events of one kind, which is a name in `targets`.

        >>> log = from_columns(["u", "u"], ["i", "j"], [1, 2], target=["buy", "see"])
        >>> log.of_target("see").time.tolist()
        [2]
        """
        if self.target is None or name not in self.targets:
            raise ValueError(one_of("target", self.targets or (), name))
        return self.take(self.target == self.targets.index(name))

    def popularity(self) -> np.ndarray:
        """(items,) int64 array of the number of events of each item."""
        return np.bincount(self.item, minlength=len(self.items))

    def by_user(self) -> tuple[np.ndarray, np.ndarray]:
        """The order of events by user and time.

        Returns:
            order: (E,) int64, a permutation of the events.
            offsets: (users + 1,) int64; user u's events are
                `order[offsets[u]:offsets[u + 1]]`.
        """
        if not self._sorted:
            counts = np.bincount(self.user, minlength=len(self.users))
            self._sorted["order"] = np.lexsort((self.time, self.user))
            self._sorted["offsets"] = np.concatenate([[0], np.cumsum(counts)])
        return self._sorted["order"], self._sorted["offsets"]

    def seen(self, users: np.ndarray | None = None) -> Ragged:
        """Returns (rows, offsets): the items of each user by time, with repetition.

        The items of `users[q]`, or of user q if `users` is None, are
        `rows[offsets[q]:offsets[q + 1]]`. The items in `before` are included.
        """
        own = self._own(users)
        if self.before is None:
            return own
        which = np.arange(len(self.users)) if users is None else users
        return joined(self.before.select(which).with_repetition(), own)

    def _own(self, users: np.ndarray | None) -> Ragged:
        """The result of `seen`, without the items in `before`."""
        order, offsets = self.by_user()
        if users is None:
            return self.item[order], offsets
        lengths = np.diff(offsets)[users]
        start = np.concatenate([[0], np.cumsum(lengths)])
        step = np.arange(start[-1]) - np.repeat(start[:-1], lengths)
        return self.item[order[np.repeat(offsets[users], lengths) + step]], start

    def histories(
        self, length: int, users: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Histories of users as id codes, most recent first.

        Args:
            length: Length of the histories, at least 1.
            users: (Q,) rows of users, whose current histories are returned. If None,
                each event has a history of the earlier events of its user, and events
                are in the order of `by_user`.

        Returns:
            (Q or E, length) int32 id codes of items, padded with 0, and (Q or E,) int32
            number of earlier items, which may exceed `length`.
        """
        if length < 1:
            raise ValueError(f"length must be at least 1, got {length}")
        order, offsets = self.by_user()
        items = np.append(self.item[order], 0)
        if users is None:
            end = np.arange(len(self))
            start = np.repeat(offsets[:-1], np.diff(offsets))
        else:
            end, start = offsets[users + 1], offsets[users]
        back = end[:, None] - 1 - np.arange(length)
        codes = items[np.maximum(back, 0)] + FIRST
        codes = np.where(back >= start[:, None], codes, MISSING)
        return codes.astype(np.int32), (end - start).astype(np.int32)

    def latest(self, count: int) -> "Interactions":
        """Keeps the `count` latest events of each user, in unchanged order.

        `before` holds the items of the removed older events.

        >>> table = FeatureTable.build({"id": ["a", "b"]})
        >>> events = np.array([[0, 0, 1], [1, 0, 1], [6, 5, 7]])
        >>> log = Interactions(*events, table, table)
        >>> log.latest(1).time.tolist()
        [6, 7]
        >>> log.latest(1).seen()[0].tolist() == log.seen()[0].tolist()
        True
        """
        if count < 1:
            raise ValueError(f"count must be at least 1, got {count}")
        order, offsets = self.by_user()
        from_end = np.repeat(offsets[1:], np.diff(offsets)) - np.arange(len(self))
        dropped = order[from_end > count]
        if not len(dropped):
            return self
        before = Taken.of(*self.take(np.sort(dropped)).seen())
        return replace(self.take(np.sort(order[from_end <= count])), before=before)

    def distinct(self, keep: str = "first") -> "Interactions":
        """Keeps one event per (user, item) pair: the first or the last in time.

        The weights of the removed events are added to the weight of the remaining
        event.

        >>> table = FeatureTable.build({"id": ["a", "b"]})
        >>> log = Interactions(*np.array([[0, 0, 0], [1, 0, 1], [5, 6, 7]]),
        ...                    table, table, np.ones(3, "float32"))
        >>> log.distinct().time.tolist(), log.distinct("last").time.tolist()
        ([5, 6], [6, 7])
        >>> log.distinct().weight.tolist()
        [2.0, 1.0]
        """
        if keep not in ("first", "last"):
            raise ValueError(f"keep must be 'first' or 'last', got {keep!r}")
        order = self.by_user()[0]
        order = order if keep == "first" else order[::-1]
        pair = self.user[order].astype(np.int64) * len(self.items) + self.item[order]
        _, first, inverse = np.unique(pair, return_index=True, return_inverse=True)
        kept = self.take(order[first])
        if self.weight is not None:
            total = np.bincount(inverse, self.weight[order]).astype(np.float32)
            kept = replace(kept, weight=total)
        return kept.take(np.argsort(order[first], kind="stable"))

    def core(self, users: int = 5, items: int = 5) -> "Interactions":
        """The largest part of the log without rare users and rare items.

        Each user in the part has at least `users` events, and each item has at least
        `items` events. All other users and items are removed from the tables, so rows
        and id codes are renumbered.
        """
        inside = np.ones(len(self), bool)
        while True:
            events = self.take(inside)
            counts = np.bincount(events.user, minlength=len(self.users))
            enough = (counts >= users)[self.user]
            enough &= (events.popularity() >= items)[self.item]
            if not (inside & ~enough).any():
                break
            inside &= enough
        user_rows, user = np.unique(events.user, return_inverse=True)
        item_rows, item = np.unique(events.item, return_inverse=True)
        before = self.before
        if before is not None:
            number = np.full(len(self.items), -1)
            number[item_rows] = np.arange(len(item_rows))
            before = before.select(user_rows).renumbered(number)
        return replace(
            events,
            before=before,
            user=user.astype(np.int32),
            item=item.astype(np.int32),
            users=_rows_of(self.users, user_rows),
            items=_rows_of(self.items, item_rows),
            _sorted={},
        )


def _check_names(side: str, table: FeatureTable) -> None:
    """Raises ValueError for names of features that towers cannot read."""
    for name in table.columns:
        taken = side == "users" and name == "history"
        if taken or "/" in name:
            why = "that is the name of a user's items" if taken else "it contains /"
            raise ValueError(
                f"the {side} have a feature {name!r}, but {why}: rename the feature"
            )


def _rows_of(table: FeatureTable, rows: np.ndarray) -> FeatureTable:
    columns, vocabularies = table.take(rows), dict(table.vocabularies)
    if ID in columns:
        vocabularies[ID] = vocabularies[ID][columns[ID] - FIRST]
        columns[ID] = np.arange(FIRST, FIRST + len(rows), dtype=np.int32)
    return FeatureTable(columns, vocabularies)


def leave_last_out(
    log: Interactions, last: int = 1, seed: int | None = 0
) -> tuple[Interactions, Interactions]:
    """Holds out the `last` latest events of each user; returns (rest, held out).

    Events at the same time are put in random order, because their order in a file is
    meaningless or depends on the item. No event is held out for a user with at most
    `last` events, because no history would remain for a prediction. For a validation
    set, split the rest again.

    >>> table = FeatureTable.build({"id": ["a", "b"]})
    >>> log = Interactions(*np.array([[0, 1, 0], [1, 1, 0], [9, 8, 7]]), table, table)
    >>> rest, held_out = leave_last_out(log)
    >>> rest.time.tolist(), held_out.time.tolist()
    ([8, 7], [9])

    Args:
        log: The events.
        last: Number of events per user to hold out, at least 1.
        seed: Random seed for the order of events at the same time. None keeps the order
            of the log.
    """
    if last < 1:
        raise ValueError(f"last must be at least 1, got {last}")
    _, offsets = log.by_user()
    lots = np.arange(len(log))
    if seed is not None:
        lots = np.random.default_rng(seed).permutation(lots)
    order = np.lexsort((lots, log.time, log.user))
    counts = np.diff(offsets)
    from_end = np.repeat(offsets[1:], counts) - np.arange(len(log))
    out = np.zeros(len(log), bool)
    out[order] = (from_end <= last) & np.repeat(counts > last, counts)
    return log.take(~out), log.take(out)


def time_split(log: Interactions, at: float) -> tuple[Interactions, Interactions]:
    """Splits events by time: before `at`, and from `at` on.

    >>> table = FeatureTable.build({"id": ["a"]})
    >>> log = Interactions(*np.array([[0, 0], [0, 0], [9, 7]]), table, table)
    >>> [part.time.tolist() for part in time_split(log, 8)]
    [[7], [9]]
    """
    return log.take(log.time < at), log.take(log.time >= at)


def whole_times(time: Sequence[float] | np.ndarray) -> np.ndarray:
    """Times as int64, or as float64 if a time has a fraction.

    Raises:
        ValueError: A time is not finite. The message names the event.

    >>> whole_times([3.0, 4.0]).tolist(), whole_times([3, 4.5]).tolist()
    ([3, 4], [3.0, 4.5])
    """
    times = np.asarray(time)
    if times.dtype.kind != "f":
        return times.astype(np.int64)
    if not np.isfinite(times).all():
        row = int(np.argmin(np.isfinite(times)))
        raise ValueError(f"time must be finite, got {times[row]} at event {row}")
    if ((times == np.rint(times)) & (np.abs(times) < 2.0**62)).all():
        return times.astype(np.int64)
    return times.astype(np.float64)


def from_columns(
    user: Sequence[Any] | np.ndarray,
    item: Sequence[Any] | np.ndarray,
    time: Sequence[float] | np.ndarray,
    users: Mapping[str, Any] | None = None,
    items: Mapping[str, Any] | None = None,
    weight: Sequence[float] | np.ndarray | None = None,
    min_count: int = 1,
    target: Sequence[str] | np.ndarray | None = None,
) -> Interactions:
    """Interactions from raw ids and raw features.

    Args:
        user, item: (E,) ids, strings or integers.
        time: (E,) numbers or NumPy timestamps, which `whole_times` converts.
        users, items: Raw feature columns, including "id". Every id of an event needs a
            row. Rows without events are kept. If None, the id is the only feature.
        weight: (E,) weight of each event. If None, events have no weights.
        min_count: Feature values that occur fewer than `min_count` times get the
            out-of-vocabulary code.
        target: (E,) kind of each event, such as "click" or "order". If None, all events
            are of one kind.

    >>> items = {"id": [7], "year": [1999]}
    >>> log = from_columns(["u", "v"], [7, 7], [1, 2], items=items)
    >>> log.item.tolist(), log.items.schema["year"]
    ([0, 0], {'kind': 'categorical', 'size': 3})
    """
    rows, tables = [], []
    for side, ids, raw in (("user", user, users), ("item", item, items)):
        ids = np.asarray(ids).astype(str)
        given = {ID: np.unique(ids)} if raw is None else raw
        if ID not in given:
            raise ValueError(f"{side}s must have a column 'id', got {list(given)}")
        table = FeatureTable.build(given, min_count)
        codes = table.encode({ID: ids})[0][ID]
        if (codes < FIRST).any():
            bad = ids[np.argmax(codes < FIRST)]
            raise ValueError(f"{side}s has no row for the id {bad!r} of an event")
        rows.append(codes - FIRST)
        tables.append(table)
    names: tuple[str, ...] = ()
    codes_of_targets = None
    if target is not None:
        words, place = np.unique(np.asarray(target, str), return_inverse=True)
        names, codes_of_targets = tuple(words.tolist()), place.astype(np.int32)
    return Interactions(
        rows[0],
        rows[1],
        whole_times(time),
        tables[0],
        tables[1],
        None if weight is None else np.asarray(weight, np.float32),
        target=codes_of_targets,
        targets=names,
    )


def mutual_information(table: FeatureTable) -> np.ndarray:
    """(F, F) mutual information in nats between the columns of a table.

    I(a; b) = sum p(a, b) log(p(a, b) / (p(a) p(b))) over pairs of values, where p is a
    share of the rows. The diagonal entries are the entropies of the columns. In a
    multi-valued column, each distinct set of values counts as one value. Numeric
    columns are divided into ten quantile bins.

    >>> table = FeatureTable.build({"a": [0, 1, 0, 1], "b": [0, 1, 0, 1],
    ...                             "c": [0, 0, 1, 1]})
    >>> mutual_information(table).round(3).tolist()[0]
    [0.693, 0.693, 0.0]
    """
    levels = []
    for column in table.columns.values():
        if column.dtype.kind == "f":
            cuts = np.quantile(column, np.linspace(0, 1, 11)[1:-1])
            column = np.searchsorted(cuts, column)
        keys = np.sort(column, axis=-1) if column.ndim == 2 else column
        levels.append(np.unique(keys, axis=0, return_inverse=True)[1].ravel())

    def entropy(level: np.ndarray) -> float:
        p = np.bincount(level) / len(level)
        return float(-(p[p > 0] * np.log(p[p > 0])).sum())

    single = np.array([entropy(level) for level in levels])
    joint = np.empty((len(levels), len(levels)))
    for i, a in enumerate(levels):
        for j, b in enumerate(levels):
            pair = a.astype(np.int64) * (b.max(initial=0) + 1) + b
            joint[i, j] = entropy(np.unique(pair, return_inverse=True)[1])
    return np.maximum(single[:, None] + single - joint, 0.0)
