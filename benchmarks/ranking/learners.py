"""Builders of the models that the ranking tables train.

Rows have the same relevance tower, unless their names say otherwise. A row reads
features, layout and clicks of the training log. Rows with `known` in their names also
receive the true examination probabilities. The `view` of a row is a function that
changes the world before training.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from benchmarks.ranking.protocol import Split, World
from benchmarks.ranking.two_stage import (
    CellWeighted,
    ControlFunction,
    Unconfounded,
    examined_by_dcm,
    first_stage,
)
from benchmarks.ranking.variants import VARIANTS
from debias.data import ClickLog, RankingData
from debias.data.layout import Layout, layout_of
from debias.engine.tensors import lookup
from debias.layers import BiasTower, Tower
from debias.losses import click_cross_entropy, softmax_cross_entropy
from debias.models import (
    ClickModel,
    Disentangled,
    DoublyRobust,
    DualLearning,
    InverseWeighted,
    Listwise,
    PairDebias,
    Product,
    RegressionEM,
)
from debias.models.builders import INIT_STD, relevance
from debias.models.click_model import intercepts_of, to_cells
from debias.presets import PRESETS
from debias.propensity import estimate, policy_weights
from debias.types import Batch, Tensor
from simulators.behaviours import Behaviour
from simulators.clicks import item_attraction
from simulators.oracle import click_probability
from simulators.populations import Population

Builder = Callable[[int, World], ClickModel]


def unchanged(world: World) -> World:
    return world


class Learner(NamedTuple):
    """A row that learns: builder of its model, and the change of its world."""

    build: Builder
    view: Callable[[World], World] = unchanged


def bias(seed: int, world: World) -> BiasTower:
    return BiasTower(layout_of(world.train.log).columns, seed=seed)


def known_examination(world: World) -> tuple[list[float], list[float]]:
    """alpha and beta of each position, where P(click) = alpha attraction + beta.

    The values of alpha and beta are exact if items do not compete for clicks. If items
    compete, the values apply to an item whose neighbours have attraction 0.
    """
    return examination_of(world.population, world.train.log.list_size)


def examination_of(
    population: Population, list_size: int
) -> tuple[list[float], list[float]]:
    """alpha and beta of a population, see `known_examination`."""
    alone = np.eye(list_size)  # attraction 1 at one place, and 0 elsewhere
    low, high = (
        click_probability(population, attraction).diagonal()
        for attraction in (0 * alone, alone)
    )
    return (high - low).tolist(), low.tolist()


def estimated_examination(world: World) -> list[float]:
    """Examination relative to the first position, estimated from training clicks.

    The examination of positions that the log does not identify is interpolated from
    neighbouring positions.
    """
    found = estimate(world.train.log, "all_pairs", interval="none")
    known = np.isfinite(found.examination)
    values = np.interp(found.position, found.position[known], found.examination[known])
    return values.tolist()


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


def control_function(seed: int, world: World) -> ClickModel:
    stage = first_stage(world.train)
    return ControlFunction(relevance(seed), stage.slope, stage.constant, stage.error)


def upe(seed: int, world: World) -> ClickModel:
    stage, positions = first_stage(world.train), world.train.log.list_size
    told = positions, stage.slope, stage.constant, stage.ranks
    return Unconfounded(relevance(seed), Tower((8,), seed=seed), *told)


def disentangled(seed: int, world: World) -> ClickModel:
    columns = layout_of(world.train.log).columns
    place = BiasTower(columns, out=4, init_std=INIT_STD, seed=seed)
    return Disentangled(relevance(seed), place, seed=seed)


# Rows that see the world in their own way


def weighted(world: World) -> World:
    """Weights an impression by the inverse frequency of its item at its rank."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a log in fixed order is a row
        weight = policy_weights(world.train.log).weight
    return world._replace(train=world.train._replace(weight=weight))


def omitted(world: World) -> World:
    """Hides every second feature, although the logging policy used these features."""

    def halved(split: Split) -> Split:
        data = split.data
        return split._replace(data=replace(data, features=data.features[:, ::2]))

    train, validation, test = map(halved, world.splits)
    return world._replace(train=train, validation=validation, test=test)


def clicked(world: World) -> World:
    """Keeps only training and validation sessions with a click."""

    def some(split: Split) -> Split:
        return split._replace(
            log=split.log.take(np.flatnonzero(split.log.click.any(1)))
        )

    return world._replace(train=some(world.train), validation=some(world.validation))


class Known(ClickModel):
    """A click model that knows the true user behaviour and learns relevance.

    P(click) = examination (low + (high - low) sigmoid(r(x))). Here, low and high are
    click probabilities after examination: low for attraction 0, high for attraction 1.
    They depend on the position of the item and on the type of the user. `context`,
    `(batch, 3 list_size)`, contains examination, low and high.
    """

    def __init__(self, relevance: keras.layers.Layer, listwise: bool = False):
        super().__init__({"relevance": relevance})
        self.relevance, self.listwise = relevance, listwise
        self.predicts_clicks = not listwise

    def call(self, batch: Mapping[str, Tensor], training: bool = False) -> Tensor:
        examination, low, high = ops.split(batch["context"], 3, axis=-1)
        logits = self.relevance(batch["features"])[..., 0]
        wanted = ops.sigmoid(to_cells(logits, batch))
        p = ops.clip(examination * (low + (high - low) * wanted), 1e-6, 1 - 1e-6)
        return ops.log(p) if self.listwise else ops.log(p) - ops.log1p(-p)

    def intercepts(self) -> list[tuple[Any, Any]]:
        return [] if self.listwise else intercepts_of(self.relevance)

    def session_losses(
        self, batch: Batch, clicks: Tensor, outputs: Tensor, training: bool = False
    ) -> Tensor:
        """Cross-entropy of each click or, if `listwise`, of a softmax over the list."""
        if self.listwise:
            return softmax_cross_entropy(clicks, outputs)
        return super().session_losses(batch, clicks, outputs, training)

    def score(self, features: Tensor) -> Tensor:
        return self.relevance(features)[..., 0]


class Told(ClickModel):
    """A tower that is trained on the true attraction of every item.

    The tower learns what infinitely many unbiased clicks would show. `context`,
    `(batch, list_size)`, contains the attractions.
    """

    def __init__(self, relevance: keras.layers.Layer, listwise: bool = False):
        super().__init__({"relevance": relevance})
        self.relevance, self.listwise = relevance, listwise
        self.predicts_clicks = not listwise

    def call(self, batch: Batch, training: bool = False) -> Tensor:
        return to_cells(self.relevance(batch["features"])[..., 0], batch)

    def session_losses(
        self, batch: Batch, clicks: Tensor, outputs: Tensor, training: bool = False
    ) -> Tensor:
        """Cross-entropy of attraction or, if `listwise`, of a softmax over the list."""
        wanted = ops.where(clicks < 0, -1.0, batch["context"])
        loss = softmax_cross_entropy if self.listwise else click_cross_entropy
        return loss(wanted, outputs)

    def score(self, features: Tensor) -> Tensor:
        return self.relevance(features)[..., 0]


DEALS = 5  # random divisions of a query's items into lists


def graded(world: World) -> World:
    """A world whose lists show all items of every query, with their attraction.

    Lists are random and have the length of the logged lists. The test split does not
    change.
    """

    def dealt(split: Split, number: int) -> Split:
        data, log = split.data, split.log
        rng = np.random.default_rng([number, data.items])
        query, item = [], []
        for _ in range(DEALS):
            shuffled = np.lexsort((rng.random(data.items), data.query_of_item()))
            for q, own in enumerate(np.split(shuffled, data.offsets[1:-1])):
                rows = -(-len(own) // log.list_size)
                lists = np.full(rows * log.list_size, -1, np.int32)
                lists[: len(own)] = own
                item.append(lists.reshape(rows, log.list_size))
                query.append(np.full(rows, q))
        items = np.concatenate(item)
        attraction = item_attraction(data, world.attraction)
        told = np.where(items < 0, 0.0, attraction[items])
        unclicked = np.zeros(items.shape, bool)
        dealt_log = ClickLog(np.concatenate(query), items, unclicked, context=told)
        return split._replace(log=dealt_log)

    train, validation = dealt(world.train, 0), dealt(world.validation, 1)
    return world._replace(train=train, validation=validation)


def known_context(log: ClickLog, behaviours: tuple[Behaviour, ...]) -> np.ndarray:
    """(S, 3 L) examination, and click probabilities at attraction 0 and at 1."""
    assert log.user_type is not None and log.examination is not None
    ends = [
        np.stack([b.perceive(np.full((1, log.list_size), end))[0] for b in behaviours])
        for end in (0.0, 1.0)
    ]
    low, high = (end[log.user_type] for end in ends)
    examination = np.where(log.mask, log.examination, 0.5)
    return np.concatenate([examination, low, high], axis=1).astype("float32")


def informed(world: World) -> World:
    """Adds `known_context` to every session."""
    behaviours = world.population.behaviours

    def with_context(split: Split) -> Split:
        context = known_context(split.log, behaviours)
        return split._replace(log=replace(split.log, context=context))

    train, validation, test = map(with_context, world.splits)
    return world._replace(train=train, validation=validation, test=test)


class PerItem(keras.layers.Layer):
    """A separate relevance logit for each item number."""

    def __init__(self, items: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.table = self.add_weight(shape=(items, 1), initializer="zeros")

    def call(self, features: Tensor, training: bool = False) -> Tensor:
        return lookup(self.table, ops.cast(features[..., 0], "int32"))


def numbered(world: World) -> World:
    """Replaces features by item numbers; the training log provides all three splits."""
    data, log = world.train.data, world.train.log
    own = np.arange(data.items, dtype="float32")[:, None]
    items = RankingData(own, data.labels, data.offsets, data.qid, data.max_grade)
    count = log.sessions
    ends = [0, 2 * count // 3, 5 * count // 6, count]
    logs = [log.take(np.arange(start, end)) for start, end in pairwise(ends)]
    train, validation, test = (Split(items, world.train.logging, part) for part in logs)
    return world._replace(train=train, validation=validation, test=test)


def per_item(seed: int, world: World) -> ClickModel:
    return Product(PerItem(world.train.data.items), bias(seed, world))


def _of_clicks(build: Callable[[Layout, int], ClickModel]) -> Builder:
    return lambda seed, world: build(layout_of(world.train.log), seed)


BUILDERS: Mapping[str, Builder] = {
    **{name: _of_clicks(preset.build) for name, preset in PRESETS.items()},
    **{name: _of_clicks(build) for name, build in VARIANTS.items()},
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
    "control_function": control_function,
    "control_function_softmax": lambda seed, world: Listwise(
        control_function(seed, world)
    ),
    "upe": upe,
}

LEARNERS: Mapping[str, Learner] = {
    **{name: Learner(build) for name, build in BUILDERS.items()},
    "oracle_examination": Learner(lambda seed, _: Known(relevance(seed)), informed),
    "oracle_listwise": Learner(lambda seed, _: Known(relevance(seed), True), informed),
    "full_information": Learner(lambda seed, _: Told(relevance(seed)), graded),
    "full_information_softmax": Learner(
        lambda seed, _: Told(relevance(seed), True), graded
    ),
    "mixture_clicked": Learner(BUILDERS["mixture"], clicked),
    "product_weighted": Learner(BUILDERS["product"], weighted),
    "product_linear_weighted": Learner(BUILDERS["product_linear"], weighted),
    "product_omitted": Learner(BUILDERS["product"], omitted),
    "product_omitted_weighted": Learner(
        BUILDERS["product"], lambda world: weighted(omitted(world))
    ),
    "disentangled": Learner(disentangled),
    "per_item": Learner(per_item, numbered),
    "ips_dcm_softmax": Learner(
        lambda seed, _: CellWeighted(relevance(seed)), examined_by_dcm
    ),
}
"""Every row that learns. Rows named `full_information...` learn from grades."""
