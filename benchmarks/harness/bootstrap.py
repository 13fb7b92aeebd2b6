"""Intervals of means over seeds and queries; all seeds must test the same queries."""

from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from benchmarks.harness.plan import UNIT
from debias.metrics.statistics import Difference, Estimate

DRAWS = 9_999


def by_query(
    values: Mapping[str, Mapping[int, float]], metric: str
) -> dict[str, Mapping[int, float]]:
    """Values of a metric by query and seed; empty if results hold only means.

    >>> by_query({"ndcg": {0: 0.5}, "ndcg#7": {0: 0.4}, "ndcg#9": {0: 0.6}}, "ndcg")
    {'7': {0: 0.4}, '9': {0: 0.6}}
    """
    start = f"{metric}{UNIT}"
    each = values.items()
    return {n.removeprefix(start): of for n, of in each if n.startswith(start)}


def crossed(values: np.ndarray, level: float, draws: int = DRAWS) -> Difference:
    """The mean of values (seeds, queries), its interval, and the p-value for mean 0.

    Every draw resamples seeds and queries independently and with replacement. The mean
    of a draw is the mean of its finite values. The interval is a percentile interval of
    the means of all draws. The p-value is twice the share of draws whose mean is on the
    other side of 0. The interval is conservative, because the draws count the variance
    of single values three times. Source: Owen, The Pigeonhole Bootstrap, Annals of
    Applied Statistics 2007, section on crossed designs.

    >>> crossed(np.full((3, 20), 0.25), 0.95)[:4]
    (0.25, 0.25, 0.25, 0.0002)
    """
    return _crossed(values.astype(float).tobytes(), values.shape, level, draws)


@lru_cache(maxsize=1024)  # a table requests each mean several times
def _crossed(
    packed: bytes, shape: tuple[int, int], level: float, draws: int
) -> Difference:
    values = np.frombuffer(packed).reshape(shape)
    there = np.isfinite(values)
    some, other = _counts(shape, draws)
    known = np.where(there, values, 0.0)
    sums = ((some @ known) * other).sum(axis=1)
    counts = ((some @ there.astype(float)) * other).sum(axis=1)
    means = sums / np.maximum(counts, 1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    mean = float(known.sum() / max(there.sum(), 1))
    beyond = min((means <= 0).sum(), (means >= 0).sum())
    p = min(1.0, 2 * (1 + int(beyond)) / (draws + 1))
    return Difference(mean, float(low), float(high), p, shape[0], int((~there).sum()))


@lru_cache(maxsize=4)  # they take longer than all else, and are equal for a table
def _counts(shape: tuple[int, int], draws: int) -> tuple[np.ndarray, np.ndarray]:
    """How often each draw contains each seed (draws, S) and each query (draws, Q)."""
    seeds, queries = shape
    rng = np.random.default_rng(0)
    some = rng.multinomial(seeds, np.full(seeds, 1 / seeds), draws).astype(float)
    return some, rng.multinomial(queries, np.full(queries, 1 / queries), draws)


def estimate(values: np.ndarray, level: float) -> Estimate:
    """The mean of values (seeds, queries), with the interval of `crossed`."""
    found = crossed(values, level)
    return Estimate(found.mean, found.low, found.high, found.n, found.left_out)


def matrix(values: Mapping[str, Mapping[int, float]], seeds: list[int]) -> np.ndarray:
    """(seeds, queries) values, with queries sorted by name; missing values are nan."""
    names = sorted(values)
    return np.array([[values[n].get(seed, np.nan) for n in names] for seed in seeds])
