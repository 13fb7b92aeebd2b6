"""Summary statistics of a click log.

A summary is computed from counts, and the counts of several parts of a log can be
added. A log on disk can therefore be counted in pieces, or by several processes, with
exactly the same result.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any, NamedTuple

import numpy as np

from debias.data.log import ClickLog
from debias.data.stream import Stream
from debias.types import Over

FEW = 100  # clicks, or shown items without a click: fewer give errors of 10% or more
AGAIN = 2  # impressions per item, on average, for an order to count as fixed
UNSEEN = np.iinfo(np.int32).max  # below all other places


class Summary(NamedTuple):
    """Summary of a log with L positions.

    Attributes:
        sessions: Number of sessions.
        queries: Number of queries.
        items: Number of distinct shown items; an item shown for two queries counts
            twice.
        impressions: Number of impressions.
        clicks: Number of clicks.
        shown: (L,) impressions at each position.
        ctr: (L,) clicks per impression at each position; NaN at positions without
            impressions. This rate does not measure examination, because better items
            may be shown at better positions.
        moved: Share of items shown at more than one position. Without a model, only
            items with several positions can separate the effects of position and
            relevance.
        columns: Columns of the log.
        problems: Reasons why no model can be trained on the log; empty if there are
            none.
        warnings: Reasons why little can be learned: fewer than 100 clicks, fewer than
            100 impressions without a click, or no item with several positions.
    """

    sessions: int
    queries: int
    items: int
    impressions: int
    clicks: int
    shown: np.ndarray
    ctr: np.ndarray
    moved: float
    columns: tuple[str, ...]
    problems: tuple[str, ...]
    warnings: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """Converts the summary to JSON values; nan becomes None."""
        ctr = [None if np.isnan(rate) else round(float(rate), 6) for rate in self.ctr]
        plain = {
            "shown": self.shown.tolist(),
            "ctr": ctr,
            "columns": list(self.columns),
            "problems": list(self.problems),
            "warnings": list(self.warnings),
        }
        return {**self._asdict(), **plain}


@dataclass(frozen=True, eq=False)
class Counts:
    """Counts of the sessions in a part of a log; `+` adds the counts of two parts.

    The log has L positions. An array over queries or items ends at the highest number
    in this part of the log.

    Attributes:
        sessions: Number of sessions.
        shown: (L,) impressions at each position.
        clicked: (L,) clicks at each position.
        asked: (queries,) bool, whether a query occurs.
        first: (items,) int32 smallest position of each item, from 1; `UNSEEN` if the
            item was not shown.
        last: (items,) int32 largest position of each item; 0 if the item was not shown.
        columns: Columns of the log.
    """

    sessions: int
    shown: np.ndarray
    clicked: np.ndarray
    asked: np.ndarray
    first: np.ndarray
    last: np.ndarray
    columns: tuple[str, ...]

    def __add__(self, other: "Counts") -> "Counts":
        """The counts of both parts together.

        Raises:
            ValueError: The parts have different columns.

        >>> log = ClickLog([0, 1], [[4, 5], [5, -1]], [[1, 0], [1, 0]])
        >>> both = count(log.take([0])) + count(log.take([1]))
        >>> both.shown.tolist(), both.clicked.tolist(), both.summary().moved
        ([2, 1], [2, 0], 0.5)
        """
        if self.columns != other.columns:
            raise ValueError(
                "parts of a log must have the same columns, got "
                f"{' '.join(self.columns)} and {' '.join(other.columns)}"
            )
        return Counts(
            self.sessions + other.sessions,
            _merged(np.add, self.shown, other.shown, 0),
            _merged(np.add, self.clicked, other.clicked, 0),
            _merged(np.logical_or, self.asked, other.asked, False),
            _merged(np.minimum, self.first, other.first, UNSEEN),
            _merged(np.maximum, self.last, other.last, 0),
            self.columns,
        )

    def summary(self) -> Summary:
        """Computes the summary of the counts."""
        items = int(np.count_nonzero(self.last))
        moved = int(np.count_nonzero(self.first < self.last))
        with np.errstate(invalid="ignore"):  # 0 / 0 where nothing was shown
            ctr = self.clicked / self.shown
        clicks, impressions = int(self.clicked.sum()), int(self.shown.sum())
        problems = []
        if not self.clicked.any():
            problems.append(
                "no click: a model needs clicks to learn from; check the column of "
                "clicks, which click=NAME gives"
            )
        if np.count_nonzero(self.shown) == 1:
            problems.append(
                "one position only: its bias cannot be separated from relevance; "
                "check the column of sessions, which session=NAME gives"
            )
        return Summary(
            sessions=self.sessions,
            queries=int(np.count_nonzero(self.asked)),
            items=items,
            impressions=impressions,
            clicks=clicks,
            shown=self.shown,
            ctr=ctr,
            moved=moved / items if items else float("nan"),
            columns=self.columns,
            problems=tuple(problems),
            warnings=(
                *_warnings(clicks, impressions),
                *_fixed(int(np.count_nonzero(self.shown)), items, moved, impressions),
            ),
        )


def _warnings(clicks: int, impressions: int) -> tuple[str, ...]:
    """Warns if a log has too few clicks, or too few impressions without a click.

    The relative error of a rate of n independent events is about 1 / sqrt(n).

    >>> _warnings(150, 1000), _warnings(0, 1000)
    ((), ())
    """
    unclicked = impressions - clicks
    if impressions and not unclicked:
        return (
            f"all {impressions:,} shown items are clicked: such clicks do not "
            "distinguish items or positions, so nothing can be learned; check the "
            "column of clicks, which click=NAME gives",
        )
    few, what = min((clicks, "clicked"), (unclicked, "not clicked"))
    if 0 < few < FEW:
        return (
            f"only {few:,} of {impressions:,} shown items are {what}, fewer than "
            f"{FEW}: almost nothing can be learned, because a rate of so few events is "
            f"off by {100 / few**0.5:.0f}% or more",
        )
    return ()


def _fixed(positions: int, items: int, moved: int, impressions: int) -> tuple[str, ...]:
    """Warns if a log always shows the items of a query in the same order.

    There is no warning if items were shown fewer than `AGAIN` times on average, because
    the order is then unknown.

    >>> _fixed(2, 10, 1, 20), _fixed(2, 10, 0, 10), len(_fixed(2, 10, 0, 20))
    ((), (), 1)
    """
    if positions < 2 or moved or impressions < AGAIN * items:
        return ()
    return (
        "every query always shows its items in the same order: clicks alone cannot "
        "separate the examination of a position from the relevance of its items, so "
        "models have to guess both from features; debias plan says which ranks to "
        "exchange",
    )


def _merged(
    merge: Callable[..., np.ndarray], one: np.ndarray, other: np.ndarray, fill: int
) -> np.ndarray:
    """Merges element by element; the shorter array is extended with `fill`."""
    size = max(len(one), len(other))
    one, other = (
        np.pad(each, (0, size - len(each)), constant_values=fill)
        for each in (one, other)
    )
    return merge(one, other)


def count(
    log: ClickLog | Stream,
    progress: Callable[[float], None] = lambda share: None,
    over: Over = map,
) -> Counts:
    """Counts the sessions, items and clicks of a log in one pass.

    Args:
        log: A log in memory, or a log on disk, which is read in pieces.
        progress: Called with the share of the work done.
        over: `map`, or a parallel function with the same interface, which counts the
            files of a stream. The result is the same.

    Raises:
        ValueError: A file on disk is damaged.

    >>> log = ClickLog([0, 1], [[4, 5], [5, -1]], [[1, 0], [1, 0]])
    >>> count(log).first[4:].tolist(), count(log).last[4:].tolist()
    ([1, 1], [1, 2])
    """
    if isinstance(log, Stream):
        if over is map:
            return reduce(add, map(count, log.pieces(progress)))
        return reduce(add, log.over(count, over, progress))
    items = 1 + int(log.item.max(initial=-1))
    first, last = np.full(items, UNSEEN, np.int32), np.zeros(items, np.int32)
    shown = np.zeros(log.list_size, np.int64)
    for rank in range(log.list_size):
        item = log.item[:, rank]
        item = item[item >= 0]
        shown[rank] = len(item)
        last[item] = rank + 1
        first[item] = np.minimum(first[item], rank + 1)
    asked = np.zeros(1 + int(log.query.max(initial=-1)), bool)
    asked[log.query] = True
    return Counts(
        log.sessions,
        shown,
        log.click.sum(axis=0),
        asked,
        first,
        last,
        tuple(log.columns()),
    )


def summarize(log: ClickLog | Stream) -> Summary:
    """Counts the sessions, items and clicks of a log, in memory or on disk.

    A log without clicks, or with a single position, is not an error: `problems` then
    says why no model can be trained.

    >>> log = ClickLog([0, 0, 1], [[4, 5], [5, 4], [6, -1]], [[1, 0], [1, 0], [0, 0]])
    >>> found = summarize(log)
    >>> found.sessions, found.queries, found.items, found.ctr.round(3).tolist()
    (3, 2, 3, [0.667, 0.0])
    >>> round(found.moved, 3), found.problems
    (0.667, ())
    """
    return count(log).summary()
