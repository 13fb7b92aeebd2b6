"""Click logs: the shown items of each session, in order, and the clicks.

A log holds the item numbers of a `RankingData`, but not its features. Ten million
sessions of ten items therefore take half a gigabyte. `debias.data.columns.COLUMNS`
specifies the columns. To add a column to all logs, add it to `COLUMNS`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from debias.data.columns import (
    COLUMNS,
    REQUIRED,
    TRUTH,
    check_items,
    checked,
    extra,
    known,
    others,
    spec,
)
from debias.data.splits import random_parts

if TYPE_CHECKING:
    import pyarrow as pa

    from debias.data.ranking import RankingData

__all__ = ["COLUMNS", "REQUIRED", "TRUTH", "ClickLog"]


@dataclass(frozen=True, eq=False, repr=False)
class ClickLog:
    """A click log of S sessions with at most L shown items, in display order.

    Padding may be anywhere in a list, so a grid can have empty cells. Probability
    columns are not validated at padding.

    Args:
        query: (S,) int32 query number.
        item: (S, L) int32 item number in the ranking data; -1 is padding.
        click: (S, L) bool; padding is never clicked.
        row: (S, L) int16 row on a grid, counted from 1; 0 at padding.
        column: (S, L) int16 column on a grid, counted from 1; 0 at padding.
        device: (S,) int16 code of the device, from 1; 0 means unknown.
        context: (S, C) float32 further properties of the session, as finite numbers.
        logging_propensity: (S, L) float32 in (0, 1], the probability that the logging
            policy puts the item at its rank, given the items above it. The product over
            the shown items is the propensity of the whole list.
        swap: (S, 2) int16 the two ranks (from 1) whose items an intervention swapped;
            both are 0 without an intervention.
        user_type: (S,) int16 true type of the user. Only simulated logs have the
            columns `user_type`, `examination`, `attraction` and `satisfaction`.
        examination: (S, L) float32 in [0, 1], P(examined at rank k | type of user,
            clicks of the session above rank k).
        attraction: (S, L) float32 in [0, 1], P(click | examined, type of user).
        satisfaction: (S, L) float32 in [0, 1], P(satisfied | clicked).
        presentation: Columns of any name that describe the presentation of items, such
            as a badge, a media type or a height in bins. Each column holds int16 codes
            from 1; 0 means no value. A column has the shape (S,), with one code per
            list, or (S, L), with 0 at padding.
        targets: Columns of any name that measure other user actions, such as carts or
            seconds. Each column is (S, L) float32 with finite numbers.
        items_fingerprint: `RankingData.fingerprint` of the items; None if unknown.
            `check` uses the fingerprint to detect a log that belongs to other ranking
            data.

    Raises:
        ValueError: A column has a wrong shape or type, or a value is not allowed. The
            message names the column and the first wrong session and rank.

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
    satisfaction: np.ndarray | None = None
    items_fingerprint: str | None = None
    presentation: Mapping[str, np.ndarray] | None = None
    targets: Mapping[str, np.ndarray] | None = None

    def __post_init__(self) -> None:
        shown = extra("presentation", self.presentation, np.int16)
        targets = extra("target", self.targets, np.float32)
        both = {*(shown or {})} & {*(targets or {})}
        if both:
            raise ValueError(f"presentation and targets both hold {min(both)!r}")
        object.__setattr__(self, "presentation", shown)
        object.__setattr__(self, "targets", targets)
        self._set(checked(self.columns()))

    def _set(self, columns: Mapping[str, np.ndarray | None]) -> None:
        """Sets all columns from checked columns; absent columns become None."""
        for name in COLUMNS:
            object.__setattr__(self, name, columns.get(name))
        rest = {name: v for name in others(columns) if (v := columns[name]) is not None}
        for role, floats in (("presentation", False), ("targets", True)):
            some = {n: v for n, v in rest.items() if (v.dtype.kind == "f") == floats}
            object.__setattr__(self, role, some or None)

    @classmethod
    def trusted(
        cls, *, items_fingerprint: str | None = None, **columns: np.ndarray | None
    ) -> Self:
        """Makes a log from checked columns, without validation."""
        log = object.__new__(cls)
        log._set(columns)
        object.__setattr__(log, "items_fingerprint", items_fingerprint)
        return log

    def __repr__(self) -> str:
        size = f"sessions={self.sessions}, list_size={self.list_size}"
        return f"ClickLog({size}, {' '.join(self.columns())})"

    @property
    def sessions(self) -> int:
        """Number of sessions."""
        return len(self.item)

    def __len__(self) -> int:
        return len(self.item)

    @property
    def list_size(self) -> int:
        """Number of cells in a session, including padding."""
        return self.item.shape[1]

    @property
    def mask(self) -> np.ndarray:
        """(S, L) bool, True for shown items."""
        return self.item >= 0

    @property
    def position(self) -> np.ndarray:
        """(S, L) int32 rank from 1; 0 at padding. Empty cells take a rank too."""
        rank = np.arange(1, self.list_size + 1, dtype=np.int32)
        return rank * self.mask

    @property
    def list_propensity(self) -> np.ndarray:
        """(S,) float64 probability that the logging policy shows this list.

        The probability is the product of `logging_propensity` over the shown items.
        """
        if self.logging_propensity is None:
            raise ValueError("this log has no column logging_propensity")
        return np.prod(
            self.logging_propensity, axis=1, where=self.mask, dtype=np.float64
        )

    def columns(self) -> dict[str, np.ndarray]:
        """The columns of the log by name; the columns of `COLUMNS` come first."""
        every = ((name, getattr(self, name)) for name in COLUMNS)
        found = {name: value for name, value in every if value is not None}
        return {**found, **(self.presentation or {}), **(self.targets or {})}

    def select(self, *names: str) -> Self:
        """Returns the log with its required columns and the named optional columns.

        >>> log = ClickLog([0], [[4]], [[1]], device=[2], user_type=[0])
        >>> log.select("device")
        ClickLog(sessions=1, list_size=1, query item click device)
        """
        columns = self.columns()
        for name in names:
            if name not in columns and known(name):
                raise ValueError(f"this log has no column {name}")
        keep = {*REQUIRED, *names}
        return self._with({n: v for n, v in columns.items() if n in keep})

    def check(self, items: "int | RankingData") -> Self:
        """Checks that the items of the log are in the ranking data.

        Returns:
            The log itself.

        Raises:
            ValueError: An item number is too large, or the log belongs to other items
                according to its fingerprint. The message names the session and rank of
                a wrong item number.

        >>> ClickLog([0], [[1, 7]], [[0, 0]]).check(items=5)
        Traceback (most recent call last):
        ValueError: item must be below 5, got 7 at row 0, column 1
        """
        if isinstance(items, int | np.integer):
            check_items(self.item, int(items))
            return self
        check_items(self.item, items.items)
        check_fingerprint(self.items_fingerprint, items)
        return self

    def of_items(self, data: "RankingData") -> Self:
        """Returns the log with the fingerprint of `data`, which `check` verifies.

        >>> from debias.data import RankingData
        >>> log = ClickLog([0], [[1, 0]], [[0, 1]])
        >>> log = log.of_items(RankingData([[0.5], [2.0]], None, [0, 2]))
        >>> log.check(RankingData([[7.0], [2.0]], None, [0, 2]))
        Traceback (most recent call last):
        ValueError: the log belongs to other items: their fingerprints differ...
        """
        return self.trusted(items_fingerprint=data.fingerprint, **self.columns())

    def take(self, index: np.ndarray | slice | Sequence[int]) -> Self:
        """Selects sessions by number, mask or slice, in the order of `index`."""
        if not isinstance(index, slice):
            index = np.asarray(index)
            if index.size == 0 and index.dtype.kind == "f":  # np.asarray([])
                index = index.astype(int)
        return self._with({n: v[index] for n, v in self.columns().items()})

    def _with(self, columns: dict[str, np.ndarray]) -> Self:
        """Makes a log with these checked columns and the items of this log."""
        return self.trusted(items_fingerprint=self.items_fingerprint, **columns)

    def renumbered(self) -> tuple[Self, np.ndarray]:
        """Renumbers the shown items from 0; also returns their previous numbers.

        >>> log, item = ClickLog([0], [[7, 2, -1]], [[1, 0, 0]]).renumbered()
        >>> log.item.tolist(), item.tolist()
        ([[1, 0, -1]], [2, 7])
        """
        seen = np.zeros(int(self.item.max(initial=-1)) + 2, bool)
        seen[self.item] = True  # padding sets the last cell
        seen[-1] = False
        number = np.where(seen, np.cumsum(seen) - 1, -1).astype(np.int32)
        columns = {**self.columns(), "item": number[self.item]}
        return self.trusted(**columns), np.flatnonzero(seen)

    def split(
        self, fractions: Sequence[float], rng: np.random.Generator, by: str = "session"
    ) -> tuple[Self, ...]:
        """Splits the log at random.

        Args:
            fractions: Shares of the parts, summing to 1.
            rng: The only source of randomness.
            by: "session" splits sessions. "query" splits queries, so that all sessions
                of a query are in the same part.

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
        """Concatenates the sessions of logs; shorter lists are padded at the end.

        Raises:
            ValueError: No log is given, or the logs have different columns or belong to
                different items.

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
        noted = {log.items_fingerprint for log in logs}
        if len(noted - {None}) > 1:
            raise ValueError(
                "logs must have the same items, but their fingerprints differ"
            )
        return cls.trusted(
            items_fingerprint=noted.pop() if len(noted) == 1 else None, **joined
        )

    def to_arrow(self) -> "pa.Table":
        """Converts the log to an Arrow table. Only the bools of `click` are copied."""
        from debias.data.log_files import to_arrow

        return to_arrow(self.columns(), self.items_fingerprint)

    @classmethod
    def from_arrow(
        cls, table: "pa.Table | pa.RecordBatch", columns: Sequence[str] | None = None
    ) -> Self:
        """Makes a validated log from an Arrow table (see `debias.data.log_files`)."""
        from debias.data.log_files import from_arrow, noted_items

        return cls.trusted(
            items_fingerprint=noted_items(table.schema), **from_arrow(table, columns)
        )

    def write(
        self, path: str | Path, shards: int | None = None, compression: str = "lz4"
    ) -> None:
        """Writes one Parquet file, or a new folder of `shards` files, atomically.

        Args:
            path: The file, which is replaced if it exists. If `shards` is given, the
                path of a new or empty folder.
            shards: Number of files, which are called part-00000.parquet and so on. The
                numbers of sessions in the files differ by at most one.
            compression: A Parquet codec. Files with zstd are a quarter to a half
                smaller than files with lz4, but slower to read if numbers rarely
                repeat. Use "none" for programs that cannot read lz4.

        Raises:
            ValueError: The log is empty or has fewer sessions than shards, or the
                folder is not empty. Existing files are not changed.
        """
        from debias.data.log_files import write_columns

        write_columns(self.columns(), path, shards, compression, self.items_fingerprint)

    @classmethod
    def open(
        cls,
        path: str | Path,
        columns: Sequence[str] | None = None,
        memory: int = 2 << 30,
        cache: str | Path | None = None,
    ) -> Self:
        """Reads a whole log from a Parquet file or a folder of shards.

        A log that fits into `memory` is decoded in memory. A log larger than `memory`
        is decoded once into .npy files in the cache folder, and these files are
        memory-mapped. The next `open` only maps these files, and only the parts in use
        occupy memory.

        Args:
            path: A file or a folder.
            columns: Optional columns to read. None reads all columns, and () reads only
                the three required columns.
            memory: Largest size in bytes of a log that is decoded in memory.
            cache: Folder for the decoded copy. None means $DEBIAS_CACHE, or else the
                user's cache folder.

        Raises:
            ValueError: See `debias.data.read_batches`.
        """
        from debias.data.log_files import noted_items, open_columns, shards

        found = shards(path)
        return cls.trusted(
            items_fingerprint=noted_items(found[0].schema),
            **open_columns(found, columns, memory, cache),
        )


def check_fingerprint(noted: str | None, data: "RankingData") -> None:
    """Checks that the fingerprint of a log is that of the ranking data.

    Raises:
        ValueError: The fingerprints differ, so the log belongs to other items.
    """
    if noted is not None and noted != data.fingerprint:
        raise ValueError(
            "the log belongs to other items: their fingerprints differ. Read it with "
            "its own ranking data. If these are the same items in the same order with "
            "other features, take log.of_items(data)"
        )


def _pad(log: ClickLog, list_size: int) -> dict[str, np.ndarray]:
    more = list_size - log.list_size
    if more == 0:
        return log.columns()
    fill = {"item": -1, "logging_propensity": 1}
    return {
        name: np.pad(value, ((0, 0), (0, more)), constant_values=fill.get(name, 0))
        if spec(name, value).shape == "SL"
        else value
        for name, value in log.columns().items()
    }
