"""The distinct items that users took, with counts and order."""

from typing import NamedTuple

import numpy as np

Ragged = tuple[np.ndarray, np.ndarray]  # (rows, offsets)


class Taken(NamedTuple):
    """The distinct items of each of Q users, most recent first.

    Attributes:
        rows: (P,) int32 rows of items; user q has `rows[offsets[q]:offsets[q + 1]]`.
        counts: (P,) int32 number of times that the user took each item.
        offsets: (Q + 1,) int64.

    >>> taken = Taken.of(np.array([7, 5, 7, 9]), np.array([0, 3, 4]))
    >>> taken.rows.tolist(), taken.counts.tolist(), taken.offsets.tolist()
    ([7, 5, 9], [2, 1, 1], [0, 2, 3])
    >>> taken.places.tolist()
    [1, 2, 1]
    """

    rows: np.ndarray
    counts: np.ndarray
    offsets: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray, offsets: np.ndarray) -> "Taken":
        """Counts each user's items, which are listed with repetition by time."""
        owner = owners(offsets)
        key = owner * (int(rows.max(initial=0)) + 1) + rows
        _, back, counts = np.unique(key[::-1], return_index=True, return_counts=True)
        last = len(rows) - 1 - back
        order = np.lexsort((-last, owner[last]))
        last = last[order]
        sizes = np.bincount(owner[last], minlength=len(offsets) - 1)
        return cls(
            rows[last].astype(np.int32),
            counts[order].astype(np.int32),
            np.append(0, np.cumsum(sizes)),
        )

    @property
    def places(self) -> np.ndarray:
        """(P,) int64 recency rank: 1 for a user's most recent item."""
        sizes = np.diff(self.offsets)
        return np.arange(1, len(self.rows) + 1) - np.repeat(self.offsets[:-1], sizes)

    def part(self, user: int) -> tuple[np.ndarray, np.ndarray]:
        """The rows and counts of one user."""
        inside = slice(self.offsets[user], self.offsets[user + 1])
        return self.rows[inside], self.counts[inside]

    def select(self, users: np.ndarray) -> "Taken":
        """The items of `users`, in the same order; unknown users have no items.

        >>> Taken.of(np.array([7, 5]), np.array([0, 1, 2])).select([9, 1]).offsets
        array([0, 0, 1])
        """
        users = np.asarray(users)
        more = max(int(users.max(initial=-1)) + 2 - len(self.offsets), 0)
        offsets = np.pad(self.offsets, (0, more), mode="edge")
        start, sizes = offsets[users], np.diff(offsets)[users]
        ends = np.append(0, np.cumsum(sizes))
        at = np.arange(ends[-1]) + np.repeat(start - ends[:-1], sizes)
        return Taken(self.rows[at], self.counts[at], ends)

    def renumbered(self, row: np.ndarray) -> "Taken":
        """Renumbers items: `row[i]` is item i's new row; a negative value removes it.

        >>> taken = Taken.of(np.array([2, 0]), np.array([0, 2]))
        >>> taken.renumbered(np.array([-1, -1, 5])).rows.tolist()
        [5]
        """
        rows = row[self.rows]
        kept = np.append(0, np.cumsum(rows >= 0))
        inside = rows >= 0
        return Taken(
            rows[inside].astype(np.int32), self.counts[inside], kept[self.offsets]
        )

    def with_repetition(self) -> Ragged:
        """Inverse of `of`: returns (rows, offsets) of the items with repetition."""
        back = np.lexsort((-np.arange(len(self.rows)), owners(self.offsets)))
        times = np.append(0, np.cumsum(self.counts[back], dtype=np.int64))
        return np.repeat(self.rows[back], self.counts[back]), times[self.offsets]


def owners(offsets: np.ndarray) -> np.ndarray:
    """(P,) int64 index of the query to which each entry belongs.

    >>> owners(np.array([0, 2, 2, 3])).tolist()
    [0, 0, 2]
    """
    return np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))


def joined(older: Ragged, newer: Ragged) -> Ragged:
    """Concatenates two (rows, offsets) pairs by query, with older entries first.

    >>> [x.tolist() for x in joined(([1, 2], [0, 0, 2]), ([3, 4], [0, 1, 2]))]
    [[3, 1, 2, 4], [0, 1, 4]]
    """
    owner = np.concatenate([owners(np.asarray(part[1])) for part in (older, newer)])
    rows = np.concatenate([older[0], newer[0]])
    offsets = np.asarray(older[1]) + np.asarray(newer[1])
    return rows[np.argsort(owner, kind="stable")], offsets


def is_taken(query: np.ndarray, item: np.ndarray, taken: Ragged) -> np.ndarray:
    """(T,) bool, whether `taken` lists `item[t]` for `query[t]`.

    >>> taken = np.array([7, 5]), np.array([0, 1, 2])
    >>> is_taken(np.array([0, 1]), np.array([7, 7]), taken).tolist()
    [True, False]
    """
    rows, offsets = taken
    size = max(int(rows.max(initial=0)), int(item.max(initial=0))) + 1
    return np.isin(query * np.int64(size) + item, owners(offsets) * size + rows)
