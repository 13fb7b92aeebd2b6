"""Functions that build the models in the table `debias.presets.CORRECTIONS`.

Each function takes the layout of a log, a seed, and known examination probabilities.
The relevance towers have the same layers as those of the click models.
"""

from typing import NamedTuple

from debias.data.layout import Layout
from debias.models.builders import bias, relevance
from debias.models.click_model import ClickModel
from debias.models.corrected import (
    DoublyRobust,
    DualLearning,
    InverseWeighted,
    PairDebias,
    RegressionEM,
)

APART = 1_000_000  # distance between the seeds of two towers of a model


class Known(NamedTuple):
    """Known parameters of P(click) = beta_k + alpha_k attraction at rank k.

    Attributes:
        alpha: Examination probability at each rank, or empty if unknown.
        beta: Click probability at each rank for attraction 0. None means 0.
        clip: Largest weight.
    """

    alpha: tuple[float, ...] = ()
    beta: tuple[float, ...] | None = None
    clip: float = 10.0


def ips(layout: Layout, seed: int, known: Known) -> ClickModel:
    return _weighted(layout, seed, known._replace(beta=None))


def ips_listwise(layout: Layout, seed: int, known: Known) -> ClickModel:
    return _weighted(layout, seed, known._replace(beta=None), listwise=True)


def affine(layout: Layout, seed: int, known: Known) -> ClickModel:
    return _weighted(layout, seed, known)


def affine_listwise(layout: Layout, seed: int, known: Known) -> ClickModel:
    return _weighted(layout, seed, known, listwise=True)


def doubly_robust(
    layout: Layout, seed: int, known: Known, listwise: bool = False
) -> ClickModel:
    ranks, guesses = (relevance(s, kinds=layout.kinds) for s in (seed, seed + APART))
    return DoublyRobust(ranks, guesses, known.alpha, known.beta, listwise, known.clip)


def doubly_robust_listwise(layout: Layout, seed: int, known: Known) -> ClickModel:
    return doubly_robust(layout, seed, known, listwise=True)


def _weighted(
    layout: Layout, seed: int, known: Known, listwise: bool = False
) -> ClickModel:
    tower = relevance(seed, kinds=layout.kinds)
    return InverseWeighted(tower, known.alpha, known.beta, listwise, known.clip)


def regression_em(layout: Layout, seed: int, known: Known) -> ClickModel:
    tower = relevance(seed, kinds=layout.kinds)
    return RegressionEM(tower, bias(layout, seed=seed))


def dual_learning(layout: Layout, seed: int, known: Known) -> ClickModel:
    tower = relevance(seed, kinds=layout.kinds)
    return DualLearning(tower, bias(layout, seed=seed), clip=known.clip)


def pair_debias(layout: Layout, seed: int, known: Known) -> ClickModel:
    return PairDebias(relevance(seed, kinds=layout.kinds), layout.columns["position"])
