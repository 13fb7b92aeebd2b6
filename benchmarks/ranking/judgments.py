"""Compares judgments from clicks with other measures, and checks plans.

A judgment is good if it orders the items of a query by their true attraction. A plan is
correct if a log that follows the plan gives every rank the promised standard error.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from benchmarks.ranking.settings import part_seed

QUERIES, SESSIONS = 200, 50_000
TEMPERATURE = 0.5  # temperature of the logging policy
ENOUGH = 16  # impressions of a pair, from which it counts
REPLICATIONS = 10  # logs per plan
REVISIONS = {"judge": 4}


class Judged(NamedTuple):
    """One simulated log, its judgments, and the truth of each judged pair."""

    found: Any  # the judgments
    rank: np.ndarray  # (P,) mean rank at which the pair was shown
    attraction: np.ndarray  # (P,) true attraction
    at_top: np.ndarray  # (P,) click probability at rank 1


def simulated(population: str, seed: int) -> tuple[Any, Any]:
    """The items and the log of one seed."""
    from simulators.clicks import simulate
    from simulators.policies import PlackettLuce, weak_ranker
    from simulators.queries import generate

    data = generate(QUERIES, seed)
    policy = PlackettLuce(weak_ranker(data, seed=seed), TEMPERATURE)
    return data, simulate(data, policy, population, SESSIONS, seed)


@lru_cache(maxsize=1)
def judged(population: str, seed: int, told: bool = False) -> Judged:
    """The judgments of one seed; the last result is cached.

    Judgments use propensities that are estimated from the log. If `told`, they use the
    true examination and trust of the population instead.
    """
    from benchmarks.ranking.learners import examination_of
    from debias.propensity import Propensities, judge, propensities
    from debias.propensity.cells import cells
    from simulators.clicks import item_attraction
    from simulators.populations import named

    data, log = simulated(population, seed)
    crowd = named(population)
    alpha, beta = (np.array(v) for v in examination_of(crowd, log.list_size))
    found = judge(
        log, Propensities.of(alpha, trust=beta) if told else propensities(log)
    )
    counted = cells(log)
    rank = counted.by_pair(counted.shown * counted.rank) / counted.by_pair(
        counted.shown
    )
    assert counted.names is not None
    mean = np.zeros(data.items)
    mean[counted.names.item] = rank
    own = item_attraction(data)[found.item]
    return Judged(found, mean[found.item], own, beta[0] + alpha[0] * own)


@dataclass(frozen=True)
class Judgment:
    """One row: a measure of (query, item) pairs, on one population."""

    row: str
    population: str

    def settings(self) -> dict[str, Any]:
        size = {"queries": QUERIES, "sessions": SESSIONS, "temperature": TEMPERATURE}
        return {**size, "revision": REVISIONS.get(self.row, 3)}

    def measure(self, seed: int, data: str | None) -> dict[str, float]:
        if self.row == "impressions":
            query, count, truth = shown_often(self.population, seed)
            kept = count >= ENOUGH
            tau, tau_b = taus(query, count, truth)
            often = taus(query[kept], count[kept], truth[kept])[0]
            return {"tau": tau, "tau_b": tau_b, f"tau@{ENOUGH}": often}
        every = judged(self.population, seed, self.row == "judge_told")
        found = every.found
        name = self.row.removesuffix("_grades")
        values: Mapping[str, np.ndarray] = {
            "judge": found.attraction,
            "judge_told": found.attraction,
            "coec": found.coec,
            "ctr": found.ctr,
            "shown": -every.rank,
        }
        value = values[name]
        if name != self.row:
            value = replace(found, attraction=value).grades()
        tau, tau_b = taus(found.query, value, every.attraction)
        clicked = found.impressions >= ENOUGH
        some = taus(found.query[clicked], value[clicked], every.attraction[clicked])
        result = {"tau": tau, "tau_b": tau_b, f"tau@{ENOUGH}": some[0]}
        both = (found.query, value, every.attraction, found.ctr)
        result["tau_decided"] = taus(*both)[0]
        if self.row == "judge":
            inside = (found.low <= every.at_top) & (every.at_top <= found.high)
            result["coverage"] = float(inside.mean())
            result[f"coverage@{ENOUGH}"] = float(inside[clicked].mean())
        return result


def shown_often(
    population: str, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Query, impressions and attraction (P,) of each pair."""
    from debias.propensity.cells import cells
    from simulators.clicks import item_attraction

    data, log = simulated(population, seed)
    counted = cells(log)
    assert counted.names is not None
    order = np.argsort(counted.names.query, kind="stable")
    names = counted.names
    count = counted.by_pair(counted.shown)
    return names.query[order], count[order], item_attraction(data)[names.item[order]]


def taus(
    query: np.ndarray,
    value: np.ndarray,
    truth: np.ndarray,
    decided_by: np.ndarray | None = None,
) -> tuple[float, float]:
    """Means over queries of Somers' D and of Kendall's tau-b.

    Somers' D divides by the number of pairs that the truth orders, so a pair that the
    measure ties counts as if it were ordered at random. Tau-b divides by the geometric
    mean of two numbers: the number of pairs that the truth orders, and the number of
    pairs that the measure orders.

    Args:
        query: (P,) ascending.
        value, truth: (P,).
        decided_by: (P,) another measure. Two items count as a pair only if their values
            of this measure differ. With None, all pairs count.

    >>> found = taus(np.zeros(3, int), np.array([2.0, 1, 1]), np.array([3.0, 2, 1]))
    >>> np.round(found, 3).tolist()
    [0.667, 0.816]
    """
    found = []
    for rows in np.split(np.arange(len(query)), np.flatnonzero(np.diff(query)) + 1):
        one, two = (
            np.sign(np.subtract.outer(v[rows], v[rows])) for v in (value, truth)
        )
        if decided_by is not None:
            two = two * (np.subtract.outer(decided_by[rows], decided_by[rows]) != 0)
        agree, ordered, own = (one * two).sum(), np.abs(two).sum(), np.abs(one).sum()
        if ordered:
            root = np.sqrt(ordered * own)
            found.append((agree / ordered, agree / root if root else 0.0))
    mean = np.mean(found, axis=0)
    return float(mean[0]), float(mean[1])


JUDGMENTS = tuple(
    Judgment(row, population)
    for population in ("pbm", "mixed", "trust")
    for row in (
        "judge",
        "coec",
        "ctr",
        "shown",
        "impressions",
        "judge_grades",
        "coec_grades",
        "ctr_grades",
        "judge_told",
    )
)


@dataclass(frozen=True)
class Kept:
    """Whether logs that follow a plan reach the promised standard error.

    The plan is computed from a log in a fixed order. In the population "known", the
    plan also uses the true examination. In the population "bounds", it does not.
    """

    se: float
    population: str

    @property
    def row(self) -> str:
        return f"se-{self.se:g}"

    def settings(self) -> dict[str, Any]:
        return {"queries": 50, "sessions": 20_000, "replications": REPLICATIONS}

    def measure(self, seed: int, data: str | None) -> dict[str, float]:
        from debias.propensity import Propensities, estimate, plan
        from simulators.behaviours import PositionBased
        from simulators.clicks import simulate
        from simulators.policies import (
            Deterministic,
            Interleaved,
            RandPair,
            weak_ranker,
        )
        from simulators.queries import generate

        queries = generate(50, seed)
        ranker = weak_ranker(queries, seed=seed)
        still = Deterministic(ranker)
        before = simulate(queries, still, "pbm", 20_000, seed)
        truth = np.array(PositionBased().theta)
        known = None if self.population == "bounds" else Propensities.of(truth)
        found = plan(before, self.se, known=known)
        parts = [(e.share, RandPair(ranker, 1.0, (e.ranks,))) for e in found.exchanges]
        rest = 1 - sum(share for share, _ in parts)
        mixed = Interleaved(((rest, still), *parts))
        errors, off, lost = [], [], []
        for number in range(REPLICATIONS):
            own = part_seed(seed, number, REPLICATIONS)
            log = simulate(queries, mixed, "pbm", found.sessions, 10_000 + own)
            told = estimate(log, "pbm_conditional", source="swap")
            error = told.standard_error / told.examination
            errors.append(np.nan_to_num(error, nan=np.inf).max())
            off.append(np.log(told.examination * truth[0] / truth))
            assert log.swap is not None
            clicks = log.click.sum(axis=1)
            lost.append(1 - clicks.mean() / clicks[log.swap[:, 0] == 0].mean())
        return {
            "reached": float(np.mean(np.array(errors) <= self.se)),
            "worst_error": float(np.mean(errors) / self.se),
            "worst_off": float(
                np.sqrt(np.nanmean(np.square(off), axis=0).max()) / self.se
            ),
            "sessions": float(found.sessions),
            "clicks_lost": float(np.mean(lost)),
            "clicks_lost_at_most": found.cost_share,
        }


PLANS = tuple(
    Kept(se, population) for population in ("bounds", "known") for se in (0.1, 0.2)
)
