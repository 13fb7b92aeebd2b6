"""Interleaving of two rankings, and the number of sessions that a test needs."""

import math
from typing import NamedTuple

import numpy as np
from scipy.stats import norm

from debias.data import RankingData
from simulators.chance import generator
from simulators.clicks import Graded, item_attraction
from simulators.policies import Ranker
from simulators.populations import Observed, Population, named, visit

_DRAFTED, _VISITED = 31, 32  # two random streams
FIRST = 1  # team of the first ranking, before that of the second


class Interleaving(NamedTuple):
    """The result of interleaving: in how many sessions each ranking got more clicks.

    Attributes:
        sessions: Number of sessions.
        first, second: Numbers of sessions in which the first or the second ranking got
            more clicks. The remaining sessions are ties.
        preference: (first - second) / sessions. `low` and `high` are the ends of the
            normal confidence interval of `preference`.
        p_value: Two-sided p-value of the sign test on sessions without ties.
        needed: Number of sessions needed to detect this preference with the requested
            power, see `sessions_needed`. The number is inf if the preference is 0.
    """

    sessions: int
    first: int
    second: int
    preference: float
    low: float
    high: float
    p_value: float
    needed: float


def team_draft(
    first: np.ndarray, second: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Team draft: merges two rankings and records which ranking added each item.

    The ranking that has added fewer items adds its best remaining item. A coin decides
    if both rankings have added equally many items. So each ranking adds one of every
    two items, and adds the upper of the two with probability 1/2.

    Args:
        first, second: (S, L) item numbers in the order of each ranking, padded with -1.
        rng: Random generator, the only source of randomness.

    Returns:
        Items (S, L), padded with -1, and teams (S, L) int8: 1 or 2, and 0 at padding.

    Raises:
        ValueError: The shapes differ.

    Source: Radlinski, Kurup and Joachims, How Does Clickthrough Data Reflect Retrieval
    Quality?, CIKM 2008.

    >>> one, other = np.array([[4, 5]]), np.array([[6, 4]])
    >>> item, team = team_draft(one, other, np.random.default_rng(0))
    >>> sorted(item[0].tolist()), sorted(team[0].tolist())
    ([4, 6], [1, 2])
    """
    if first.shape != second.shape or first.ndim != 2:
        raise ValueError(
            f"rankings must both be (sessions, ranks), got {first.shape} and "
            f"{second.shape}"
        )
    rows = np.arange(len(first))
    item = np.full(first.shape, -1, np.int32)
    team = np.zeros(first.shape, np.int8)
    given = np.zeros((2, len(first)), int)
    for rank in range(first.shape[1]):
        best = np.stack([_best_left(each, item[:, :rank]) for each in (first, second)])
        ahead = given[0] - given[1]
        coin = rng.random(len(first)) < 0.5
        turn = np.where(ahead == 0, coin, ahead > 0).astype(int)  # 1: the second
        turn = np.where(best[turn, rows] < 0, 1 - turn, turn)  # if no item is left
        item[:, rank] = best[turn, rows]
        shown = item[:, rank] >= 0
        team[:, rank] = np.where(shown, turn + FIRST, 0)
        given[turn, rows] += shown
    return item, team


def _best_left(ranking: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """(S,) first item of each ranking (S, L) that is not in shown (S, k), or -1."""
    there = (ranking[:, :, None] == shown[:, None, :]).any(axis=2) | (ranking < 0)
    place = np.argmin(there, axis=1)
    rows = np.arange(len(ranking))
    found: np.ndarray = np.where(there[rows, place], -1, ranking[rows, place])
    return found


def interleave(
    data: RankingData,
    first: Ranker,
    second: Ranker,
    population: Population | str,
    sessions: int,
    seed: int,
    list_size: int = 10,
    attraction: Graded = "graded",
    power: float = 0.8,
    confidence: float = 0.95,
) -> Interleaving:
    """Simulates interleaving: shows drafts of two rankings and counts their clicks.

    Each session has a uniformly random query. A click counts for the ranking that
    contributed the item.

    Args:
        data: Queries and items.
        first, second: Functions from ranking data to a score per item. Items with equal
            scores keep the order of the data.
        population: A population with one situation, or the name of a preset.
        sessions: Number of sessions.
        seed: Random seed of queries, drafts and clicks.
        list_size: Number of ranks in a list.
        attraction: As for `simulate`.
        power: Probability of detection for which `needed` is computed.
        confidence: Confidence level of the interval and of `needed`.

    Raises:
        ValueError: `sessions` is not positive, power or confidence is not in (0, 1), or
            the population has several situations.

    >>> from simulators import expert, generate, worst_first
    >>> data = generate(queries=30, seed=1)
    >>> found = interleave(data, expert, worst_first, "pbm", sessions=500, seed=1)
    >>> found.low > 0, found.needed < 100
    (True, True)
    """
    crowd = named(population) if isinstance(population, str) else population
    if sessions < 1:
        raise ValueError(f"sessions must be at least 1, got {sessions}")
    if len(crowd.situations) > 1:
        raise ValueError("interleave shows lists in one situation, got several")
    rng = generator(seed, _DRAFTED)
    query = rng.integers(0, data.queries, sessions, np.int32)
    one, other = (
        _ranked(data, ranker(data), list_size)[query] for ranker in (first, second)
    )
    item, team = team_draft(one, other, rng)
    gamma = item_attraction(data, attraction)
    rng = generator(seed, _VISITED)
    balance = np.zeros(sessions)
    size = (item >= 0).sum(axis=1)
    for length in np.unique(size):  # behaviours have no padding
        rows = np.flatnonzero(size == length)
        shown = gamma[item[rows, :length]]
        seen = visit(crowd, shown, rng, Observed(query[rows]), truth=False)
        sides = np.where(team[rows, :length] == FIRST, 1, -1)
        balance[rows] = (seen.click * sides).sum(axis=1)
    won, lost = int((balance > 0).sum()), int((balance < 0).sum())
    return compared(won, lost, sessions, power, confidence)


def _ranked(data: RankingData, scores: np.ndarray, list_size: int) -> np.ndarray:
    """(queries, L) the best items of each query in order, padded with -1."""
    order = np.lexsort((-np.asarray(scores, float), data.query_of_item()))
    place = data.padded(list_size)
    return np.where(place >= 0, order[np.maximum(place, 0)], -1)


def compared(
    first: int,
    second: int,
    sessions: int,
    power: float = 0.8,
    confidence: float = 0.95,
) -> Interleaving:
    """Computes the result from the numbers of sessions that each ranking won.

    Args:
        first, second: Numbers of sessions in which the first or the second ranking got
            more clicks.
        sessions: Number of sessions, including ties.
        power, confidence: As for `sessions_needed`.

    >>> found = compared(first=60, second=40, sessions=200)
    >>> round(found.preference, 2), round(found.p_value, 4)  # z = 20 / 10
    (0.1, 0.0455)
    """
    preference, decided = (first - second) / sessions, (first + second) / sessions
    z = float(norm.ppf((1 + confidence) / 2))
    reach = z * math.sqrt(max(decided - preference**2, 0.0) / sessions)
    score = abs(first - second) / math.sqrt(first + second) if decided else 0.0
    needed = math.inf
    if preference:
        needed = sessions_needed(preference, decided, power, confidence)
    return Interleaving(
        sessions,
        first,
        second,
        preference,
        preference - reach,
        preference + reach,
        float(2 * norm.sf(score)),
        needed,
    )


def sessions_needed(
    preference: float,
    decided: float,
    power: float = 0.8,
    confidence: float = 0.95,
) -> int:
    """Number of sessions that a sign test needs to detect a preference.

        n = (z_{1 - a/2} sqrt(d) + z_power sqrt(d - p^2))^2 / p^2,

    where p is the preference, d the share of sessions that are not ties, and a = 1 -
    confidence. The variance of one session is d under the null hypothesis and d - p^2
    under the alternative.

    Args:
        preference: Share of sessions won minus share of sessions lost, not 0.
        decided: Share of sessions that are not ties, at least the absolute preference.
        power: Probability of detection, in (0, 1).
        confidence: Confidence level of the two-sided test, in (0, 1).

    Raises:
        ValueError: A number is out of range.

    >>> sessions_needed(0.1, 0.5)  # (1.96 sqrt(.5) + .8416 sqrt(.49))^2 / .01
    391
    """
    if not 0 < abs(preference) <= decided <= 1:
        raise ValueError(
            "preference and decided must satisfy 0 < |preference| <= decided <= 1, "
            f"got {preference} and {decided}"
        )
    for name, value in (("power", power), ("confidence", confidence)):
        if not 0 < value < 1:
            raise ValueError(f"{name} must be in (0, 1), got {value}")
    by_chance = norm.ppf((1 + confidence) / 2) * math.sqrt(decided)
    by_power = norm.ppf(power) * math.sqrt(decided - preference**2)
    return math.ceil(((by_chance + by_power) / preference) ** 2)
