"""Identifiability: the effect of exchanging or merging ranks.

In a first version of the protocol, on seeds 100 to 109, all fits started from .5. This
start is now the row `half`, because the start determines the result if a log does not
identify its ranks. The rest of the protocol was fixed before any result was known and
before any of the present seeds was run:

1. There are 50 queries with ten graded items each, and 20,000 sessions of
   position-based users. The production ranker orders the items, and the logging policy
   shuffles them only within blocks of ranks. The graph of ranks links two ranks if the
   same item was shown at both ranks. The graph has 1, 2, 3 or 4 components: ranks 1-10;
   1-5 and 6-10; 1-4, 5-7 and 8-10; 1-3, 4-6, 7-8 and 9-10.
2. All rows fit the tabular position-based model by maximum likelihood. In this model, a
   click probability is the examination of the rank times the attraction of the item.
   Attraction starts at .5. Each fit is repeated from five random starts of examination,
   between .1 and .9. The rows differ in how they treat the graph:

| row | treatment |
|---|---|
| `none` | no treatment; the start determines the scale of each component |
| `half` | no treatment; examination starts at .5 only, as is common in software |
| `merged` | components are joined by pairs of ranks with equal bias (`merge_places`) |
| `swaps` | a tenth of the sessions exchange the ranks that `debias diagnose` names |
| `plan` | a tenth of the sessions exchange ranks as `debias plan` advises |
| `random` | sessions exchange two random ranks, at the same cost as `plan` |
| `told` | examination is known, and only attraction is estimated |

   With one component, `diagnose` names no ranks, and `swaps` equals `none`.
   `clicks_lost` is the exact expected share of clicks that a row loses by its
   exchanges. All logs have 20,000 sessions.
3. `relevance_correlation` is Pearson's correlation of estimated and true attraction
   over all items of all queries. `ndcg@5` is the NDCG of the ranking by estimated
   attraction. `examination_error` is the mean absolute error of log examination
   relative to rank 1. These three metrics are averages over the starts. `start_spread`
   is the standard deviation of `relevance_correlation` over the starts.
4. The seeds are 200 to 209. The baseline is `none`. Holm's correction covers all
   differences of the table.

The repairs follow Chen et al., Identifiability Matters: Revealing the Hidden
Recoverable Condition in Unbiased Learning to Rank, ICML 2024. They call exchanges node
intervention, and merging node merging.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from benchmarks.harness.plan import Table
from benchmarks.ranking.settings import part_seed

QUERIES, ITEMS, SESSIONS = 50, 10, 20_000
STARTS = 5
EXCHANGED = 0.1  # share of the sessions that `swaps` and `plan` change
BLOCKS: Mapping[str, tuple[int, ...]] = {
    "one": (10,),
    "two": (5, 5),
    "three": (4, 3, 3),
    "four": (3, 3, 2, 2),
}
ROWS = ("none", "half", "merged", "swaps", "plan", "random")
BOUNDS = ("told",)

Pairs = Sequence[tuple[float, tuple[int, int]]]  # shares of sessions, ranks from 1


@dataclass(frozen=True)
class Shuffled:
    """Policy that orders items by score, and shuffles them within blocks of ranks."""

    scores: np.ndarray
    blocks: tuple[int, ...]

    def prepare(self, data: Any, list_size: int) -> "_ShuffledShelf":
        from simulators.policies import Deterministic

        still = Deterministic(lambda _: self.scores).prepare(data, list_size)
        query = np.arange(data.queries)
        top = still.show(query, np.random.default_rng(0)).item
        return _ShuffledShelf(top, np.repeat(np.arange(len(self.blocks)), self.blocks))


class _ShuffledShelf(NamedTuple):
    top: np.ndarray  # (Q, L)
    block: np.ndarray  # (L,) block number of each rank

    def show(self, query: np.ndarray, rng: np.random.Generator) -> Any:
        from simulators.policies import Shown

        lot = rng.random((len(query), len(self.block))) + self.block
        item = np.take_along_axis(self.top[query], np.argsort(lot, axis=1), axis=1)
        return Shown(item, self.propensity(query, item).astype(np.float32))

    def propensity(self, query: np.ndarray, item: np.ndarray) -> np.ndarray:
        """Propensity at each rank: 1 / number of remaining items in the block."""
        size = np.bincount(self.block)[self.block]
        first = np.searchsorted(self.block, self.block)
        left = size - (np.arange(len(self.block)) - first)
        return np.broadcast_to(1 / left, item.shape)


@dataclass(frozen=True)
class Exchanging:
    """Policy that exchanges two ranks in some lists of another policy."""

    policy: Any
    pairs: Pairs

    def prepare(self, data: Any, list_size: int) -> "_ExchangingShelf":
        return _ExchangingShelf(self.policy.prepare(data, list_size), self.pairs)


class _ExchangingShelf(NamedTuple):
    shelf: Any
    pairs: Pairs

    def show(self, query: np.ndarray, rng: np.random.Generator) -> Any:
        """Shows lists with exchanges; their propensities ignore the exchanges."""
        shown = self.shelf.show(query, rng)
        item, draw, start = shown.item.copy(), rng.random(len(query)), 0.0
        for share, (one, other) in self.pairs:
            rows = np.flatnonzero((draw >= start) & (draw < start + share))
            item[rows, one - 1], item[rows, other - 1] = (
                item[rows, other - 1],
                item[rows, one - 1],
            )
            start += share
        return shown._replace(item=item)

    def propensity(self, query: np.ndarray, item: np.ndarray) -> np.ndarray:
        return self.shelf.propensity(query, item)


@dataclass(frozen=True)
class Repair:
    """One row: a repair of a graph with a given number of components."""

    row: str
    population: str

    def settings(self) -> dict[str, Any]:
        size = {"queries": QUERIES, "items": ITEMS, "sessions": SESSIONS}
        blocks = [*BLOCKS[self.population]]
        return {**size, "exchanged": EXCHANGED, "blocks": blocks, "starts": STARTS}

    def measure(self, seed: int, data: str | None) -> dict[str, float]:
        from simulators.clicks import simulate
        from simulators.policies import weak_ranker
        from simulators.queries import generate

        sizes = {"min_items": ITEMS, "median_items": ITEMS, "max_items": ITEMS}
        queries = generate(QUERIES, seed, **sizes)
        scores = weak_ranker(queries, seed=seed)(queries)
        still = Shuffled(scores, BLOCKS[self.population])
        log = simulate(queries, still, "pbm", SESSIONS, part_seed(seed, 0, 2))
        pairs, lost = self.exchanges(log)
        if pairs:
            mixed = Exchanging(still, pairs)
            log = simulate(queries, mixed, "pbm", SESSIONS, part_seed(seed, 1, 2))
        each = [
            judged(queries, *self.estimated(log, queries.items, start))
            for start in self.starts(seed)
        ]
        found = {name: float(np.mean([of[name] for of in each])) for name in each[0]}
        spread = np.std([of["relevance_correlation"] for of in each])
        return {**found, "start_spread": float(spread), "clicks_lost": lost}

    def starts(self, seed: int) -> np.ndarray:
        """(starts, L) initial examination of each fit."""
        if self.row in ("half", *BOUNDS):
            return np.full((1, ITEMS), 0.5)
        rng = np.random.default_rng([seed, 64])
        return rng.uniform(0.1, 0.9, (STARTS, ITEMS))

    def exchanges(self, log: Any) -> tuple[Pairs, float]:
        """The exchanges of ranks, and the share of clicks that they lose."""
        from debias.diagnosis.identifiability import connectivity
        from debias.propensity import plan

        every = [(a, b) for b in range(1, ITEMS + 1) for a in range(1, b)]
        price = {pair: cost(log, pair) for pair in every}
        if self.row == "swaps":
            named = connectivity(log).swaps
            pairs = [(EXCHANGED / len(named), pair) for pair in named]
        elif self.row in ("plan", "random"):
            advised = plan(log, share=EXCHANGED).exchanges
            pairs = [(each.share, each.ranks) for each in advised]
        else:
            pairs = []
        lost = sum(share * price[pair] for share, pair in pairs)
        if self.row == "random":
            share = lost / sum(price.values())
            pairs = [(share, pair) for pair in every]
        return pairs, float(lost)

    def estimated(
        self, log: Any, items: int, start: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """(L,) estimated examination and (items,) attraction, up to a common scale."""
        from debias.diagnosis.identifiability import connectivity
        from debias.propensity import merge_places
        from debias.propensity.cells import cells

        place = np.arange(ITEMS)
        if self.row == "merged":
            place = merge_places(connectivity(log).component)[1:] - 1
        counted = cells(log, place=np.broadcast_to(place, log.item.shape))
        if self.row == "told":
            theta, gamma = told(counted)
        else:
            theta, gamma = fitted(counted, start[: counted.ranks])
        found = np.zeros(items)
        assert counted.names is not None
        found[counted.names.item] = gamma
        return theta[place], found


def cost(log: Any, pair: tuple[int, int]) -> float:
    """Exact expected share of clicks that is lost by exchanging two ranks."""
    from simulators.behaviours import PositionBased

    theta = np.array(PositionBased().theta)[: log.list_size]
    one, other = np.array(pair) - 1
    gain = (log.attraction[:, one] - log.attraction[:, other]).mean()
    clicks = (log.attraction * theta).sum(axis=1).mean()
    return float((theta[one] - theta[other]) * gain / clicks)


def fitted(counted: Any, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Maximum-likelihood estimates of examination and attraction, by EM.

    Args:
        counted: Impressions and clicks of a log, counted by rank and by pair of query
            and item.
        start: (K,) initial examination of each rank. Attraction starts at .5.
    """
    from debias.propensity.pbm_maximum import accelerated, pbm_step

    def step(x: np.ndarray) -> np.ndarray:
        gamma, theta = x[: counted.pairs], x[counted.pairs :]
        return np.concatenate(pbm_step(counted, gamma, theta, (0.0, 0.0)))

    first = np.concatenate([np.full(counted.pairs, 0.5), start])
    x, _ = accelerated(step, first, 1e-8, 3000)
    return x[counted.pairs :], x[: counted.pairs]


def told(counted: Any) -> tuple[np.ndarray, np.ndarray]:
    """True examination, and attraction estimated as clicks per examination."""
    from simulators.behaviours import PositionBased

    theta = np.array(PositionBased().theta)[: counted.ranks]
    examined = counted.by_pair(counted.shown * theta[counted.rank])
    return theta, counted.by_pair(counted.clicked) / examined


def judged(queries: Any, theta: np.ndarray, gamma: np.ndarray) -> dict[str, float]:
    """Compares estimates with the truth of position-based users."""
    from debias import metrics
    from simulators.behaviours import PositionBased
    from simulators.clicks import item_attraction

    true = np.array(PositionBased().theta)[: len(theta)]
    error = np.log(theta / theta[0]) - np.log(true / true[0])
    ndcg = metrics.ndcg(queries.labels, gamma, (5,), offsets=queries.offsets)
    correlation = np.corrcoef(gamma, item_attraction(queries))[0, 1]
    return {
        "relevance_correlation": float(correlation),
        "ndcg@5": metrics.estimate(ndcg[:, 0]).mean,
        "examination_error": float(np.abs(error).mean()),
    }


TABLE = Table(
    name="repair",
    title="Estimated relevance by components of the rank graph, and by repair",
    experiments=tuple(
        Repair(row, population) for population in BLOCKS for row in (*ROWS, *BOUNDS)
    ),
    metrics=(
        *("relevance_correlation", "ndcg@5", "examination_error"),
        *("start_spread", "clicks_lost"),
    ),
    baseline="none",
    paired=("relevance_correlation", "ndcg@5", "examination_error"),
    clicks="",
    bounds=BOUNDS,
    lower=("examination_error", "start_spread", "clicks_lost"),
    first_seed=200,
    holm=True,
)
