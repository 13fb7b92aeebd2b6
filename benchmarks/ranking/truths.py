"""Compares a fitted model with the truth of the simulator.

The functions return numbers for the tables, and the arrays that the figures draw.
"""

from typing import Any

import numpy as np
from scipy import special, stats
from sklearn.metrics import adjusted_rand_score

from benchmarks.ranking.protocol import Split, World
from debias.data.layout import layout_of
from debias.diagnosis.reference import reference_sensitivity
from debias.models import (
    XPA,
    Additive,
    BilinearModel,
    ClickModel,
    Disentangled,
    Dot,
    Mixture,
    PositionFeature,
    Product,
)
from debias.models.batches import batches
from simulators.behaviours import Grid
from simulators.oracle import click_probability

RANKED = 200  # test queries that are ranked at every reference place
WATCHED = 4096  # test sessions whose responsibilities are compared with types


def beliefs(model: ClickModel, world: World) -> dict[str, float]:
    """Results of the comparisons that apply to a model, by name.

    For mixtures, `type_rand_index` compares the most likely components with the true
    user types. For XPA, `attention_correlation` is Spearman's correlation of attention
    with the true influence of neighbours. For models with examination,
    `examination_error` is the mean absolute error of log examination relative to the
    first position. For models that rank at a reference position, `reference_tau` is
    Kendall's correlation of the served ranking with the ranking at the reference
    position that changes it most.
    """
    found: dict[str, float] = {}
    if isinstance(model, Mixture) and len(world.population.types) > 1:
        found["type_rand_index"] = type_rand_index(model, world.test)
    reads = isinstance(model, XPA) and "relevance" in model.heard
    if reads and isinstance(world.population.behaviours[0], Grid):
        learned, true = neighbours(model, world)
        apart = ~np.eye(len(true), dtype=bool)
        rho = stats.spearmanr(learned[apart], true[apart]).statistic
        found["attention_correlation"] = float(rho)
    if isinstance(model, Product | Additive | Disentangled):
        learned, true = examination(model, world)
        found["examination_error"] = float(np.abs(np.log(learned / true)).mean())
    if isinstance(model, Dot | BilinearModel | PositionFeature):
        some = world.test.data.select(np.arange(min(RANKED, world.test.data.queries)))
        places = layout_of(world.test.log).places
        found["reference_tau"] = float(reference_sensitivity(model, some, places).min())
    return found


def type_rand_index(model: Mixture, split: Split) -> float:
    """Adjusted Rand index of components and user types: 1 if equal, 0 if random."""
    part = split.log.take(np.arange(min(WATCHED, split.log.sessions)))
    sessions = batches(part, split.data, part.sessions, shuffle=False)
    batch, clicks = next(iter(sessions))
    likely = np.asarray(model.responsibilities(batch, clicks)).argmax(axis=1)
    return float(adjusted_rand_score(part.user_type, likely))


def neighbours(model: XPA, world: World) -> tuple[np.ndarray, np.ndarray]:
    """(L, L) attention of position k to position j, and true influence of j on k."""
    log = world.test.log
    batch, _ = next(iter(batches(log.take(np.arange(1)), world.test.data, 1)))
    crowd = world.population.behaviours[0]
    assert isinstance(crowd, Grid)
    return np.asarray(model.attention(batch))[0], crowd.influence(log.list_size)


def examination(
    model: Product | Additive | Disentangled, world: World
) -> tuple[np.ndarray, np.ndarray]:
    """(L,) learned and true examination relative to the first position.

    Learned examination is a ratio of sigmoids for the product model, and a ratio of
    odds for the additive and the disentangled model. True examination is the ratio of
    the population's click probabilities on a list whose items all have the mean
    attraction of shown items.
    """
    log = world.test.log
    batch, _ = next(iter(batches(log.take(np.arange(1)), world.test.data, 1)))
    entangled = not isinstance(model, Disentangled)
    logit = model.bias(batch)[..., 0] if entangled else model(batch)["bias"]
    logit = np.asarray(logit)[0].astype(float)
    learned = special.expit(logit) if isinstance(model, Product) else np.exp(logit)
    clicks = true_curve(world)
    return learned / learned[0], clicks / clicks[0]


def true_curve(world: World) -> np.ndarray:
    """(L,) P(click) on a list of items with the mean attraction of shown items."""
    log: Any = world.test.log
    mean = float(log.attraction[log.mask].mean())
    alike = np.full((1, log.list_size), mean)
    return click_probability(world.population, alike)[0]
