"""Counts of a click log: impressions and clicks of (query, item) pairs by rank.

Most estimators need only these counts, so their cost does not grow with the number of
sessions. The counts of the parts of a log add up to the counts of the whole log.
"""

from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

from debias.data import ClickLog, Stream
from debias.data.stream import even_pieces
from debias.types import Over

PIECE = 1 << 18  # sessions of a log on disk that are counted at once
DENSE = 4  # most table entries per counted entry for a dense table


@dataclass(frozen=True, eq=False)
class Pairs:
    """The distinct (query, item) pairs of a log, numbered by item, then by query.

    Attributes:
        query: (P,) int64.
        item: (P,) int64.
        number: (items,) int64 index of each item's pair, P for items without a pair;
            None if an item has several queries.
    """

    query: np.ndarray
    item: np.ndarray
    number: np.ndarray | None

    def __len__(self) -> int:
        return len(self.item)

    def index(self, log: ClickLog) -> np.ndarray:
        """(S, L) int64 index of each cell's pair; P at padding and for unknown pairs.

        >>> log = ClickLog([0, 1], [[4, 2], [5, -1]], [[0, 1], [0, 0]])
        >>> pairs(log).index(log).tolist()
        [[1, 0], [2, 3]]
        """
        if self.number is not None:
            at = np.where(log.item < len(self.number), log.item, -1)
            found = np.append(self.number, len(self))[at]
            queries = np.append(self.query, -1)
            return np.where(queries[found] == log.query[:, None], found, len(self))
        size = 1 + max(self.query.max(initial=0), log.query.max(initial=0))
        known = self.item * size + self.query
        wanted = log.item * np.int64(size) + log.query[:, None]
        at = np.searchsorted(known, wanted).clip(max=len(self) - 1)
        return np.where((known[at] == wanted) & log.mask, at, len(self))


def pairs(log: ClickLog) -> Pairs:
    """The (query, item) pairs that a log shows.

    >>> found = pairs(ClickLog([0, 1], [[4, 2], [5, -1]], [[0, 1], [0, 0]]))
    >>> found.query.tolist(), found.item.tolist()
    ([0, 0, 1], [2, 4, 5])
    """
    if log.sessions == 0:
        raise ValueError("log must hold at least one session")
    # One extra slot: padding, which is item -1, writes there.
    owner = np.full(int(log.item.max()) + 2, -1, dtype=np.int64)
    owner[log.item] = log.query[:, None]
    fits = owner[log.item] == log.query[:, None]
    owner = owner[:-1]
    if (fits | ~log.mask).all():
        item = np.flatnonzero(owner >= 0)
        number = np.full(len(owner), len(item), dtype=np.int64)
        number[item] = np.arange(len(item))
        return Pairs(owner[item], item, number)
    size = np.int64(log.query.max()) + 1
    key = np.unique((log.item * size + log.query[:, None])[log.mask])
    return Pairs(key % size, key // size, None)


def distinct(key: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Distinct keys in ascending order, and the index of each key among them.

    Keys are integers in [0, size). The result equals `np.unique(key,
    return_inverse=True)`. If `size` is small, keys are counted instead of sorted.

    >>> [x.tolist() for x in distinct(np.array([5, 2, 5]), 6)]
    [[2, 5], [1, 0, 1]]
    """
    if size > DENSE * key.size + 1000:
        return np.unique(key, return_inverse=True)
    seen = np.zeros(size, dtype=bool)
    seen[key] = True
    number = np.cumsum(seen) - 1
    return np.flatnonzero(seen), number[key]


@dataclass(frozen=True, eq=False)
class Cells:
    """Impressions and clicks of M cells; a cell is a pair shown at a rank.

    Attributes:
        pair: (M,) int64 index of the pair, in [0, pairs).
        rank: (M,) int64 rank from 0.
        shown: (M,) float64 number of impressions.
        clicked: (M,) float64 number of clicks, at most `shown`.
        pairs: Number of pairs.
        ranks: Number of ranks in a list.
        index: (S, L) int64 cell of each impression, M at padding; None for counts
            without sessions.
        names: Query and item of each pair; None if `pair` holds strata other than
            (query, item) pairs.
    """

    pair: np.ndarray
    rank: np.ndarray
    shown: np.ndarray
    clicked: np.ndarray
    pairs: int
    ranks: int
    index: np.ndarray | None = None
    names: Pairs | None = None

    def __add__(self, other: "Cells") -> "Cells":
        """The sum of the counts of two logs, without their sessions.

        The sum equals the counts of a log with the sessions of both logs.

        Raises:
            ValueError: Counts of strata cannot be added, because they have no names.

        >>> log = ClickLog([0, 0], [[1, 2], [2, 1]], [[1, 0], [1, 0]])
        >>> both = cells(log.take([0])) + cells(log.take([1]))
        >>> both.pair.tolist(), both.rank.tolist(), both.clicked.tolist()
        ([0, 0, 1, 1], [0, 1, 0, 1], [1.0, 0.0, 1.0, 0.0])
        """
        one, two = self.names, other.names
        if one is None or two is None:
            raise ValueError(
                "only counts by (query, item) pairs (source='all') can be added"
            )
        query = np.concatenate([one.query, two.query])
        size = 1 + query.max()
        key = np.concatenate([one.item, two.item]) * size + query
        key, number = np.unique(key, return_inverse=True)
        pair = np.concatenate([number[self.pair], number[len(one) :][other.pair]])
        ranks = max(self.ranks, other.ranks)
        cell = pair * ranks + np.concatenate([self.rank, other.rank])
        cell, number = distinct(cell, len(key) * ranks)
        return Cells(
            cell // ranks,
            cell % ranks,
            np.bincount(number, np.concatenate([self.shown, other.shown])),
            np.bincount(number, np.concatenate([self.clicked, other.clicked])),
            len(key),
            ranks,
            names=Pairs(key % size, key // size, None),
        )

    def only(self, kept: np.ndarray) -> "Cells":
        """Selects the cells where `kept` (M,) is True and renumbers their pairs.

        >>> log = ClickLog([0, 0], [[1, 2], [2, 1]], [[1, 0], [1, 0]])
        >>> cells(log).only(np.array([False, False, True, True])).pair.tolist()
        [0, 0]
        """
        names, pair = np.unique(self.pair[kept], return_inverse=True)
        shown, clicked = self.shown[kept], self.clicked[kept]
        return Cells(pair, self.rank[kept], shown, clicked, len(names), self.ranks)

    def by_rank(self, value: np.ndarray) -> np.ndarray:
        """(K,) sums of cell values by rank."""
        return np.bincount(self.rank, value, minlength=self.ranks)

    def by_pair(self, value: np.ndarray) -> np.ndarray:
        """(P,) sums of cell values by pair."""
        return np.bincount(self.pair, value, minlength=self.pairs)


def cells(log: ClickLog, source: str = "all", place: np.ndarray | None = None) -> Cells:
    """Counts impressions and clicks of a log.

    Args:
        log: The click log; the first column of its lists is rank 1.
        source: "all" compares a (query, item) pair with itself at all ranks where it
            was shown. "swap" uses only swaps that the log marks: it compares a pair
            with itself within strata. A stratum is a pair together with the rank that
            the pair would have had without a swap. So ranks within a stratum differ
            only because of swaps.
        place: (S, L) index of the place of each impression, from 0. A place is, for
            example, a rank on one kind of device. With `place`, impressions are counted
            by place instead of by rank. Impressions with a negative place are left out.

    Raises:
        ValueError: The log has no session; `source` is unknown; or `source` is "swap"
            and the log marks no swap.

    >>> log = ClickLog([0, 0, 0], [[1, 2], [2, 1], [1, 2]], [[1, 0], [1, 0], [0, 0]])
    >>> counted = cells(log)
    >>> counted.shown.tolist(), counted.clicked.tolist()
    ([2.0, 1.0, 1.0, 2.0], [1.0, 0.0, 1.0, 0.0])
    """
    found = pairs(log)
    pair, size, ranks = found.index(log), len(found), log.list_size
    if source == "swap":
        pair, size = _by_origin(log, pair, size)
    elif source != "all":
        raise ValueError(f"source must be all or swap, got {source!r}")
    mask, rank = log.mask, np.broadcast_to(np.arange(ranks), log.item.shape)
    if place is not None:
        mask, rank, ranks = mask & (place >= 0), place, int(place.max()) + 1
    key = (pair * ranks + rank)[mask]
    value, number = distinct(key, size * ranks)
    index = np.full(log.item.shape, len(value))
    index[mask] = number
    counted = Cells(
        value // ranks,
        value % ranks,
        np.empty(0),
        np.empty(0),
        size,
        ranks,
        index,
        found if source == "all" else None,
    )
    shown = np.bincount(number, minlength=len(value)).astype(float)
    clicked = np.bincount(number[log.click[mask]], minlength=len(value)).astype(float)
    return replace(counted, shown=shown, clicked=clicked)


def count_cells(log: ClickLog | Stream, over: Over = map) -> Cells:
    """Counts a log without storing its sessions.

    Counts without sessions are small and can be stored, sent and added. The counts of
    all shards add up to the counts of the whole log; see
    `debias.propensity.estimate_counts`.

    Args:
        log: A log in memory or on disk. A log on disk is read in pieces.
        over: Function that processes the files of a log on disk: `map`, or a parallel
            function with the arguments and results of `map`.

    Raises:
        ValueError: The log has no session, or a file on disk is damaged.

    >>> log = ClickLog([0, 0], [[1, 2], [2, 1]], [[1, 0], [1, 0]])
    >>> (count_cells(log) + count_cells(log)).shown.tolist()
    [2.0, 2.0, 2.0, 2.0]
    """
    if isinstance(log, Stream) and over is not map:
        return reduce(add, log.over(count_cells, over))
    if isinstance(log, Stream):
        return reduce(add, map(count_cells, even_pieces(log.pieces(), PIECE)))
    return replace(cells(log), index=None)


def located(counted: Cells, log: ClickLog) -> Cells:
    """Adds the `index` of the sessions of `log` to the counts of a whole log.

    >>> log = ClickLog([0, 0], [[1, 2], [2, 1]], [[1, 0], [1, 0]])
    >>> located(count_cells(log), log.take([1])).index.tolist()
    [[2, 1]]
    """
    assert counted.names is not None
    pair, rank = counted.names.index(log), np.arange(log.list_size)
    wanted = np.where(pair < counted.pairs, pair * counted.ranks + rank, -1)
    at = np.searchsorted(counted.pair * counted.ranks + counted.rank, wanted)
    return replace(counted, index=np.where(wanted < 0, len(counted.rank), at))


def _by_origin(log: ClickLog, pair: np.ndarray, size: int) -> tuple[np.ndarray, int]:
    """Splits each pair by the rank that it had before a marked swap."""
    if log.swap is None or not log.swap.any():
        raise ValueError("source='swap' needs a log that marks swaps in column swap")
    origin = np.broadcast_to(np.arange(log.list_size), log.item.shape).copy()
    at = np.flatnonzero(log.swap.any(axis=1))
    one, other = log.swap[at].T.astype(int) - 1
    origin[at, one], origin[at, other] = other, one
    key = (pair * log.list_size + origin)[log.mask]
    value, number = distinct(key, (size + 1) * log.list_size)
    stratum = np.full(log.item.shape, len(value))
    stratum[log.mask] = number
    return stratum, len(value)


def incidence(counted: Cells) -> sparse.csr_array:
    """(M, S) sparse matrix with entry 1 if a session shows a cell, else 0."""
    assert counted.index is not None
    sessions, ranks = counted.index.shape
    session = np.repeat(np.arange(sessions), ranks)
    cell = counted.index.ravel()
    keep = cell < len(counted.rank)
    ones = np.ones(keep.sum(), dtype=np.float32)
    shape = (len(counted.rank), sessions)
    return sparse.csr_array((ones, (cell[keep], session[keep])), shape)


def by_pair_and_rank(counted: Cells, value: np.ndarray) -> Any:
    """(P, K) table of cell values (M,); sparse if most entries are empty."""
    rows, size = (counted.pair, counted.rank), (counted.pairs, counted.ranks)
    if np.prod(size) > DENSE * len(value):
        return sparse.csr_array((value, rows), size)
    table = np.zeros(size)
    table[rows] = value
    return table


def products(counted: Cells, value: np.ndarray) -> np.ndarray:
    """(K, K) sums over pairs of the product of their cell values at two ranks.

    >>> log = ClickLog([0, 0], [[1, 2], [2, 1]], [[1, 0], [1, 0]])
    >>> products(cells(log), np.array([1.0, 2.0, 3.0, 4.0])).tolist()
    [[10.0, 14.0], [14.0, 20.0]]
    """
    table = by_pair_and_rank(counted, value)
    both = table.T @ table
    return both.toarray() if sparse.issparse(both) else both


def typical(counts: np.ndarray) -> float:
    """Smallest count c such that pairs with counts up to c hold half of the total.

    >>> typical(np.array([1.0, 1.0, 1.0, 5.0]))
    5.0
    """
    ordered = np.sort(counts)
    total = np.cumsum(ordered)
    return float(ordered[np.searchsorted(total, total[-1] / 2)])


def components(counted: Cells) -> np.ndarray:
    """(K,) int index of each rank's connected component.

    A pair shown at two ranks links these ranks. Components are numbered by their first
    rank. A rank without items is a separate component.

    >>> log = ClickLog([0, 0, 1], [[1, 2], [2, 1], [3, -1]], [[1, 0], [1, 0], [0, 0]])
    >>> components(cells(log)).tolist()
    [0, 0]
    """
    ranks = counted.ranks
    nodes = ranks + counted.pairs
    graph = sparse.coo_array(
        (np.ones(len(counted.rank)), (counted.rank, ranks + counted.pair)),
        (nodes, nodes),
    )
    label = csgraph.connected_components(graph, directed=False)[1][:ranks]
    _, first, number = np.unique(label, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[number]
