"""Coverage of confidence intervals of examination.

For each replication, a new log is simulated, and each estimator gives intervals for
examination. The coverage is the share of intervals that contain the true value. The
coverage of 95% intervals should be 95%.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from benchmarks.ranking.settings import part_seed

THETA = (1.0, 0.7, 0.5, 0.35, 0.25)
REPLICATIONS, REPLICATES = 20, 25


@dataclass(frozen=True)
class Kind:
    """A kind of log: an expert ranker shows five items to position-based users."""

    queries: int
    sessions: int
    policy: str
    temperature: float = 1.0


# Pairs with hundreds of impressions, with dozens, and in marked swaps; and random
# lists, in which click rates equal examination.
KINDS: Mapping[str, Kind] = {
    "many": Kind(8, 3000, "plackett_luce"),
    "few": Kind(150, 3000, "plackett_luce"),
    "swaps": Kind(8, 3000, "rand_pair", 0.7),
    "random": Kind(8, 3000, "uniform"),
}


@dataclass(frozen=True)
class Coverage:
    """One estimator with one kind of interval, on one kind of log."""

    method: str
    interval: str
    population: str

    @property
    def row(self) -> str:
        return f"{self.method}/{self.interval}"

    def settings(self) -> dict[str, Any]:
        own = {"theta": THETA, "replications": REPLICATIONS}
        if self.interval == "bootstrap":
            own["replicates"] = REPLICATES
        return {**asdict(KINDS[self.population]), **own}

    def measure(self, seed: int, data: str | None) -> dict[str, float]:
        """Share of intervals that contain the true value, over identified ranks."""
        inside = np.array(
            [
                self.replicate(part_seed(seed, number, REPLICATIONS))
                for number in range(REPLICATIONS)
            ]
        )
        every = {"coverage": np.nanmean(inside), "told": np.isfinite(inside).mean()}
        with np.errstate(invalid="ignore"):
            claimed = np.isfinite(inside).any(axis=0)
        ranks = {
            f"rank@{k + 2}": np.nanmean(inside[:, k]) for k in np.flatnonzero(claimed)
        }
        return {name: float(value) for name, value in {**every, **ranks}.items()}

    def replicate(self, seed: int) -> np.ndarray:
        """(ranks - 1,) 1 if an interval holds the truth, 0 if not, nan without one."""
        from debias.propensity import estimate

        log, features = simulated(self.method, self.population, seed)
        options: dict[str, Any] = {"interval": self.interval, "seed": seed}
        if self.interval == "bootstrap":
            options["replicates"] = REPLICATES
        if self.population == "swaps":
            options["source"] = "swap"
        found = estimate(log, self.method, features=features, **options)
        inside = (found.lower <= THETA) & (np.array(THETA) <= found.upper)
        return np.where(np.isnan(found.lower), np.nan, inside)[1:]


def simulated(method: str, population: str, seed: int) -> tuple[Any, Any]:
    """A simulated log, and features if the estimator `method` reads features.

    If the estimator reads features, attraction has the form that the estimator assumes:
    logistic in the features for regression-EM, log-linear for the dual learning
    algorithm.
    """
    from simulators.behaviours import PositionBased
    from simulators.clicks import simulate
    from simulators.policies import PlackettLuce, RandPair, expert
    from simulators.populations import Population
    from simulators.queries import generate

    kind = KINDS[population]
    sizes = {"min_items": 6, "median_items": 7, "max_items": 9}
    data = generate(queries=kind.queries, seed=seed, **sizes)
    x = np.random.default_rng(seed).normal(size=(data.items, 3))
    attraction: Any = {
        "regression_em": 1 / (1 + np.exp(1 - x @ [1.0, 0.5, -0.5])),
        "dla": np.exp(x @ [0.5, 0.3, -0.3] - 1.5).clip(0, 1),
    }.get(method)
    features = None if attraction is None else x
    policy: Any = {
        "plackett_luce": PlackettLuce(expert, kind.temperature),
        "rand_pair": RandPair(expert, kind.temperature, "all"),
        "uniform": PlackettLuce(lambda data: np.zeros(data.items), 1.0),
    }[kind.policy]
    crowd = Population(((1.0, PositionBased(THETA)),))
    attraction = "graded" if attraction is None else attraction.astype(np.float32)
    log = simulate(data, policy, crowd, kind.sessions, seed, len(THETA), attraction)
    return log, features


HARVESTS = ("pivot", "adjacent_chain", "all_pairs", "pbm_conditional")
CASES = (
    *(
        Coverage(method, interval, "many")
        for method in (*HARVESTS, "regression_em", "dla")
        for interval in ("delta", "bootstrap")
    ),
    *(Coverage(method, "delta", "few") for method in HARVESTS),
    *(Coverage(method, "delta", "swaps") for method in HARVESTS),
    *(Coverage("ctr", interval, "random") for interval in ("delta", "bootstrap")),
)
