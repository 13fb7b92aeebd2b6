"""Logging policies, which choose the shown lists with known propensities.

A ranker is any function from `RankingData` to a score per item. A policy makes lists
from scores, possibly at random:

>>> from debias.data import RankingData
>>> data = RankingData(np.zeros((4, 1)), [0, 4, 1, 2], [0, 3, 4])
>>> shelf = Deterministic(expert).prepare(data, list_size=2)
>>> shelf.show(np.array([0, 1]), generator(0)).item.tolist()
[[1, 2], [3, -1]]

`prepare` does all work that does not depend on the session. `prepare` returns a
`Shelf`, which draws lists and computes the exact sequential propensity of any list:

    propensity_k = P(this item at rank k | the items shown above k)

The product over ranks is the propensity of the whole list.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple, Protocol

import numpy as np

from debias.data import RankingData
from debias.data.text import one_of
from simulators.chance import categorical, generator

Ranker = Callable[[RankingData], np.ndarray]
_TINY = np.finfo(np.float32).tiny


class Shown(NamedTuple):
    """Shown lists of sessions."""

    item: np.ndarray  # (S, L) int32 item numbers, -1 after the last
    propensity: np.ndarray  # (S, L) float32 in (0, 1], sequential; 1 at padding
    swap: np.ndarray | None = None  # (S, 2) int16 exchanged ranks from 1; 0 0 if none


class Shelf(Protocol):
    """A policy prepared for given queries and a list size."""

    def show(self, query: np.ndarray, rng: np.random.Generator) -> Shown:
        """Draws a list for the query of each session, with queries (S,)."""

    def propensity(self, query: np.ndarray, item: np.ndarray) -> np.ndarray:
        """(S, L) float64 propensities of given lists; 0 for impossible lists."""


class Policy(Protocol):
    """Interface of logging policies."""

    def prepare(self, data: RankingData, list_size: int) -> Shelf:
        """Prepares the policy for the queries of `data`."""


# Rankers


def expert(data: RankingData) -> np.ndarray:
    """Ranker by grade, best first."""
    if data.labels is None:
        raise ValueError("a ranking by labels needs labels, but these items have none")
    return data.labels.astype(np.float32)


def worst_first(data: RankingData) -> np.ndarray:
    """Ranker by grade, worst first: the hardest log to learn from."""
    return -expert(data)


def symlog(features: np.ndarray) -> np.ndarray:
    """sign(x) log(1 + |x|), which compresses heavy tails on either side.

    >>> symlog(np.array([-1.0, 0.0])).round(3).tolist()
    [-0.693, 0.0]
    """
    # Not log1p: it takes eight times as long, for digits beyond float32 features.
    return np.copysign(np.log(1 + np.abs(features)), features)


@dataclass(frozen=True, eq=False)
class LinearRanker:
    """A linear ranker on standardised features `symlog(x)`."""

    mean: np.ndarray
    scale: np.ndarray
    weights: np.ndarray

    def __call__(self, data: RankingData) -> np.ndarray:
        if data.feature_count != len(self.weights):
            raise ValueError(
                f"data must have {len(self.weights)} features as the ranker was fitted "
                f"on, got {data.feature_count}"
            )
        per_unit = (self.weights / self.scale).astype(np.float32)
        scores = np.empty(data.items, np.float32)
        for start in range(0, data.items, 1 << 14):
            rows = slice(start, start + (1 << 14))
            scores[rows] = symlog(data.features[rows]) @ per_unit
        return scores - np.float32(self.mean @ per_unit)


def weak_ranker(
    train: RankingData,
    fraction: float = 0.01,
    seed: int = 0,
    min_queries: int = 20,
    ridge: float = 100.0,
) -> LinearRanker:
    """A production ranker trained on few labels, by ridge regression of grades.

    Args:
        train: Graded training queries.
        fraction: Share of the training queries to use.
        seed: Random seed for the choice of queries.
        min_queries: Smallest number of training queries to use. If `train` has fewer
            queries, all queries are used.
        ridge: Penalty on squared weights of standardised features.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction must be in (0, 1], got {fraction}")
    labels = expert(train)
    seen = min(train.queries, max(min_queries, int(np.ceil(fraction * train.queries))))
    chosen = generator(seed, 1).choice(train.queries, seen, replace=False)
    rows = np.concatenate([np.arange(*train.offsets[q : q + 2]) for q in chosen])
    x = symlog(train.features[rows].astype(float))
    mean, scale = x.mean(axis=0), x.std(axis=0)
    scale = np.where(scale > 1e-9, scale, 1.0)
    x = (x - mean) / scale
    y = labels[rows] - labels[rows].mean(dtype=float)
    gram = x.T @ x + ridge * np.eye(x.shape[1])
    return LinearRanker(mean, scale, np.linalg.solve(gram, x.T @ y))


# Policies


def _sorted_items(ranker: Ranker, data: RankingData) -> tuple[np.ndarray, np.ndarray]:
    """Items of each query, best first, and the score of each item."""
    scores = np.asarray(ranker(data))
    if scores.shape != (data.items,) or not np.isfinite(scores).all():
        raise ValueError(
            f"a ranker must give {data.items} finite scores, got shape {scores.shape}"
        )
    # Equal scores have a fixed random order, so that file order has no effect.
    lot = generator(0, data.items).permutation(data.items)
    order = np.lexsort((lot, -scores.astype(float), data.query_of_item()))
    return order.astype(np.int32), scores


def _check_list_size(list_size: int) -> None:
    if list_size < 1:
        raise ValueError(f"list_size must be at least 1, got {list_size}")


def _top(order: np.ndarray, data: RankingData, list_size: int) -> np.ndarray:
    """(Q, L) the best items of each query, padded with -1."""
    place = data.padded(list_size)
    return np.where(place >= 0, order[place], -1).astype(np.int32)


def _as_shown(propensity: np.ndarray) -> np.ndarray:
    """Casts to float32, above 0 even for lists of negligible probability."""
    return np.maximum(propensity, _TINY).astype(np.float32)


@dataclass(frozen=True)
class Deterministic:
    """Always shows the best items in order, so all propensities are 1."""

    ranker: Ranker

    def prepare(self, data: RankingData, list_size: int) -> Shelf:
        _check_list_size(list_size)
        order, _ = _sorted_items(self.ranker, data)
        return _DeterministicShelf(_top(order, data, list_size))


@dataclass(frozen=True, eq=False)
class _DeterministicShelf:
    top: np.ndarray

    def show(self, query: np.ndarray, rng: np.random.Generator) -> Shown:
        item = self.top.take(query, axis=0)
        return Shown(item, np.ones(item.shape, np.float32))

    def propensity(self, query: np.ndarray, item: np.ndarray) -> np.ndarray:
        return (self.top[query] == item).astype(float)


@dataclass(frozen=True)
class PlackettLuce:
    """Draws items one by one with odds exp(score / temperature).

        P(item i at rank k | above) = w_i / sum of w over the items not shown above

    where w_i = exp(z_i / temperature). z is the score, centred within its query and
    divided by the standard deviation over all items. So a temperature has the same
    meaning for every ranker. A list is drawn by sorting items by E_i / w_i, where the
    E_i are exponential random numbers. This sort is equivalent to the Gumbel top-k
    trick, but needs no logarithm.

    Raises:
        ValueError: The temperature is not above 0, or so low (below about .02) that the
            odds overflow.
    """

    ranker: Ranker
    temperature: float = 1.0

    def prepare(self, data: RankingData, list_size: int) -> Shelf:
        _check_list_size(list_size)
        if not self.temperature > 0:
            raise ValueError(
                f"temperature must be above 0, got {self.temperature}; "
                "Deterministic is the limit at 0"
            )
        _, scores = _sorted_items(self.ranker, data)
        starts, sizes = data.offsets[:-1], data.sizes
        centred = scores - np.repeat(np.add.reduceat(scores, starts) / sizes, sizes)
        logit = centred.astype(float) / ((centred.std() or 1.0) * self.temperature)
        logit -= np.repeat(np.maximum.reduceat(logit, starts), sizes)
        if logit.min() < -600:
            raise ValueError(
                f"temperature {self.temperature} gives odds below exp(-600); "
                "Deterministic is the limit at 0"
            )
        weight = np.exp(logit)
        total = np.add.reduceat(weight, starts)
        return _PlackettLuceShelf(starts, sizes, weight, 1 / weight, total, list_size)


@dataclass(frozen=True, eq=False)
class _PlackettLuceShelf:
    starts: np.ndarray
    sizes: np.ndarray
    weight: np.ndarray
    waiting: np.ndarray  # 1 / weight
    total: np.ndarray
    list_size: int

    def _cells(self, query: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Item numbers of the queries as a table, and the mask of valid cells."""
        rank = np.arange(int(self.sizes[query].max()))
        cells = self.starts[query, None] + rank
        held = rank < self.sizes[query, None]
        return np.minimum(cells, len(self.weight) - 1), held

    def show(self, query: np.ndarray, rng: np.random.Generator) -> Shown:
        item = np.full((len(query), self.list_size), -1, np.int32)
        # Sessions whose queries have similar lengths are grouped, to reduce padding.
        by_size = np.argsort(self.sizes[query], kind="stable")
        for start in range(0, len(query), 512):
            rows = by_size[start : start + 512]
            item[rows] = self._draw(query[rows], rng)
        return Shown(item, _as_shown(self.propensity(query, item)))

    def _draw(self, query: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        cells, held = self._cells(query)
        clock = rng.standard_exponential(cells.shape) * self.waiting[cells]
        clock[~held] = np.inf
        shown = min(self.list_size, clock.shape[1])
        first = np.argpartition(clock, shown - 1, axis=1)[:, :shown]
        rang = np.take_along_axis(clock, first, axis=1)
        order = np.argsort(rang, axis=1)
        place = np.take_along_axis(first, order, axis=1)
        item = np.full((len(query), self.list_size), -1, np.int32)
        item[:, :shown] = self.starts[query, None] + place
        short = np.arange(self.list_size) >= self.sizes[query, None]
        item[short] = -1
        return item

    def propensity(self, query: np.ndarray, item: np.ndarray) -> np.ndarray:
        shown = item >= 0
        weight = np.where(shown, self.weight[np.maximum(item, 0)], 0.0)
        # Weight of the items not shown. If it is a small difference of large numbers,
        # it is summed again, item by item.
        rest = self.total[query] - weight.sum(axis=1)
        doubtful = np.flatnonzero(rest < 1e-6 * self.total[query])
        for start in range(0, doubtful.size, 512):
            rows = doubtful[start : start + 512]
            cells, held = self._cells(query[rows])
            left = np.where(held, self.weight[cells], 0.0)
            place = item[rows] - self.starts[query[rows], None]
            session, rank = np.nonzero(shown[rows])
            left[session, place[session, rank]] = 0.0
            rest[rows] = left.sum(axis=1)
        below = np.cumsum(weight[:, ::-1], axis=1)[:, ::-1]
        return np.where(shown, weight / np.where(shown, rest[:, None] + below, 1), 1.0)


@dataclass(frozen=True)
class EpsilonGreedy:
    """Shows the best remaining item, or a random item with probability epsilon.

    P(item i at rank k | above) = epsilon / n_left + (1 - epsilon) [i is the best left]
    """

    ranker: Ranker
    epsilon: float = 0.1

    def prepare(self, data: RankingData, list_size: int) -> Shelf:
        _check_list_size(list_size)
        if not 0 <= self.epsilon <= 1:
            raise ValueError(f"epsilon must be in [0, 1], got {self.epsilon}")
        order, _ = _sorted_items(self.ranker, data)
        starts, sizes = data.offsets[:-1], data.sizes
        place = np.empty(data.items, np.int32)
        place[order] = np.arange(data.items) - np.repeat(starts, sizes)
        return _EpsilonGreedyShelf(order, place, starts, sizes, self.epsilon, list_size)


@dataclass(frozen=True, eq=False)
class _EpsilonGreedyShelf:
    order: np.ndarray
    place: np.ndarray  # rank of an item in its query, from 0
    starts: np.ndarray
    sizes: np.ndarray
    epsilon: float
    list_size: int

    def show(self, query: np.ndarray, rng: np.random.Generator) -> Shown:
        size = self.sizes[query].astype(np.int32)
        place = np.empty((self.list_size, len(query)), np.int32)
        propensity = np.empty(place.shape)
        taken: list[np.ndarray] = []
        chance = 1 - self.epsilon
        for k in range(self.list_size):
            draw = rng.random(len(query))
            # The draw beyond 1 - epsilon, scaled to [0, 1), chooses one of the items
            # left.
            explore = draw >= chance
            stretched = (draw - chance) / max(self.epsilon, float(_TINY))
            left = np.maximum(size - k, 1)
            nth = np.where(explore, np.minimum(stretched * left, left - 1), 0)
            here = nth.astype(np.int32)
            propensity[k] = self.epsilon / left + chance * (here == 0)
            for earlier in taken:
                here += earlier <= here
            place[k] = here
            taken = _inserted(taken, here)
        shown = np.arange(self.list_size)[:, None] < size
        item = self.order[np.where(shown, self.starts[query] + place, 0)]
        item = np.ascontiguousarray(np.where(shown, item, -1).T)
        propensity = np.ascontiguousarray(np.where(shown, propensity, 1.0).T)
        return Shown(item, _as_shown(propensity))

    def propensity(self, query: np.ndarray, item: np.ndarray) -> np.ndarray:
        shown = (item >= 0).T
        place = np.where(shown, self.place[np.maximum(item.T, 0)], -1).astype(np.int32)
        size = self.sizes[query]
        propensity = np.ones(item.shape)
        taken: list[np.ndarray] = []
        for k in range(len(place)):
            best = np.zeros(len(size), np.int32)
            for earlier in taken:
                best += earlier == best
            by_lot = self.epsilon / np.maximum(size - k, 1)
            here = by_lot + (1 - self.epsilon) * (place[k] == best)
            propensity[:, k] = np.where(shown[k], here, 1.0)
            taken = _inserted(taken, place[k])
        return propensity


def _inserted(ascending: list[np.ndarray], new: np.ndarray) -> list[np.ndarray]:
    """Inserts a new array into a list of arrays that are sorted in each cell.

    >>> [a.tolist() for a in _inserted([np.array([1]), np.array([4])], np.array([3]))]
    [[1], [3], [4]]
    """
    result = []
    for earlier in ascending:
        result.append(np.minimum(earlier, new))
        new = np.maximum(earlier, new)
    return [*result, new]


@dataclass(frozen=True)
class RandPair:
    """Shows the best items in order, after exchanging the items of two random ranks.

    With probability `rate`, a pair of ranks is drawn uniformly from `pairs`, and the
    items at these ranks are exchanged. The log records the two ranks. Comparing the
    clicks of sessions with and without an exchange separates examination from
    relevance.

    Args:
        pairs: "adjacent" for (k, k + 1), "pivot" for (1, k), "all", or a list of pairs
            of ranks. Ranks count from 1, and the upper rank is first.

    After Wang et al., Position Bias Estimation for Unbiased Learning to Rank in
    Personal Search, WSDM 2018.
    """

    ranker: Ranker
    rate: float = 1.0
    pairs: str | Sequence[tuple[int, int]] = "adjacent"

    def prepare(self, data: RankingData, list_size: int) -> Shelf:
        _check_list_size(list_size)
        if not 0 <= self.rate <= 1:
            raise ValueError(f"rate must be in [0, 1], got {self.rate}")
        every = list(combinations(range(list_size), 2))
        kinds = {
            "adjacent": [(i, j) for i, j in every if j == i + 1],
            "pivot": [(i, j) for i, j in every if i == 0],
            "all": every,
        }
        if not isinstance(self.pairs, str):
            wanted = [(one - 1, two - 1) for one, two in self.pairs]
            if not wanted or not set(wanted) <= set(every):
                raise ValueError(
                    f"pairs must be ranks from 1 to {list_size}, the upper one first, "
                    f"got {self.pairs}"
                )
            kinds["own"] = wanted
        kind = self.pairs if isinstance(self.pairs, str) else "own"
        if kind not in kinds:
            raise ValueError(one_of("pairs", kinds, self.pairs))
        # Sorted by lower rank, so the pairs of a shorter list come first.
        pairs = np.array(sorted(kinds[kind], key=lambda pair: pair[1]), np.int16)
        order, _ = _sorted_items(self.ranker, data)
        top = _top(order, data, list_size)
        shown = np.minimum(data.sizes, list_size)
        return _RandPairShelf(top, shown, pairs.reshape(-1, 2), self.rate)


@dataclass(frozen=True, eq=False)
class _RandPairShelf:
    top: np.ndarray
    shown: np.ndarray  # (Q,) list size
    pairs: np.ndarray  # (P, 2) ranks from 0
    rate: float

    def _choices(self, query: np.ndarray) -> np.ndarray:
        """The number of pairs that can be swapped in the lists of these queries."""
        return np.searchsorted(self.pairs[:, 1], self.shown[query])

    def show(self, query: np.ndarray, rng: np.random.Generator) -> Shown:
        item = self.top.take(query, axis=0)
        choices = self._choices(query)
        swaps = (rng.random(len(query)) < self.rate) & (choices > 0)
        rows = np.flatnonzero(swaps)
        pair = self.pairs[(rng.random(rows.size) * choices[rows]).astype(int)]
        swap = np.zeros((len(query), 2), np.int16)
        swap[rows] = pair + 1
        one, other = pair.T
        item[rows, one], item[rows, other] = item[rows, other], item[rows, one]
        return Shown(item, _as_shown(self.propensity(query, item)), swap)

    def propensity(self, query: np.ndarray, item: np.ndarray) -> np.ndarray:
        size = item.shape[1]
        choices = self._choices(query)
        each = np.where(choices > 0, self.rate / np.maximum(choices, 1), 0.0)
        none = np.where(choices > 0, 1 - self.rate, 1.0)
        # pending[:, r]: probability of no swap so far, ahead of rank r.
        valid = np.arange(len(self.pairs)) < choices[:, None]
        first = np.zeros((len(self.pairs), size))
        first[np.arange(len(self.pairs)), self.pairs[:, 0]] = 1
        at_rank = (valid @ first) * each[:, None]
        pending = none[:, None] + np.cumsum(at_rank[:, ::-1], axis=1)[:, ::-1]
        after = np.concatenate([pending[:, 1:], none[:, None]], axis=1)
        base = self.top[query]
        differs = base != item
        swapped = differs.any(axis=1)
        one = np.where(swapped, differs.argmax(axis=1), size)
        rank = np.arange(size)
        with np.errstate(divide="ignore", invalid="ignore"):
            stay = np.where(pending > 0, after / pending, 0.0)
        propensity = np.where(rank < one[:, None], stay, 1.0)
        rows = np.flatnonzero(swapped)
        other = size - 1 - differs[rows, ::-1].argmax(axis=1)
        known = (
            (self.pairs[None, :, 0] == one[rows, None])
            & (self.pairs[None, :, 1] == other[:, None])
            & valid[rows]
        ).any(axis=1)
        expected = base[rows]
        here = np.arange(rows.size)
        expected[here, one[rows]], expected[here, other] = (
            base[rows, other],
            base[rows, one[rows]],
        )
        legal = known & (expected == item[rows]).all(axis=1)
        ahead = pending[rows, one[rows]]
        propensity[rows, one[rows]] = np.where(
            legal, each[rows] / np.where(ahead > 0, ahead, 1), 0.0
        )
        return np.where(item >= 0, propensity, 1.0)


@dataclass(frozen=True)
class RandTopN:
    """Shows the best n items in uniformly random order, above all other items.

    P(item i at rank k | above) is 1 / (n - k + 1) for k <= n, and 1 for k > n.
    """

    ranker: Ranker
    n: int = 10

    def prepare(self, data: RankingData, list_size: int) -> Shelf:
        _check_list_size(list_size)
        if self.n < 1:
            raise ValueError(f"n must be at least 1, got {self.n}")
        order, _ = _sorted_items(self.ranker, data)
        top = _top(order, data, max(list_size, self.n))
        shuffled = np.minimum(data.sizes, self.n)
        return _RandTopNShelf(top, shuffled, list_size)


@dataclass(frozen=True, eq=False)
class _RandTopNShelf:
    top: np.ndarray
    shuffled: np.ndarray  # (Q,) items that are shuffled
    list_size: int

    def show(self, query: np.ndarray, rng: np.random.Generator) -> Shown:
        rank = np.arange(self.top.shape[1])
        lot = rng.random((len(query), self.top.shape[1]))
        lot = np.where(rank < self.shuffled[query, None], lot, 1 + rank)
        order = np.argsort(lot, axis=1)[:, : self.list_size]
        item = np.take_along_axis(self.top[query], order, axis=1)
        return Shown(item, _as_shown(self.propensity(query, item)))

    def propensity(self, query: np.ndarray, item: np.ndarray) -> np.ndarray:
        rank = np.arange(self.list_size)
        among = self.shuffled[query, None]
        base = self.top[query]
        lot = np.arange(base.shape[1]) < among
        may = (item[:, :, None] == np.where(lot, base, -2)[:, None, :]).any(axis=2)
        in_order = item == base[:, : self.list_size]
        by_lot = may / np.maximum(among - rank, 1)
        return np.where(rank < among, by_lot, in_order)


@dataclass(frozen=True)
class Interleaved:
    """A mixture of policies: a random policy serves each session.

    The log does not record which policy served a session, so the mixture determines the
    propensities:

        P(list) = sum_r share_r P_r(list)
        P(item at k | above) = P(items to k) / P(items above k)

    Args:
        policies: Pairs (share, policy); the shares sum to 1.
    """

    policies: tuple[tuple[float, Policy], ...]

    def prepare(self, data: RankingData, list_size: int) -> Shelf:
        shares = np.array([share for share, _ in self.policies])
        if not len(shares) or (shares < 0).any() or not np.isclose(shares.sum(), 1):
            raise ValueError(
                f"policies must have positive shares that sum to 1, got {shares}"
            )
        shelves = tuple(p.prepare(data, list_size) for _, p in self.policies)
        return _InterleavedShelf(shares, shelves)


@dataclass(frozen=True, eq=False)
class _InterleavedShelf:
    shares: np.ndarray
    shelves: Sequence[Shelf]

    def show(self, query: np.ndarray, rng: np.random.Generator) -> Shown:
        cumulative = np.broadcast_to(
            np.cumsum(self.shares), (len(query), len(self.shares))
        )
        chosen = categorical(cumulative, rng)
        parts = []
        for number, shelf in enumerate(self.shelves):
            rows = np.flatnonzero(chosen == number)
            if rows.size:
                parts.append((rows, shelf.show(query[rows], rng)))
        item = np.empty((len(query), parts[0][1].item.shape[1]), np.int32)
        swap = None
        if any(shown.swap is not None for _, shown in parts):
            swap = np.zeros((len(query), 2), np.int16)
        for rows, shown in parts:
            item[rows] = shown.item
            if swap is not None and shown.swap is not None:
                swap[rows] = shown.swap
        return Shown(item, _as_shown(self.propensity(query, item)), swap)

    def propensity(self, query: np.ndarray, item: np.ndarray) -> np.ndarray:
        joint = np.zeros((len(query), item.shape[1] + 1))
        joint[:, 0] = 1.0
        for share, shelf in zip(self.shares, self.shelves, strict=True):
            above = np.cumprod(shelf.propensity(query, item), axis=1)
            joint[:, 1:] += share * above
        before = joint[:, :-1]
        return joint[:, 1:] / np.where(before > 0, before, 1)


def _weak(data: RankingData, seed: int) -> LinearRanker:
    return weak_ranker(data, seed=seed)


POLICIES: dict[str, Callable[[RankingData, int, float | None], Policy]] = {
    "weak": lambda data, seed, _: Deterministic(_weak(data, seed)),
    "expert": lambda data, seed, _: Deterministic(expert),
    "worst-first": lambda data, seed, _: Deterministic(worst_first),
    "plackett-luce": lambda data, seed, temperature: PlackettLuce(
        _weak(data, seed), 1.0 if temperature is None else temperature
    ),
    "epsilon-greedy": lambda data, seed, epsilon: EpsilonGreedy(
        _weak(data, seed), 0.1 if epsilon is None else epsilon
    ),
    "rand-pair": lambda data, seed, rate: RandPair(
        _weak(data, seed), 1.0 if rate is None else rate
    ),
    "rand-top-n": lambda data, seed, n: RandTopN(
        _weak(data, seed), 10 if n is None else int(n)
    ),
    "interleaved": lambda data, seed, share: Interleaved(
        (
            (0.5 if share is None else 1 - share, Deterministic(_weak(data, seed))),
            (0.5 if share is None else share, Deterministic(expert)),
        )
    ),
}
"""Policies by name: functions of graded data, a seed, and a randomness.

Depending on the policy, the randomness is the temperature (default 1), epsilon (.1),
the rate of exchanges (1), the number n of shuffled items (10), or the share of sessions
that the expert serves (.5). None gives the default.
"""
