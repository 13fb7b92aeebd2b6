"""Simulated queries: ranking data like MSLR-WEB30K, with exactly known relevance.

Each item has 16 latent numbers: 10 describe its match with the query, 4 its quality,
and 2 the query itself. Each of the 136 features is a noisy mix of some latent numbers,
transformed like typical features (counts, tf-idf weights, flags, scores). So features
are correlated, and most have heavy tails. Relevance is a nonlinear function of the
latent numbers plus noise that is independent of the features.

The mixing weights and the relevance function are constants of this module and do not
depend on the seed. Another seed draws other queries from the same world, so no seed is
systematically harder than another. The argument `world` is the seed of a different
world, with other mixing weights and another relevance function.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from debias.data import RankingData
from simulators.chance import generator

FEATURES = 136
GRADES = (0.52, 0.32, 0.13, 0.02, 0.01)
"""Shares of grades 0 to 4, about those of MSLR-WEB30K."""

_MATCH, _QUALITY, _QUERY = 10, 4, 2
_LATENT = _MATCH + _QUALITY + _QUERY
_WORLD = 30_000  # seed of the constants
_ITEMS_AT_ONCE = 1 << 14

# Families of features: their number, and the transformation of the latent mixture.
_FAMILIES = (("count", 40), ("weight", 45), ("flag", 6), ("score", 45))


class Graded(NamedTuple):
    """Ranking data, and the relevance of each item before noise."""

    data: RankingData
    score: np.ndarray  # (items,) float32 relevance before noise and grading


@lru_cache(maxsize=4)
def _mixing(world: int) -> np.ndarray:
    """(latent, features) weights: a feature mixes three to six latent numbers."""
    rng = generator(world, 1)
    mixing = np.zeros((_LATENT, FEATURES), np.float32)
    for feature in range(FEATURES):
        parts = rng.choice(_LATENT, rng.integers(3, 7), replace=False)
        mixing[parts, feature] = rng.normal(0, 0.5, len(parts))
        mixing[parts[0], feature] += rng.choice([-1.0, 1.0])
    return mixing / np.linalg.norm(mixing, axis=0)


def _relevance(z: np.ndarray) -> np.ndarray:
    """(items,) relevance of latent numbers (items, 16), a constant function.

    It has a linear part, and parts that no linear ranker can represent: products of two
    matches, a preferred value in the middle, the better of two matches, and matches
    whose weight depends on the kind of query.
    """
    linear = 0.5 * z[:, 0] + 0.4 * z[:, 1] + 0.3 * z[:, 10] + 0.2 * z[:, 11]
    together = 0.6 * z[:, 2] * z[:, 3] + 0.5 * z[:, 4] * z[:, 12]
    middle = -0.5 * np.abs(z[:, 5])
    better = 0.5 * np.maximum(z[:, 6], z[:, 7])
    gate = 1 / (1 + np.exp(-3 * z[:, 14]))
    kind = 0.7 * gate * z[:, 8] + 0.7 * (1 - gate) * z[:, 9]
    return linear + together + middle + better + kind + 0.3 * z[:, 15]


class _World(NamedTuple):
    """The constants of a world."""

    mixing: np.ndarray  # (latent, features)
    relevance: Callable[[np.ndarray], np.ndarray]  # (items, 16) to (items,)
    thresholds: tuple[float, ...]  # thresholds between grades, of noisy relevance


_KINDS: tuple[Callable[..., np.ndarray], ...] = (
    lambda a, b, query: a * b,
    lambda a, b, query: -np.abs(a),
    lambda a, b, query: np.maximum(a, b),
    lambda a, b, query: np.tanh(2 * a),
    lambda a, b, query: b + (query > 0) * (a - b),
)
_PARTS = 5  # parts of a drawn relevance, besides its linear part
_SAMPLE = 200_000  # items that determine scale and thresholds of a drawn relevance


@lru_cache(maxsize=4)
def _world(number: int | None) -> _World:
    """The world with this seed; None gives the constants of this module."""
    if number is None:
        return _World(_mixing(_WORLD), _relevance, _THRESHOLDS)
    rng = generator(number, 2)
    raw = _drawn(rng)
    z = rng.standard_normal((_SAMPLE, _LATENT), np.float32)
    score = raw(z)
    centre, scale = score.mean(), _SPREAD / score.std()

    def relevance(z: np.ndarray) -> np.ndarray:
        return scale * (raw(z) - centre)

    noisy = relevance(z) + _NOISE * rng.standard_normal(_SAMPLE)
    cuts = np.quantile(noisy, np.cumsum(GRADES[:-1]))
    return _World(_mixing(number), relevance, tuple(cuts.tolist()))


def _drawn(rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
    """A random relevance function like `_relevance`, with linear and other parts."""
    of_item = _MATCH + _QUALITY
    line = np.zeros(_LATENT, np.float32)
    four = rng.choice(of_item, 4, replace=False)
    line[four] = rng.uniform(0.2, 0.5, 4) * rng.choice([-1, 1], 4)
    parts = [
        (
            np.float32(rng.uniform(0.5, 0.8) * rng.choice([-1, 1])),
            _KINDS[rng.integers(len(_KINDS))],
            (*rng.choice(of_item, 2, replace=False), of_item + rng.integers(_QUERY)),
        )
        for _ in range(_PARTS)
    ]

    def relevance(z: np.ndarray) -> np.ndarray:
        found: np.ndarray = z @ line
        for weight, kind, (a, b, query) in parts:
            found = found + weight * kind(z[:, a], z[:, b], z[:, query])
        return found

    return relevance


_NOISE = 0.9  # noise of relevance, whose standard deviation is 1.37 without noise
_SPREAD = 1.37
_FEATURE_NOISE = 0.8  # noise of a feature, whose standard deviation is 1 without noise
# Quantiles of noisy relevance at the cumulative shares of `GRADES`, measured once on
# ten million items. As constants, they give grades the same meaning for every seed.
_THRESHOLDS = (-0.034, 1.495, 2.971, 3.745)


def generate(
    queries: int = 2000,
    seed: int = 0,
    min_items: int = 10,
    max_items: int = 200,
    median_items: int = 100,
    world: int | None = None,
) -> RankingData:
    """Generates queries with graded items.

    Args:
        queries: Number of queries.
        seed: Random seed of the queries. All seeds draw from the same world.
        min_items, max_items: Smallest and largest number of items of a query.
        median_items: Median number of items of a query.
        world: Random seed of another world, with its own mixing of features and
            relevance function. With None, queries come from the standard world.

    Returns:
        Ranking data with 136 features and grades 0 to 4.

    Raises:
        ValueError: `queries` is not positive, or 1 <= min_items <= median_items <=
            max_items does not hold.

    >>> generate(queries=3, seed=1)
    RankingData(queries=3, items=442, feature_count=136, max_grade=4)
    """
    found = generate_graded(queries, seed, min_items, max_items, median_items, world)
    return found.data


def generate_graded(
    queries: int = 2000,
    seed: int = 0,
    min_items: int = 10,
    max_items: int = 200,
    median_items: int = 100,
    world: int | None = None,
) -> Graded:
    """Generates queries as `generate` does, and also returns noise-free relevance.

    No function of the features ranks better than this relevance.
    """
    if queries < 1:
        raise ValueError(f"queries must be at least 1, got {queries}")
    if not 1 <= min_items <= median_items <= max_items:
        raise ValueError(
            "items must be 1 <= min_items <= median_items <= max_items, got "
            f"{min_items}, {median_items}, {max_items}"
        )
    rng = generator(seed, 0)
    of = _world(world)
    drawn = rng.lognormal(np.log(median_items), 0.5, queries)
    sizes = np.clip(np.rint(drawn), min_items, max_items).astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    of_query = rng.standard_normal((queries, _QUERY), np.float32)
    items = int(offsets[-1])
    features = np.empty((items, FEATURES), np.float32)
    score = np.empty(items, np.float32)
    noisy = np.empty(items, np.float32)
    query = np.repeat(np.arange(queries), sizes)
    for start in range(0, items, _ITEMS_AT_ONCE):
        rows = slice(start, min(start + _ITEMS_AT_ONCE, items))
        count = rows.stop - start
        own = rng.standard_normal((count, _MATCH + _QUALITY), np.float32)
        z = np.concatenate([own, of_query[query[rows]]], axis=1)
        score[rows] = of.relevance(z)
        noisy[rows] = score[rows] + _NOISE * rng.standard_normal(count, np.float32)
        features[rows] = _shown(z, of.mixing, rng)
    labels = np.searchsorted(of.thresholds, noisy).astype(np.int8)
    return Graded(RankingData(features, labels, offsets), score)


def _shown(z: np.ndarray, mixing: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(items, 136) features of latent numbers (items, 16)."""
    x = rng.standard_normal((len(z), FEATURES), np.float32)
    x *= np.float32(_FEATURE_NOISE)
    x += z @ mixing
    start = 0
    for family, count in _FAMILIES:
        part = x[:, start : start + count]
        if family == "count":
            part[:] = np.floor(np.exp(part + np.float32(1.5)))
        elif family == "weight":
            part[:] = 10 * np.exp(part)
        elif family == "flag":
            part[:] = part > 0.5
        else:
            part[:] = 8 + 3 * part
        start += count
    return x
