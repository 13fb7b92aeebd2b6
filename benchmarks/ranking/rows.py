"""Fits and measures the rows of the ranking tables, including the bounds.

A row is fitted in a world and then measured. All rows that learn have the same
optimiser, budget and weight decay. The weight decay was chosen on the tuning worlds,
which only the tables `tuning-main` and `recipe` use. `benchmarks.ranking.learners`
builds the rows that learn.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from keras import ops
from scipy import special

from benchmarks.harness.tables import DIVERGED
from benchmarks.ranking.learners import LEARNERS
from benchmarks.ranking.protocol import (
    World,
    check_ndcg,
    chosen,
    click_metrics,
    predicted_logits,
    prepared,
    ranking_metrics,
    scores,
    trained,
)
from benchmarks.ranking.truths import beliefs
from debias.data.layout import layout_of
from debias.models import ClickModel, Mixture
from debias.training import TrainingConfig
from debias.training.choice import BOOSTED
from debias.training.fitting import Diverged
from debias.training.trees import trial_trees
from debias.types import Place, Tensor
from simulators.clicks import item_attraction
from simulators.oracle import conditional_click_probability, ideal_score
from simulators.populations import Observed


class Fit(NamedTuple):
    """A fitted row, and the world as this row sees it."""

    validation: float  # mean log-likelihood of its target on the validation split
    model: ClickModel
    world: World


def fit(row: str, world: World, config: TrainingConfig) -> Fit:
    """Trains one row of `LEARNERS`."""
    build, view = LEARNERS[row]
    seen = view(world)
    model, validation = trained(seen, lambda seed: build(seed, seen), config)
    return Fit(validation, model, seen)


def _resolved(row: str, world: World, config: TrainingConfig) -> str:
    """The row itself; for `auto`, the row that `debias.select` chooses."""
    return chosen(world, config) if row == "auto" else row


def test_scores(row: str, world: World, config: TrainingConfig) -> np.ndarray:
    """(items,) scores that a row gives to the test items.

    Raises:
        Diverged: The training of the row diverged.
    """
    if row == "logging":
        return world.test.logging
    if row == "ceiling":
        return _ideal(world)
    row = _resolved(row, world, config)
    if row in BOOSTED:
        return trial_trees(*prepared(world)[:2])(world.test.data.features)
    _, model, seen = fit(row, world, config)
    return scores(model.score, seen.test.data)


def measure(row: str, world: World, config: TrainingConfig) -> dict[str, float]:
    """The metrics of one row in one world; only `diverged` if training diverged."""
    if row == "logging":  # needs no training, so a second NDCG costs least here
        check_ndcg(world.test.data, world.test.logging)
        return ranking_metrics(world, world.test.logging)
    if row == "ceiling":
        return _ceiling(world)
    try:
        row = _resolved(row, world, config)
        if row in BOOSTED:
            return ranking_metrics(world, test_scores(row, world, config))
        _, model, seen = fit(row, world, config)
    except Diverged:
        return {DIVERGED: 1.0}
    data = seen.test.data
    found = ranking_metrics(seen, scores(model.score, data))
    if row.startswith("full_information"):
        return found
    found |= beliefs(model, seen)
    stands = layout_of(seen.train.log).places
    for rule, other in alternatives(model, stands).items():
        ranking = ranking_metrics(seen, scores(other, data))
        found[f"ndcg@5_by_{rule}"] = ranking["ndcg@5"]
    if model.predicts_clicks:
        found |= click_metrics(seen.test.log, predicted_logits(model, seen.test))
    return found


def alternatives(
    model: ClickModel, stands: Sequence[Place]
) -> dict[str, Callable[[Tensor], Tensor]]:
    """Functions by which a mixture could also score items, by name."""
    if not (isinstance(model, Mixture) and model.predicts_clicks):
        return {}
    share = np.exp(np.asarray(model.log_prior()))
    parts = model.components

    def relevance(features: Tensor) -> Tensor:
        each = zip(share, parts, strict=True)
        return sum(p * part.score(features) for p, part in each)

    def places(features: Tensor) -> Tensor:
        each = (model.logits_at(features, place) for place in stands)
        return sum(ops.sigmoid(logits) for logits in each)

    largest = parts[int(share.argmax())].score
    return {"relevance": relevance, "places": places, "largest": largest}


# Bounds


def _ceiling(world: World) -> dict[str, float]:
    """Upper bound: the true attraction and the population's own probabilities."""
    log, gamma = world.test.log, _attraction(world)
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
    return ranking_metrics(world, _ideal(world)) | click_metrics(log, logits)


def _ideal(world: World) -> np.ndarray:
    """(items,) true attraction of the test items in this population."""
    return ideal_score(world.population, _attraction(world))


def _attraction(world: World) -> np.ndarray:
    return item_attraction(world.test.data, world.attraction)
