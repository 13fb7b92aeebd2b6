"""Corrections in two stages: the first by arithmetic, the second by its contracts."""

import keras
import numpy as np
import pytest

from benchmarks.ranking.protocol import Split, World, world
from benchmarks.ranking.settings import Size
from benchmarks.ranking.two_stage import (
    RIDGE,
    CellWeighted,
    ControlFunction,
    Unconfounded,
    examined_by_dcm,
    first_stage,
)
from debias.data import ClickLog, RankingData
from debias.layers import Tower
from debias.losses.corrected import dual_learning

RNG = np.random.default_rng(2)


def numbers(x):
    return keras.ops.convert_to_numpy(x)


def test_the_first_stage_is_a_ridge_regression_of_rank_over_impressions():
    features = RNG.normal(size=(6, 2)).astype("float32")
    item = np.array([[0, 1, 2], [2, 3, -1], [5, 4, 0]])
    log = ClickLog([0, 0, 0], item, np.zeros(item.shape, bool))
    stage = first_stage(Split(RankingData(features, None, [0, 6]), np.zeros(6), log))
    x = features[item[item >= 0]].astype(float)
    y = np.array([1, 2, 3, 1, 2, 1, 2, 3.0])
    centred = x - x.mean(axis=0)
    gram = centred.T @ centred + RIDGE * np.eye(2)
    slope = np.linalg.solve(gram, centred.T @ (y - y.mean()))
    assert stage.slope == pytest.approx(slope)
    expected = x @ slope + stage.constant
    assert stage.constant == pytest.approx(y.mean() - x.mean(axis=0) @ slope)
    assert stage.error == pytest.approx((y - expected).std())
    assert stage.ranks[4] == pytest.approx(np.median(expected))


class Sum(keras.layers.Layer):
    """The sum of what it is given."""

    def call(self, x, training=False):
        return keras.ops.sum(x, axis=-1, keepdims=True)


def test_the_second_stage_reads_the_residual_and_serves_without():
    model = ControlFunction(Sum(), slope=[0.5, 0.0], constant=1.0, error=2.0)
    features = np.array([[[1.0, 3.0], [2.0, 4.0]]], "float32")
    batch = {"features": features, "position": np.array([[1, 5]])}
    # Residuals (1 - 1.5) / 2 and (5 - 2) / 2.
    np.testing.assert_allclose(numbers(model(batch)), [[4 - 0.25, 6 + 1.5]], rtol=1e-6)
    np.testing.assert_allclose(numbers(model.score(features)), [[4, 6]], rtol=1e-6)


class Table(keras.layers.Layer):
    """g = 1 / rank - 3 score, of one-hot ranks 0 to 3 and a score."""

    def call(self, x, training=False):
        ranks = np.array([[9.0], [1.0], [0.5], [1 / 3]], "float32")
        return x[..., :4] @ ranks - 3 * x[..., 4:]


def test_weights_of_the_ranker_are_averaged_over_logging_scores():
    told = {"positions": 3, "slope": [3.0], "constant": 0.0, "ranks": [1.0, 2.0]}
    model = Unconfounded(Sum(), Table(), **told)
    features = np.array([[[0.1], [0.4], [0.2]]], "float32")
    batch = {"features": features, "position": np.array([[1, 2, 3]])}
    outputs = {name: numbers(each) for name, each in model(batch).items()}
    by_rank, score = np.array([1, 0.5, 1 / 3]), np.array([0.1, 0.4, 0.2])
    np.testing.assert_allclose(outputs["bias"], [by_rank - 3 * score], rtol=1e-5)
    means = np.log((np.exp(-1) + np.exp(-2)) / 2)  # of exp(-3 rank / 3)
    np.testing.assert_allclose(outputs["rank_alone"], [by_rank + means], rtol=1e-5)
    clicks = np.array([[0.0, 1.0, 1.0]], "float32")
    loss = numbers(model.session_losses(batch, clicks, outputs))
    first = batch["position"] == 1
    each = (
        numbers(dual_learning(clicks, outputs["relevance"], outputs[name], first))
        for name in ("rank_alone", "bias")
    )
    np.testing.assert_allclose(loss, sum(each), rtol=1e-6)


def test_clicks_are_weighed_by_the_examination_of_their_cell():
    model = CellWeighted(Tower((), seed=1), clip=4.0)
    features = RNG.normal(size=(1, 3, 2)).astype("float32")
    examined = np.array([[1.0, 0.5, 0.1]], "float32")
    batch = {"features": features, "context": examined}
    clicks = np.array([[0.0, 1.0, 1.0]], "float32")
    z = numbers(model(batch))[0]
    share = np.log(np.exp(z) / np.exp(z).sum())
    loss = numbers(model.session_losses(batch, clicks, model(batch)))
    np.testing.assert_allclose(loss, [-2 * share[1] - 4 * share[2]], rtol=1e-5)


def test_examination_of_dependent_clicks_is_recovered():
    """On users of that model, whose examination the log knows."""
    found: World = world("dcm", 3, None, Size(queries=20, sessions=8000))
    seen = examined_by_dcm(found)
    for split, truth in (
        (seen.train, found.train),
        (seen.validation, found.validation),
    ):
        mask = truth.log.mask
        error = split.log.context[mask] - truth.log.examination[mask]
        assert np.abs(error).mean() < 0.06
    assert seen.test is found.test
