"""A click log larger than memory: windows of shuffled sessions, read when asked for.

An epoch visits the row groups of all shards in random order. As many as make a window
are held at a time and shuffled together: within a window the order is uniformly random,
and which row groups share one is random too, so a log of one window is shuffled
uniformly. After CorgiPile: Xu et al., In-Database Machine Learning with CorgiPile,
SIGMOD 2022.
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
    """Sessions on disk, all or those of a part, for training and for samples.

    Nothing but footers is read until sessions are asked for, and never more than a
    window of them is held. The same key gives the same sessions in the same order,
    whatever was read before, so that a stopped epoch goes on at any window.

    Args:
        path: A Parquet file of a log, or a folder of them.
        columns: Optional columns to read; None reads all.
        window: Sessions to shuffle together, in whole row groups; twice as many are
            held for a moment.
        keep: Which sessions of a piece belong to the part, (S,) bool, given the piece
            and what names it: row group and first row in that. None: all.
        share: The part's share of the sessions, about, for progress.
        items: How many items the ranking data has: a higher number is an error when it
            is read. None: any number goes.

    Raises:
        ValueError: As `debias.data.log_files.shards` does; window is below 1.

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
        self.groups  # noqa: B018  what is wrong with the files is said at once

    @cached_property
    def groups(self) -> list[tuple[Shard, int]]:
        """The row groups of all shards, in order."""
        found = shards(self.path)
        return [(s, group) for s in found for group in range(s.footer.num_row_groups)]

    @cached_property
    def list_size(self) -> int:
        """Cells of a session."""
        return longest_list([shard for shard, group in self.groups if group == 0])

    @property
    def others(self) -> dict[str, str]:
        """Columns of other names that are read: "presentation" or "target" of each."""
        found = noted_others(self.groups[0][0].schema)
        wanted = found if self.columns is None else self.columns
        return {name: role for name, role in found.items() if name in wanted}

    @property
    def items_fingerprint(self) -> str | None:
        """As `ClickLog.items_fingerprint`, of the first file."""
        return noted_items(self.groups[0][0].schema)

    def check(self, data: RankingData) -> Self:
        """Checks ranking data against the recorded items; reads no session.

        Raises:
            ValueError: As for `ClickLog.check`; names the files.
        """
        try:
            check_fingerprint(self.items_fingerprint, data)
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from error
        return self

    @property
    def total(self) -> int:
        """Sessions of the files, whichever part is kept."""
        return sum(shard.sessions for shard, group in self.groups if group == 0)

    def __len__(self) -> int:
        """Sessions of the part, by its share."""
        return round(self.total * self.share)

    @property
    def windows(self) -> int:
        """Windows of an epoch."""
        return min(-(-self.total // self.window), len(self.groups))

    def read(self, number: int, key: Sequence[int]) -> ClickLog:
        """Window `number` of the epoch that `key` names, in the order to learn in.

        A part that has nothing in the window gives a log without sessions.
        """
        order = np.random.default_rng(key).permutation(len(self.groups))
        chosen = np.array_split(order, self.windows)[number]
        log = ClickLog.concatenate([p for group in chosen for p in self.group(group)])
        # Not number alone: a generator of [k, 0] is that of [k].
        shuffle = np.random.default_rng([*key, 1 + number])
        return log.take(shuffle.permutation(len(log)))

    def group(self, number: int) -> Iterator[ClickLog]:
        """What a row group holds of the part, in pieces, in order."""
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
        """All sessions of the part once, in order, in pieces of any size.

        Args:
            progress: Called with the share of the row groups that are done.
        """
        for number in range(len(self.groups)):
            yield from self.group(number)
            progress((number + 1) / len(self.groups))

    def files(self) -> "list[Stream]":
        """Splits the stream into one stream a file, for processes that share the work.

        Raises:
            ValueError: The part has sessions chosen by row group.
        """
        if self.keep is not None:
            raise ValueError("only all sessions of a log are read file by file")
        return [
            replace(self, path=shard.path) for shard, group in self.groups if group == 0
        ]

    def over(
        self,
        function: "Callable[[Stream], T]",
        over: Over,
        progress: Callable[[float], None] = lambda share: None,
    ) -> "Iterator[T]":
        """The function of each file, in order; `progress` gets the share that came."""
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
        """At most `most` sessions of the part, drawn without replacement, in order.

        Args:
            most: How many.
            key: Names the draw.
            groups: Row groups to look at, drawn at random too; None: all. Few are
                enough to begin soon, and all of them give every session of the part
                the same chance.
            progress: Called with the share of those row groups that are done.
            over: Reads the files; of all sessions and row groups alone.

        Raises:
            ValueError: The part is empty.
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
        chance = np.empty(0)  # of each session, a number; the lowest stay
        for done, group in enumerate(order, 1):
            for piece in self.group(group):
                held = piece if held is None else ClickLog.concatenate([held, piece])
                chance = np.concatenate([chance, rng.random(len(piece))])
                if len(held) > most:
                    stay = np.sort(np.argpartition(chance, most)[:most])
                    held, chance = held.take(stay), chance[stay]
            progress(done / len(order))
        if held is None or not len(held):
            raise ValueError(f"{self.path}: has no session of the part asked for")
        return held

    def _lowest(self, most: int, rng: np.random.Generator) -> list[np.ndarray]:
        """The rows of each file that `sample` keeps: those that draw the lowest."""
        ends = np.cumsum([s.sessions for s, group in self.groups if group == 0])
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
    """These rows of a stream; row groups without any of them are not read."""
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
    """Reads the log in order, in validated pieces, one in memory at a time.

    Args:
        path: A file or a folder.
        sessions: At most so many sessions a piece; a row group's last may have fewer.
        columns: Optional columns to read; None reads all.

    Raises:
        ValueError: A file is damaged, or a column is missing, unknown, of the wrong
            type or holds a value that `ClickLog` does not allow; names the file and,
            within the file, the row.
    """
    items = noted_items(shards(path)[0].schema)
    for piece in read_pieces(path, sessions, columns):
        yield ClickLog.trusted(items_fingerprint=items, **piece)


def shuffled_batches(
    path: str | Path,
    rng: np.random.Generator,
    sessions: int = 512,
    columns: Sequence[str] | None = None,
    buffer: int = 1 << 20,
) -> Iterator[ClickLog]:
    """The log once in random order, in bounded memory, in pieces of equal size.

    Args:
        path: A file or a folder.
        rng: The only source of chance.
        sessions: Sessions of a piece; only the last one may have fewer.
        columns: Optional columns to read; None reads all.
        buffer: Sessions to shuffle together, see `Stream.window`.

    Raises:
        ValueError: As for `debias.data.read_batches`.
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
    """The same sessions in the same order, in pieces of equal size but for the last."""
    rest: list[ClickLog] = []
    for piece in pieces:
        pool = ClickLog.concatenate([*rest, piece])
        even = len(pool) - len(pool) % sessions
        for start in range(0, even, sessions):
            yield pool.take(slice(start, start + sessions))
        rest = [pool.take(slice(even, None))]
    if rest and len(rest[0]):
        yield rest[0]
