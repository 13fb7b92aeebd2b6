"""Reads a click log that is larger than memory, in windows of shuffled sessions.

An epoch visits the row groups of all shards in random order. Each window consists of
several row groups, whose sessions are held in memory and shuffled together. The order
of sessions is therefore uniformly random if the log fits into one window. The method is
CorgiPile: Xu et al., In-Database Machine Learning with CorgiPile, SIGMOD 2022.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Self, TypeVar

import numpy as np

from debias.data.log import ClickLog, check_fingerprint
from debias.data.log_files import (
    BATCH,
    Shard,
    longest_list,
    noted_items,
    noted_others,
    read_group,
    read_pieces,
    shards,
)
from debias.data.ranking import RankingData
from debias.data.stores import AnyPath
from debias.types import Over

WINDOW = 1 << 21  # sessions
T = TypeVar("T")

Keep = Callable[[ClickLog, tuple[int, int]], np.ndarray]


@dataclass(frozen=True, eq=False)
class Stream:
    """Reads all or some sessions of a log on disk, for training and sampling.

    Only the footers of the files are read until sessions are requested. At most one
    window is in memory. `read` depends only on the window number and the key, so an
    interrupted epoch can resume at any window.

    Args:
        path: A Parquet file of a log, or a folder of such files.
        columns: Optional columns to read; None reads all.
        window: Approximate number of sessions to shuffle together; a window consists of
            whole row groups. Memory holds twice as many sessions while a window is
            shuffled.
        keep: Function that selects sessions. The function takes a piece of the log and
            the pair (row group, first row) of this piece, and returns a mask (S,). None
            selects all sessions.
        share: Approximate share of the sessions that `keep` selects, from which `len`
            is computed.
        items: Number of items in the ranking data. An item number that is not below
            `items` raises an error when it is read. None skips this check.

    Raises:
        ValueError: The window is below 1, or a file is damaged (see
            `debias.data.log_files.shards`).

    >>> import tempfile
    >>> log = ClickLog(range(6), np.arange(12).reshape(6, 2), np.zeros((6, 2), bool))
    >>> folder = Path(tempfile.mkdtemp()) / "log"
    >>> log.write(folder, shards=3)
    >>> stream = Stream(folder, window=4)
    >>> [len(stream.read(number, key=[7])) for number in range(stream.windows)]
    [4, 2]
    """

    path: str | AnyPath
    columns: Sequence[str] | None = None
    window: int = WINDOW
    keep: Keep | None = None
    share: float = 1.0
    items: int | None = None

    def __post_init__(self) -> None:
        if self.window < 1:
            raise ValueError(f"window must be at least 1, got {self.window}")
        self.shards  # noqa: B018  what is wrong with the files is said at once

    @cached_property
    def shards(self) -> list[Shard]:
        """The files, sorted by name."""
        return shards(self.path)

    @cached_property
    def groups(self) -> list[tuple[Shard, int]]:
        """The row groups of all shards, in order."""
        return [(s, n) for s in self.shards for n in range(s.footer.num_row_groups)]

    @cached_property
    def list_size(self) -> int:
        """Number of cells in a session."""
        return longest_list(self.shards)

    @property
    def others(self) -> dict[str, str]:
        """Roles of the columns to read that are not in `COLUMNS`."""
        found = noted_others(self.shards[0].schema)
        wanted = found if self.columns is None else self.columns
        return {name: role for name, role in found.items() if name in wanted}

    @property
    def items_fingerprint(self) -> str | None:
        """The fingerprint of the items, from the first file (see `ClickLog`)."""
        return noted_items(self.shards[0].schema)

    def check(self, data: RankingData) -> Self:
        """Checks that the log belongs to the ranking data, without reading sessions.

        Raises:
            ValueError: See `ClickLog.check`. The message names the files.
        """
        try:
            check_fingerprint(self.items_fingerprint, data)
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from error
        return self

    @property
    def total(self) -> int:
        """Number of sessions in the files, including sessions that `keep` excludes."""
        return sum(shard.sessions for shard in self.shards)

    def __len__(self) -> int:
        """Approximate number of sessions that `keep` selects, from `share`."""
        return round(self.total * self.share)

    @property
    def windows(self) -> int:
        """Number of windows in an epoch."""
        return min(-(-self.total // self.window), len(self.groups))

    def read(self, number: int, key: Sequence[int]) -> ClickLog:
        """Reads window `number` of the epoch with random seed `key`, in shuffled order.

        The returned log is empty if `keep` selects no session of the window.
        """
        order = np.random.default_rng(key).permutation(len(self.groups))
        chosen = np.array_split(order, self.windows)[number]
        log = ClickLog.concatenate([p for group in chosen for p in self.group(group)])
        # The key needs more than the number: generators of [k, 0] and [k] are the same.
        shuffle = np.random.default_rng([*key, 1 + number])
        return log.take(shuffle.permutation(len(log)))

    def group(self, number: int) -> Iterator[ClickLog]:
        """Reads the selected sessions of a row group, in order and in pieces."""
        start = 0
        found = read_group(
            *self.groups[number], BATCH, self.columns, self.list_size, self.items
        )
        for columns in found:
            piece = ClickLog.trusted(
                items_fingerprint=self.items_fingerprint, **columns
            )
            key = (int(number), start)
            start += len(piece)
            yield piece if self.keep is None else piece.take(self.keep(piece, key))

    def pieces(
        self, progress: Callable[[float], None] = lambda share: None
    ) -> Iterator[ClickLog]:
        """Reads all selected sessions once, in order and in pieces of any size.

        Args:
            progress: Called with the share of the row groups that were read.
        """
        for number in range(len(self.groups)):
            yield from self.group(number)
            progress((number + 1) / len(self.groups))

    def files(self) -> "list[Stream]":
        """Splits the stream into one stream per file, for several processes.

        Raises:
            ValueError: The stream has a function `keep`, which needs row group numbers
                that count across all files.
        """
        if self.keep is not None:
            raise ValueError("reading file by file needs all sessions of a log")
        return [replace(self, path=shard.path) for shard in self.shards]

    def over(
        self,
        function: "Callable[[Stream], T]",
        over: Over,
        progress: Callable[[float], None] = lambda share: None,
    ) -> "Iterator[T]":
        """Applies a function to the stream of each file, and reports progress."""
        files = self.files()
        for number, found in enumerate(over(function, files), 1):
            progress(number / len(files))
            yield found

    def sample(
        self,
        most: int,
        key: Sequence[int],
        groups: int | None = None,
        progress: Callable[[float], None] = lambda share: None,
        over: Over = map,
    ) -> ClickLog:
        """Draws up to `most` selected sessions without replacement, in file order.

        Args:
            most: Largest number of sessions.
            key: Random seed of the draw.
            groups: Number of row groups to read, chosen at random. None reads all row
                groups, so that every sample has the same probability. Fewer groups are
                faster.
            progress: Called with the share of the requested row groups that were read.
            over: `map`, or a function with the same interface that reads files in
                parallel. A parallel function requires `keep=None` and `groups=None`.

        Raises:
            ValueError: The row groups hold no session that `keep` selects.
        """
        rng = np.random.default_rng(key)
        order = np.sort(rng.permutation(len(self.groups))[:groups])
        if over is not map:
            files = self.files()
            asked = zip(files, self._lowest(most, rng), strict=True)
            found = []
            for number, some in enumerate(over(_taken, list(asked)), 1):
                found.append(some)
                progress(number / len(files))
            return ClickLog.concatenate(found)
        held: ClickLog | None = None
        chance = np.empty(0)  # a random number per session; the lowest are kept
        for done, group in enumerate(order, 1):
            for piece in self.group(group):
                held = piece if held is None else ClickLog.concatenate([held, piece])
                chance = np.concatenate([chance, rng.random(len(piece))])
                if len(held) > most:
                    stay = np.sort(np.argpartition(chance, most)[:most])
                    held, chance = held.take(stay), chance[stay]
            progress(done / len(order))
        if held is None or not len(held):
            raise ValueError(f"{self.path}: has no session in the requested part")
        return held

    def _lowest(self, most: int, rng: np.random.Generator) -> list[np.ndarray]:
        """Rows of each file for `sample`: the rows with the lowest random numbers."""
        ends = np.cumsum([shard.sessions for shard in self.shards])
        row, chance, start = np.empty(0, np.int64), np.empty(0), 0
        for end in ends:
            row = np.append(row, np.arange(start, end))
            chance = np.append(chance, rng.random(end - start))
            if len(row) > most:
                stay = np.argpartition(chance, most)[:most]
                row, chance = row[stay], chance[stay]
            start = end
        parts = np.split(np.sort(row), np.searchsorted(np.sort(row), ends[:-1]))
        return [r - e for r, e in zip(parts, [0, *ends[:-1]], strict=True)]


def _taken(asked: tuple[Stream, np.ndarray]) -> ClickLog:
    """Takes rows of a stream; reads only the row groups that contain these rows."""
    stream, rows = asked
    found, start = [next(stream.group(0)).take(rows[:0])], 0
    for number, (shard, group) in enumerate(stream.groups):
        end = start + shard.footer.row_group(group).num_rows
        if ((rows >= start) & (rows < end)).any():
            for piece in stream.group(number):
                inside = (rows >= start) & (rows < start + len(piece))
                found.append(piece.take(rows[inside] - start))
                start += len(piece)
        start = end
    return ClickLog.concatenate(found)


def read_batches(
    path: str | Path, sessions: int = BATCH, columns: Sequence[str] | None = None
) -> Iterator[ClickLog]:
    """Reads the log in order, in validated pieces; memory holds one piece at a time.

    Args:
        path: A file or a folder.
        sessions: Largest number of sessions in a piece; the last piece of a row group
            may have fewer.
        columns: Optional columns to read; None reads all.

    Raises:
        ValueError: A file is damaged, a column is missing, unknown or of a wrong type,
            or a value is not allowed by `ClickLog`. The message names the file and the
            row in the file.
    """
    found = shards(path)
    items = noted_items(found[0].schema)
    for piece in read_pieces(found, longest_list(found), sessions, columns):
        yield ClickLog.trusted(items_fingerprint=items, **piece)


def shuffled_batches(
    path: str | Path,
    rng: np.random.Generator,
    sessions: int = 512,
    columns: Sequence[str] | None = None,
    buffer: int = 1 << 20,
) -> Iterator[ClickLog]:
    """Reads the log once in random order, in equal pieces and with bounded memory.

    Args:
        path: A file or a folder.
        rng: The only source of randomness.
        sessions: Number of sessions in a piece; only the last piece may have fewer.
        columns: Optional columns to read; None reads all.
        buffer: Number of sessions to shuffle together (see `window` of `Stream`).

    Raises:
        ValueError: See `debias.data.read_batches`.
    """
    if not 1 <= sessions <= buffer:
        raise ValueError(
            f"sessions must be at least 1 and at most buffer, got {sessions}, {buffer}"
        )
    stream = Stream(path, columns, buffer)
    key = [int(rng.integers(1 << 63))]
    windows = (stream.read(number, key) for number in range(stream.windows))
    yield from even_pieces(windows, sessions)


def even_pieces(pieces: Iterable[ClickLog], sessions: int) -> Iterator[ClickLog]:
    """Regroups sessions into pieces of equal size; the last piece may be smaller."""
    rest: list[ClickLog] = []
    for piece in pieces:
        pool = ClickLog.concatenate([*rest, piece])
        even = len(pool) - len(pool) % sessions
        for start in range(0, even, sessions):
            yield pool.take(slice(start, start + sessions))
        rest = [pool.take(slice(even, None))]
    if rest and len(rest[0]):
        yield rest[0]
