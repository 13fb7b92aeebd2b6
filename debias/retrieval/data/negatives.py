"""Samplers of negative items, in NumPy.

A sampler takes the B users of a batch and a number n, and returns (B, n) item rows: n
items for each user. The attribute `log_q` of a sampler, (items,) float32, is the log of
the sampling probability of each item, for the logQ correction. `log_q` is None if the
probability depends on the user.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np


class Sampler(Protocol):
    """Interface of samplers of negatives."""

    @property
    def log_q(self) -> np.ndarray | None: ...

    def __call__(
        self, users: np.ndarray, count: int, rng: np.random.Generator
    ) -> np.ndarray:
        """(B, count) int32 item rows for the users (B,)."""


class Weighted:
    """Draws items with probability proportional to their weight.

    >>> Weighted(np.array([0.0, 1.0]))(np.arange(1), 3, np.random.default_rng(0))
    array([[1, 1, 1]], dtype=int32)
    """

    def __init__(self, weight: np.ndarray):
        if weight.ndim != 1 or not len(weight) or weight.min() < 0 or not weight.sum():
            raise ValueError(
                f"weight must be (items,), not negative and not all 0, got {weight!r}"
            )
        share = weight / weight.sum()
        # Never drawn, but its log is finite, so that a correction stays finite.
        self.log_q: np.ndarray | None = np.log(np.maximum(share, 1e-12)).astype(
            np.float32
        )
        self._cumulative = np.cumsum(share)
        self._last = int(np.flatnonzero(share)[-1])

    def __call__(
        self, users: np.ndarray, count: int, rng: np.random.Generator
    ) -> np.ndarray:
        draw = rng.random((len(users), count))
        place = np.searchsorted(self._cumulative, draw, side="right")
        return np.minimum(place, self._last).astype(np.int32)


def uniform(items: int) -> Weighted:
    """Draws items uniformly from the whole catalogue.

    >>> np.exp(uniform(4).log_q).tolist()
    [0.25, 0.25, 0.25, 0.25]
    """
    return Weighted(np.ones(items))


def by_popularity(counts: np.ndarray, power: float = 0.75) -> Weighted:
    """Draws items with probability proportional to count ** power.

    Source: Mikolov et al., Distributed Representations, NeurIPS 2013, who use the power
    .75.
    """
    return Weighted(np.asarray(counts, float) ** power)


class Listed:
    """Draws items uniformly from the list of each user.

    Use `Listed` for hard negatives, such as items from a ranker's list
    (`from_ranking`), items that a pre-ranker rejected, or impressions without a click.
    For a user without a list, the sampler draws from `fallback`.

    Args:
        rows, offsets: The list of user u is `rows[offsets[u]:offsets[u + 1]]`.
        fallback: Sampler for users with an empty list.

    >>> hard = Listed(np.array([5, 5]), np.array([0, 2, 2]), uniform(1))
    >>> hard(np.array([0, 1]), 2, np.random.default_rng(0)).tolist()
    [[5, 5], [0, 0]]
    """

    def __init__(self, rows: np.ndarray, offsets: np.ndarray, fallback: Sampler):
        if offsets[0] != 0 or offsets[-1] != len(rows) or (np.diff(offsets) < 0).any():
            raise ValueError(
                f"offsets must rise from 0 to {len(rows)}, got {offsets[0]} to "
                f"{offsets[-1]}"
            )
        self.rows, self.offsets, self.fallback = rows, offsets, fallback
        self.log_q: np.ndarray | None = None

    def __call__(
        self, users: np.ndarray, count: int, rng: np.random.Generator
    ) -> np.ndarray:
        start, length = self.offsets[users], np.diff(self.offsets)[users]
        step = (rng.random((len(users), count)) * length[:, None]).astype(np.int64)
        drawn = np.append(self.rows, 0)[
            np.minimum(start[:, None] + step, len(self.rows))
        ]
        empty = length == 0
        if empty.any():
            drawn[empty] = self.fallback(users[empty], count, rng)
        return drawn.astype(np.int32)


def from_ranking(
    best: np.ndarray, fallback: Sampler, first: int = 101, last: int = 500
) -> Listed:
    """Draws hard negatives from ranks `first` to `last` (inclusive) of each list.

    Items above rank `first` are left out. A top-ranked item that the user did not take
    is more often unknown to the user than irrelevant.

    Source: Huang et al., Embedding-based Retrieval in Facebook Search, KDD 2020, 6.1.

    Args:
        best: (users, R) item rows by decreasing score, padded with -1.

    >>> from_ranking(np.array([[7, 8, 9, -1]]), uniform(1), 2, 4).rows.tolist()
    [8, 9]
    """
    if not 1 <= first <= last:
        raise ValueError(f"ranks must satisfy 1 <= first <= last, got {first}, {last}")
    part = best[:, first - 1 : last]
    offsets = np.concatenate([[0], np.cumsum((part >= 0).sum(axis=1))])
    return Listed(part[part >= 0], offsets, fallback)


class Mixture:
    """Draws from several samplers in fixed shares, e.g. 100 easy items per hard item.

    The sampler of each negative is drawn at random, so the shares hold on average.

    >>> half = Mixture([(0.5, uniform(4)), (0.5, Weighted(np.eye(4)[0]))])
    >>> np.exp(half.log_q).round(3).tolist()
    [0.625, 0.125, 0.125, 0.125]
    """

    def __init__(self, parts: Sequence[tuple[float, Sampler]]):
        shares = np.array([share for share, _ in parts], float)
        if not len(parts) or (shares < 0).any() or not np.isclose(shares.sum(), 1.0):
            raise ValueError(f"shares must sum to 1, got {shares.tolist()}")
        self.parts, self.shares = list(parts), shares / shares.sum()
        logs = [sampler.log_q for _, sampler in parts]
        self.log_q: np.ndarray | None = None
        if all(log is not None for log in logs):
            chance = sum(
                share * np.exp(np.asarray(log, np.float64))
                for share, log in zip(self.shares, logs, strict=True)
            )
            self.log_q = np.log(chance).astype(np.float32)

    def __call__(
        self, users: np.ndarray, count: int, rng: np.random.Generator
    ) -> np.ndarray:
        pick = rng.choice(len(self.parts), size=(len(users), count), p=self.shares)
        drawn = np.empty((len(users), count), np.int32)
        for number, (_, sampler) in enumerate(self.parts):
            row, column = np.nonzero(pick == number)
            if len(row):
                drawn[row, column] = sampler(users[row], 1, rng)[:, 0]
        return drawn


class Queue:
    """Draws negatives from a first-in, first-out queue of items of recent batches.

    The queue stores rows of items instead of vectors, so that the current tower encodes
    the items. `__call__` draws from the items in the queue or, before the first `push`,
    from `fallback`.

    >>> queue = Queue(3, uniform(1), items=9)
    >>> queue.push(np.array([5, 6, 7, 8]))
    >>> np.unique(queue(np.zeros(20, int), 2, np.random.default_rng(0))).tolist()
    [6, 7, 8]
    """

    def __init__(self, size: int, fallback: Sampler, items: int):
        if size < 1:
            raise ValueError(f"size must be at least 1, got {size}")
        self.size, self.items, self.fallback = size, items, fallback
        self.held = np.empty(0, np.int32)

    @property
    def log_q(self) -> np.ndarray | None:
        if not len(self.held):
            return self.fallback.log_q
        share = np.bincount(self.held, minlength=self.items) / len(self.held)
        return np.log(np.maximum(share, 1e-12)).astype(np.float32)

    def push(self, rows: np.ndarray) -> None:
        """Adds the items of a batch, and removes the oldest items beyond `size`."""
        self.held = np.concatenate([self.held, rows.astype(np.int32)])[-self.size :]

    def __call__(
        self, users: np.ndarray, count: int, rng: np.random.Generator
    ) -> np.ndarray:
        if not len(self.held):
            return self.fallback(users, count, rng)
        return rng.choice(self.held, size=(len(users), count))
