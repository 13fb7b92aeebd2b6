"""Small worlds for the tables on open questions.

Each world has 400 generated queries with 10 to 40 items (median 20). The queries are
split 60/20/20 into training, validation and test queries. The production ranker is
ridge regression on the grades of some training queries. A policy chooses ten items per
session by the scores of the production ranker.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from benchmarks.ranking.protocol import LIST_SIZE, TEMPERATURE, Split, World
from benchmarks.ranking.settings import part_seed
from debias.data import RankingData
from simulators.clicks import simulate
from simulators.policies import PlackettLuce, Policy, Ranker, weak_ranker
from simulators.populations import Population, named
from simulators.queries import generate

QUERIES = 400
ITEMS = {"min_items": 10, "median_items": 20, "max_items": 40}
FEWEST = 20  # fewest queries with grades for a weak production ranker

MakePolicy = Callable[[Ranker], Policy]


class Part(NamedTuple):
    """Queries of one split, with standardised features."""

    data: RankingData
    production: np.ndarray  # (items,) scores of the production ranker


def parts(
    seed: int, labels: float = 0.01, fewest: int = FEWEST, queries: int = QUERIES
) -> list[Part]:
    """The training, validation and test split of one seed.

    Args:
        seed: Seed of queries, items, grades and split.
        labels: Share of the training queries whose grades train the production ranker.
        fewest: Smallest number of queries whose grades train the production ranker.
        queries: Number of queries.
    """
    from debias.layers import Standardize

    rng = np.random.default_rng([seed, 62])
    raw = list(generate(queries, seed, **ITEMS).split((0.6, 0.2, 0.2), rng))
    production = weak_ranker(raw[0], labels, seed, fewest)
    scale = Standardize().adapt(raw[0].features)
    return [
        Part(replace(each, features=np.asarray(scale(each.features))), production(each))
        for each in raw
    ]


def stochastic(ranker: Ranker) -> Policy:
    """A Plackett-Luce policy, because production rankings change from day to day."""
    return PlackettLuce(ranker, TEMPERATURE)


def logged(
    crowd: Population,
    three: Sequence[Part],
    scores: Sequence[np.ndarray],
    policy: MakePolicy,
    sessions: int,
    seed: int,
    list_size: int = LIST_SIZE,
) -> World:
    """Simulates a log of each split; the validation log has a quarter of the sessions.

    Args:
        crowd: Population of simulated users.
        three: The splits.
        scores: (items,) scores by which the policy ranks, for each split.
        policy: Function from a ranker to a policy.
        sessions: Number of training sessions, and of test sessions.
        seed: Seed of all three logs.
        list_size: Items per list.
    """
    splits = []
    counts = (sessions, sessions // 4, sessions)
    for place, (part, score, count) in enumerate(
        zip(three, scores, counts, strict=True)
    ):
        shown = policy(_giving(score))
        own = part_seed(seed, place, len(counts))
        log = simulate(part.data, shown, crowd, count, own, list_size)
        splits.append(Split(part.data, score, log))
    train, validation, test = splits
    return World(crowd, train, validation, test)


def _giving(score: np.ndarray) -> Ranker:
    return lambda data: score


@lru_cache(maxsize=1)
def world(
    crowd: str,
    seed: int,
    sessions: int,
    labels: float = 0.01,
    fewest: int = FEWEST,
) -> World:
    """The logs of the production ranker for one seed; the last result is cached."""
    three = parts(seed, labels, fewest)
    scores = [part.production for part in three]
    return logged(named(crowd), three, scores, stochastic, sessions, seed)
