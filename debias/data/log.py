"""Click logs: which items each session was shown, in which order, and what it clicked.

A log holds item numbers of a `RankingData`, never features, so that ten million
sessions of ten items take half a gigabyte. The columns are the table `COLUMNS`; a
column is added by entering it there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from debias.data.splits import random_parts

if TYPE_CHECKING:
    import pyarrow as pa


class Column(NamedTuple):
    """What a column of a log may hold.

    Attributes:
        dtype: How it is kept.
        shape: Its axes: S sessions, L ranks, C context features, 2 itself.
        low, high: Least and greatest value allowed at a shown item.
        above: Whether `low` itself is not allowed.
        padding: What padding cells must hold; None where they may hold anything.
    """

    dtype: type
    shape: str
    low: float = -np.inf
    high: float = np.inf
    above: bool = False
    padding: int | None = None


COLUMNS: Mapping[str, Column] = {
    "query": Column(np.int32, "S", low=0),
    "item": Column(np.int32, "SL", low=-1),
    "click": Column(np.bool_, "SL", padding=0),
    "row": Column(np.int16, "SL", low=1, padding=0),
    "column": Column(np.int16, "SL", low=1, padding=0),
    "device": Column(np.int16, "S", low=0),
    "context": Column(np.float32, "SC"),
    "logging_propensity": Column(np.float32, "SL", low=0, high=1, above=True),
    "swap": Column(np.int16, "S2", low=0),
    "user_type": Column(np.int16, "S", low=0),
    "examination": Column(np.float32, "SL", low=0, high=1),
    "attraction": Column(np.float32, "SL", low=0, high=1),
}
REQUIRED = ("query", "item", "click")
TRUTH = ("user_type", "examination", "attraction")


@dataclass(frozen=True, eq=False, repr=False)
class ClickLog:
    """Sessions S of at most L shown items, in display order from left to right.

    Padding may stand anywhere in a row, so that a grid can have holes. What padding
    cells of the probabilities hold is nobody's business and is kept as given.

    Args:
        query: (S,) int32 query number.
        item: (S, L) int32 item number in the ranking data, -1 = padding.
        click: (S, L) bool; padding is never clicked.
        row: (S, L) int16 row on a grid from 1, 0 = padding.
        column: (S, L) int16 column on a grid from 1, 0 = padding.
        device: (S,) int16 code from 1, 0 = unknown.
        context: (S, C) float32, finite: what else was observed of the session.
        logging_propensity: (S, L) float32 in (0, 1], the probability that the logging
            policy puts this item at this rank given the items above it. The product
            over the shown items is the propensity of the whole list.
        swap: (S, 2) int16 the two ranks from 1 that an intervention exchanged, 0 0
            where it exchanged none.
        user_type: (S,) int16. Truth, known of simulated logs only, as the next two.
        examination: (S, L) float32 in [0, 1], P(examined at k | this type of user,
            clicks of this session above k).
        attraction: (S, L) float32 in [0, 1], P(click | examined, this type of user).

    Raises:
        ValueError: A column has the wrong shape or type, or a value is not allowed; the
            message names the column and the first session, and rank, at fault.

    >>> log = ClickLog(query=[0, 1], item=[[4, 2], [5, -1]], click=[[0, 1], [0, 0]])
    >>> log
    ClickLog(sessions=2, list_size=2, query item click)
    >>> log.position.tolist()
    [[1, 2], [1, 0]]
    """

    query: np.ndarray
    item: np.ndarray
    click: np.ndarray
    row: np.ndarray | None = None
    column: np.ndarray | None = None
    device: np.ndarray | None = None
    context: np.ndarray | None = None
    logging_propensity: np.ndarray | None = None
    swap: np.ndarray | None = None
    user_type: np.ndarray | None = None
    examination: np.ndarray | None = None
    attraction: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name in REQUIRED:
            if getattr(self, name) is None:
                raise ValueError(f"{name} must not be None")
        item = _kept("item", self.item)
        if item.ndim != 2 or item.shape[1] == 0:
            raise ValueError(
                f"item must have shape (sessions, list_size), got {item.shape}"
            )
        _check_values("item", item, None)
        padding = item < 0 if item.size and item.min() < 0 else None
        if padding is not None and padding.all(axis=1).any():
            row = np.flatnonzero(padding.all(axis=1))[0]
            raise ValueError(f"item shows nothing at row {row}")
        object.__setattr__(self, "item", item)
        sizes = {"S": len(item), "L": item.shape[1], "2": 2}
        for name, value in self.columns().items():
            if name != "item":
                kept = _kept(name, value)
                _check_shape(name, kept, sizes)
                _check_values(name, kept, padding)
                object.__setattr__(self, name, kept)
        if self.swap is not None:
            _check_swap(self.swap, item)

    @classmethod
    def trusted(cls, **columns: np.ndarray | None) -> Self:
        """A log of columns that were checked before; nothing is read."""
        log = object.__new__(cls)
        for field in fields(cls):
            object.__setattr__(log, field.name, columns.get(field.name))
        return log

    def __repr__(self) -> str:
        size = f"sessions={self.sessions}, list_size={self.list_size}"
        return f"ClickLog({size}, {' '.join(self.columns())})"

    @property
    def sessions(self) -> int:
        """How many sessions there are."""
        return len(self.item)

    def __len__(self) -> int:
        return len(self.item)

    @property
    def list_size(self) -> int:
        """How many cells a session has, padding included."""
        return self.item.shape[1]

    @property
    def mask(self) -> np.ndarray:
        """(S, L) bool, true where an item was shown."""
        return self.item >= 0

    @property
    def position(self) -> np.ndarray:
        """(S, L) int32 rank from 1, 0 at padding. A hole keeps its rank."""
        rank = np.arange(1, self.list_size + 1, dtype=np.int32)
        return rank * self.mask

    @property
    def list_propensity(self) -> np.ndarray:
        """(S,) float64, the probability that the logging policy shows this list.

        The product of `logging_propensity` over the shown items.
        """
        if self.logging_propensity is None:
            raise ValueError("this log has no column logging_propensity")
        return np.prod(
            self.logging_propensity, axis=1, where=self.mask, dtype=np.float64
        )

    def columns(self) -> dict[str, np.ndarray]:
        """The columns that the log has, by name, in the order of `COLUMNS`."""
        every = ((name, getattr(self, name)) for name in COLUMNS)
        return {name: value for name, value in every if value is not None}

    def select(self, *names: str) -> Self:
        """The log with these optional columns and no other.

        >>> log = ClickLog([0], [[4]], [[1]], device=[2], user_type=[0])
        >>> log.select("device")
        ClickLog(sessions=1, list_size=1, query item click device)
        """
        for name in names:
            if getattr(self, _known(name)) is None:
                raise ValueError(f"this log has no column {name}")
        keep = {*REQUIRED, *names}
        return self.trusted(**{n: v for n, v in self.columns().items() if n in keep})

    def check(self, items: int) -> Self:
        """Holds the log against ranking data of this many items.

        Returns:
            The log itself.

        Raises:
            ValueError: An item number is too high; names its session and rank.

        >>> ClickLog([0], [[1, 7]], [[0, 0]]).check(items=5)
        Traceback (most recent call last):
        ValueError: item must be below 5, got 7 at row 0, column 1
        """
        if self.item.size and self.item.max() >= items:
            row, column = np.argwhere(self.item >= items)[0]
            raise ValueError(
                f"item must be below {items}, got {self.item[row, column]} "
                f"at row {row}, column {column}"
            )
        return self

    def take(self, index: np.ndarray | slice | Sequence[int]) -> Self:
        """The sessions that a number array, a mask or a slice chooses, in its order."""
        if not isinstance(index, slice):
            index = np.asarray(index)
            if index.size == 0 and index.dtype.kind == "f":  # np.asarray([])
                index = index.astype(int)
        return self.trusted(**{n: v[index] for n, v in self.columns().items()})

    def split(
        self, fractions: Sequence[float], rng: np.random.Generator, by: str = "session"
    ) -> tuple[Self, ...]:
        """Parts the log at random.

        Args:
            fractions: Shares of the parts, summing to 1.
            rng: The only source of chance.
            by: "session" parts the sessions; "query" keeps the sessions of a query
                together, so that the shares are those of the queries.

        Raises:
            ValueError: The fractions do not sum to 1, or `by` is unknown.
        """
        if by == "session":
            parts = random_parts(self.sessions, fractions, rng)
            return tuple(self.take(part) for part in parts)
        if by != "query":
            raise ValueError(f"by must be session or query, got {by!r}")
        names, number = np.unique(self.query, return_inverse=True)
        parts = random_parts(names.size, fractions, rng)
        return tuple(self.take(np.isin(number, part)) for part in parts)

    @classmethod
    def concatenate(cls, logs: Sequence["ClickLog"]) -> Self:
        """The sessions of all logs, in order; shorter lists are padded at the end.

        Raises:
            ValueError: There is no log, or the logs differ in their columns.

        >>> short, long = ClickLog([0], [[4]], [[1]]), ClickLog([1], [[5, 6]], [[0, 0]])
        >>> ClickLog.concatenate([short, long]).item.tolist()
        [[4, -1], [5, 6]]
        """
        if not logs:
            raise ValueError("logs must hold at least one log")
        names = list(logs[0].columns())
        for number, log in enumerate(logs):
            if list(log.columns()) != names:
                raise ValueError(
                    f"logs must have the same columns: log 0 has {' '.join(names)}, "
                    f"log {number} has {' '.join(log.columns())}"
                )
        longest = max(log.list_size for log in logs)
        padded = [_pad(log, longest) for log in logs]
        joined = {n: np.concatenate([log[n] for log in padded]) for n in names}
        return cls.trusted(**joined)

    def to_arrow(self) -> "pa.Table":
        """The log as an Arrow table, `debias.data.log_files.to_arrow`."""
        from debias.data.log_files import to_arrow

        return to_arrow(self)

    @staticmethod
    def from_arrow(
        table: "pa.Table", columns: Sequence[str] | None = None
    ) -> "ClickLog":
        """A log from an Arrow table, `debias.data.log_files.from_arrow`."""
        from debias.data.log_files import from_arrow

        return from_arrow(table, columns)

    def write(
        self, path: str | Path, shards: int | None = None, compression: str = "lz4"
    ) -> None:
        """Writes Parquet, `debias.data.log_files.write_log`."""
        from debias.data.log_files import write_log

        write_log(self, path, shards, compression)

    @staticmethod
    def open(
        path: str | Path,
        columns: Sequence[str] | None = None,
        memory: int = 2 << 30,
        cache: str | Path | None = None,
    ) -> "ClickLog":
        """Reads Parquet, `debias.data.log_files.open_log`."""
        from debias.data.log_files import open_log

        return open_log(path, columns, memory, cache)


def _known(name: str) -> str:
    if name not in COLUMNS:
        raise ValueError(f"no column is called {name!r}; there are {' '.join(COLUMNS)}")
    return name


def _kept(name: str, value: Any) -> np.ndarray:
    """The value as an array of the column's type; only lossless casts."""
    value = np.asarray(value)
    dtype = np.dtype(COLUMNS[name].dtype)
    if value.dtype == dtype:
        return value
    allowed = {"b": "biu", "i": "biu", "f": "biuf"}[dtype.kind]
    if value.size and value.dtype.kind not in allowed:
        raise ValueError(f"{name} must be {dtype}, got {value.dtype}")
    kept = value.astype(dtype)
    if dtype.kind != "f" and (kept != value).any():
        wrong = value[kept != value].flat[0]
        raise ValueError(f"{name} must fit {dtype}, got {wrong}")
    return kept


def _check_shape(name: str, value: np.ndarray, sizes: Mapping[str, int]) -> None:
    axes = COLUMNS[name].shape
    fits = value.ndim == len(axes) and all(
        size == sizes.get(axis, size)
        for axis, size in zip(axes, value.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join(str(sizes.get(axis, axis)) for axis in axes)
        raise ValueError(f"{name} must have shape ({wanted}), got {value.shape}")


def _check_values(name: str, value: np.ndarray, padding: np.ndarray | None) -> None:
    if value.size == 0:
        return
    column = COLUMNS[name]
    inner = column.shape == "SL"
    _, _, low, high, above, at_padding = column
    if value.dtype.kind != "b":
        # Whole-array extremes need no temporary; who is at fault is asked only then.
        least, most = value.min(), value.max()
        fine = (least > low if above else least >= low) and most <= high
        if not (fine and np.isfinite(least) and np.isfinite(most)):
            good = (value > low if above else value >= low) & (value <= high)
            good &= np.isfinite(value)
            if inner and padding is not None:
                good |= padding
            _complain(name, value, ~good, _range(column))
    if inner and padding is not None and at_padding is not None:
        wrong = padding & (value != at_padding)
        _complain(name, value, wrong, f"must be {at_padding} at padding")


def _range(column: Column) -> str:
    if np.isinf(column.low):
        return "must be finite"
    if np.isinf(column.high):
        return f"must be at least {column.low:g}"
    return f"must be in {'(' if column.above else '['}{column.low:g}, {column.high:g}]"


def _complain(name: str, value: np.ndarray, wrong: np.ndarray, rule: str) -> None:
    if wrong.any():
        place = np.argwhere(wrong)[0]
        where = ", ".join(
            f"{axis} {i}" for axis, i in zip(("row", "column"), place, strict=False)
        )
        raise ValueError(f"{name} {rule}, got {value[tuple(place)]} at {where}")


def _check_swap(swap: np.ndarray, item: np.ndarray) -> None:
    row = np.flatnonzero(swap.any(axis=1))
    ranks = swap[row].astype(int)
    inside = ((ranks >= 1) & (ranks <= item.shape[1])).all(axis=1)
    at = np.where(inside[:, None], ranks - 1, 0)
    shown = (np.take_along_axis(item[row], at, axis=1) >= 0).all(axis=1)
    wrong = row[~(inside & shown & (ranks[:, 0] != ranks[:, 1]))]
    if wrong.size:
        raise ValueError(
            "swap must name two different shown ranks or be 0 0, "
            f"got {swap[wrong[0]].tolist()} at row {wrong[0]}"
        )


def _pad(log: ClickLog, list_size: int) -> dict[str, np.ndarray]:
    more = list_size - log.list_size
    if more == 0:
        return log.columns()
    fill = {"item": -1, "logging_propensity": 1}
    return {
        name: np.pad(value, ((0, 0), (0, more)), constant_values=fill.get(name, 0))
        if COLUMNS[name].shape == "SL"
        else value
        for name, value in log.columns().items()
    }
