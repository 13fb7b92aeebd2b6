"""The learning rows of the tables of rankers: from a seed and a world to a model.

Every row has the same relevance tower. A row looks at features, layout and clicks of
the training log; those with `known` in their names are told how users examine.
"""

from collections.abc import Callable

import numpy as np

from benchmarks.protocol import World
from debias.candidates import CANDIDATES, Layout, layout_of, relevance
from debias.layers import BiasTower
from debias.models import (
    ClickModel,
    DoublyRobust,
    DualLearning,
    InverseWeighted,
    PairDebias,
    RegressionEM,
)
from debias.propensity import estimate
from simulators.oracle import click_probability

Builder = Callable[[int, World], ClickModel]


def bias(seed: int, world: World) -> BiasTower:
    return BiasTower(layout_of(world.train.log).columns, seed=seed)


def known_examination(world: World) -> tuple[list[float], list[float]]:
    """alpha and beta of the crowd: P(click) = alpha gamma + beta at each position.

    Exact where items do not compete for clicks; elsewhere, of items shown alone.
    """
    alone = np.eye(world.train.log.list_size)  # attraction 1 at one place, else 0
    low, high = (
        click_probability(world.population, attraction).diagonal()
        for attraction in (0 * alone, alone)
    )
    return (high - low).tolist(), low.tolist()


def estimated_examination(world: World) -> list[float]:
    """Examination over that of the first place, from the training clicks.

    Places of which the log tells nothing get what their neighbours have.
    """
    found = estimate(world.train.log, "all_pairs", interval="none")
    told = np.isfinite(found.examination)
    values = np.interp(found.position, found.position[told], found.examination[told])
    return values.tolist()


def softmax_naive(seed: int, world: World) -> ClickModel:
    """The ranker that takes clicks for relevance, listwise."""
    seen = [1.0] * world.train.log.list_size
    return InverseWeighted(relevance(seed), seen, listwise=True)


def ips_known(seed: int, world: World, listwise: bool = False) -> ClickModel:
    alpha, _ = known_examination(world)
    return InverseWeighted(relevance(seed), alpha, listwise=listwise)


def ips_estimated(seed: int, world: World, listwise: bool = False) -> ClickModel:
    examination = estimated_examination(world)
    return InverseWeighted(relevance(seed), examination, listwise=listwise)


def affine_known(seed: int, world: World, listwise: bool = False) -> ClickModel:
    alpha, beta = known_examination(world)
    return InverseWeighted(relevance(seed), alpha, beta, listwise)


def doubly_robust_known(seed: int, world: World) -> ClickModel:
    alpha, beta = known_examination(world)
    direct = relevance(seed + 1_000_000)
    return DoublyRobust(relevance(seed), direct, alpha, beta)


def regression_em(seed: int, world: World) -> ClickModel:
    return RegressionEM(relevance(seed), bias(seed, world))


def dual_learning(seed: int, world: World) -> ClickModel:
    return DualLearning(relevance(seed), bias(seed, world))


def pair_debias(seed: int, world: World) -> ClickModel:
    return PairDebias(relevance(seed), world.train.log.list_size)


def _of_clicks(build: Callable[[Layout, int], ClickModel]) -> Builder:
    return lambda seed, world: build(layout_of(world.train.log), seed)


LEARNERS: dict[str, Builder] = {
    **{name: _of_clicks(build) for name, build in CANDIDATES.items()},
    "softmax_naive": softmax_naive,
    "ips_known": ips_known,
    "ips_estimated": ips_estimated,
    "ips_known_softmax": lambda seed, world: ips_known(seed, world, True),
    "ips_estimated_softmax": lambda seed, world: ips_estimated(seed, world, True),
    "affine_known": affine_known,
    "affine_known_softmax": lambda seed, world: affine_known(seed, world, True),
    "doubly_robust_known": doubly_robust_known,
    "regression_em": regression_em,
    "dual_learning": dual_learning,
    "pair_debias": pair_debias,
}
