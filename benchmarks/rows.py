"""The rows of the tables of rankers: bounds, and how any row is fitted and measured.

A row is fitted in a world and then measured. All learning rows share one relevance
tower, one optimiser and one budget; only the learning rate is a row's own, chosen in
a tuning table on worlds that no other table uses. `benchmarks.learners` builds them.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import keras
import numpy as np
from keras import ops
from scipy import special

from benchmarks.experiments import Size
from benchmarks.learners import LEARNERS, relevance
from benchmarks.protocol import (
    World,
    click_metrics,
    predicted_logits,
    ranking_metrics,
    scores,
    trained,
)
from benchmarks.truths import beliefs
from debias.data import ClickLog
from debias.layers.tensors import Tensor
from debias.models import ClickModel
from simulators.behaviours import Behaviour
from simulators.clicks import item_attraction
from simulators.oracle import conditional_click_probability, ideal_score
from simulators.populations import Observed


class Fit(NamedTuple):
    """A fitted row: how it scores test items, and what it predicts of test clicks."""

    validation: float  # mean log-likelihood of its target on the validation split
    score: np.ndarray  # (items,) of the test queries
    logits: np.ndarray | None  # (S, L) of the test log, where the row predicts clicks
    beliefs: dict[str, float]  # what it believes of users, against the truth


def fit(row: str, world: World, size: Size, seed: int, rate: float) -> Fit:
    """Trains one learning row at one learning rate."""
    if row == "full_information":
        return _full_information(world, size, seed, rate)
    if row == "oracle_examination":
        return _oracle_examination(world, size, seed, rate)
    return _fit_clicks(world, size, seed, rate, lambda s: LEARNERS[row](s, world))


def _fit_clicks(
    world: World, size: Size, seed: int, rate: float, build: Callable[[int], ClickModel]
) -> Fit:
    model, validation = trained(world, size, seed, build, rate)
    logits = predicted_logits(model, world.test) if model.predicts_clicks else None
    score = scores(model, world.test.data)
    return Fit(validation, score, logits, beliefs(model, world))


def measure(
    row: str, world: World, size: Size, seed: int, rate: float
) -> dict[str, float]:
    """The metrics of one row in one world."""
    if row == "logging":
        return ranking_metrics(world, world.test.logging)
    if row == "ceiling":
        return _ceiling(world)
    fitted = fit(row, world, size, seed, rate)
    found = ranking_metrics(world, fitted.score) | fitted.beliefs
    if fitted.logits is not None:
        found |= click_metrics(world.test.log, fitted.logits)
    return found


# Bounds


def _ceiling(world: World) -> dict[str, float]:
    """What nobody can beat: the true attraction, and the crowd's own probabilities."""
    log, gamma = world.test.log, item_attraction(world.test.data)
    assert log.query is not None
    seen = Observed(log.query, log.device, log.context)
    p = conditional_click_probability(
        world.population,
        np.where(log.mask, gamma[log.item], 0.0),
        log.click,
        log.mask,
        observed=seen,
    )
    logits = special.logit(np.clip(p, 1e-12, 1 - 1e-12))
    score = ideal_score(world.population, gamma)
    return ranking_metrics(world, score) | click_metrics(log, logits)


def _full_information(world: World, size: Size, seed: int, rate: float) -> Fit:
    """The same tower fitted to the grades of all training items.

    It learns the attraction of each grade by cross-entropy: what clicks without any
    bias and without end would say of every item, shown or not.
    """
    keras.utils.set_random_seed(seed)
    model = keras.Sequential([relevance(seed)])
    model.compile(
        keras.optimizers.Adam(rate),
        keras.losses.BinaryCrossentropy(from_logits=True),
        jit_compile=False,
        steps_per_execution=50,
    )
    known = [item_attraction(part.data)[:, None] for part in world[1:3]]
    stop = keras.callbacks.EarlyStopping(
        patience=size.patience, restore_best_weights=True
    )
    history = model.fit(
        world.train.data.features,
        known[0],
        validation_data=(world.validation.data.features, known[1]),
        batch_size=2 * size.batch_size,
        validation_batch_size=8192,
        epochs=2 * size.epochs,
        callbacks=[stop],
        verbose=0,
    )
    score = model.predict(world.test.data.features, batch_size=8192, verbose=0)
    return Fit(-min(history.history["val_loss"]), score[:, 0], None, {})


class Known(ClickModel):
    """The click model in which all but relevance is known.

    P(click) = examination (low + (high - low) sigmoid(r(x))), with low and high what
    the session's kind of user makes of attractions 0 and 1 at that place. All three
    come packed in `context`, `(batch, 3 list_size)`.
    """

    def __init__(self, relevance: keras.layers.Layer):
        super().__init__({"relevance": relevance})
        self.relevance = relevance

    def call(self, batch: dict[str, Tensor], training: bool = False) -> Tensor:
        examination, low, high = ops.split(batch["context"], 3, axis=-1)
        wanted = ops.sigmoid(self.relevance(batch["features"])[..., 0])
        p = ops.clip(examination * (low + (high - low) * wanted), 1e-6, 1 - 1e-6)
        return ops.log(p) - ops.log1p(-p)

    def score(self, features: Tensor) -> Tensor:
        return self.relevance(features)[..., 0]


def known_context(log: ClickLog, behaviours: tuple[Behaviour, ...]) -> np.ndarray:
    """(S, 3 L) examination of each cell, and its user's view of attractions 0 and 1."""
    assert log.user_type is not None and log.examination is not None
    ends = [
        np.stack([b.perceive(np.full((1, log.list_size), end))[0] for b in behaviours])
        for end in (0.0, 1.0)
    ]
    low, high = (end[log.user_type] for end in ends)
    examination = np.where(log.mask, log.examination, 0.5)
    return np.concatenate([examination, low, high], axis=1).astype("float32")


def _oracle_examination(world: World, size: Size, seed: int, rate: float) -> Fit:
    behaviours = world.population.behaviours
    splits = [
        split._replace(log=_with_context(split.log, behaviours)) for split in world[1:]
    ]
    informed = World(world.population, *splits)
    return _fit_clicks(informed, size, seed, rate, lambda s: Known(relevance(s)))


def _with_context(log: ClickLog, behaviours: tuple[Behaviour, ...]) -> ClickLog:
    return replace(log, context=known_context(log, behaviours))
