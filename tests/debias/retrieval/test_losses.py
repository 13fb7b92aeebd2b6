"""Tests of debias.retrieval.losses."""

from math import exp, log

import keras
import numpy as np
import pytest
from keras import ops

from debias.retrieval.losses import RETRIEVAL_LOSSES, RetrievalLoss, hinge, logistic
from tests.gradient import gradient

every_loss = pytest.mark.parametrize("kind", RETRIEVAL_LOSSES)
SCORES = np.array([[1.0, 2.0, -1.0], [0.5, 0.5, 3.0]], "float32")
POSITIVE = np.array([1, 0])


def run(function, positive, scores, **options):
    positive, scores = ops.array(positive), ops.array(np.asarray(scores, "float32"))
    return ops.convert_to_numpy(function(positive, scores, **options))


def slope_of(function, scores):
    return gradient(lambda x: function(ops.array(POSITIVE), x + 0.0), scores)


def softplus(x):
    return log(1 + exp(x))


BY_HAND = {
    "softmax": [
        log(exp(1) + exp(2) + exp(-1)) - 2,
        log(exp(0.5) + exp(0.5) + exp(3)) - 0.5,
    ],
    "pointwise": [
        (softplus(-2) + softplus(1) + softplus(-1)) / 3,
        (softplus(-0.5) + softplus(0.5) + softplus(3)) / 3,
    ],
    "hinge": [(0.0 + 0.0) / 2, (1.0 + 3.5) / 2],
    "logistic": [
        (softplus(-1) + softplus(-3)) / 2,
        (softplus(0) + softplus(2.5)) / 2,
    ],
    "bpr": [
        -(log(1 / (1 + exp(-1))) + log(1 / (1 + exp(-3)))) / 2,
        -(log(1 / 2) + log(1 / (1 + exp(2.5)))) / 2,
    ],
}


@every_loss
def test_by_hand(kind):
    loss = run(RETRIEVAL_LOSSES[kind], POSITIVE, SCORES)
    np.testing.assert_allclose(loss, BY_HAND[kind], rtol=1e-5)


def test_margin_and_sigma_by_hand():
    np.testing.assert_allclose(
        run(hinge, [0], [[1.0, 0.5, -4.0]], margin=2.0), [(1.5 + 0.0) / 2], rtol=1e-6
    )
    np.testing.assert_allclose(
        run(logistic, [0], [[1.0, 2.0]], sigma=3.0), [softplus(3.0)], rtol=1e-6
    )


@every_loss
def test_masked_columns_change_nothing_in_value_or_gradient(kind):
    wide = np.concatenate([SCORES, np.full((2, 2), -1e9, "float32")], axis=1)
    function = RETRIEVAL_LOSSES[kind]
    np.testing.assert_allclose(
        run(function, POSITIVE, wide), run(function, POSITIVE, SCORES), rtol=1e-6
    )
    slope = slope_of(function, wide)
    plain = slope_of(function, SCORES)
    np.testing.assert_allclose(slope[:, :3], plain, atol=1e-6)
    assert (slope[:, 3:] == 0).all()


@every_loss
def test_gradient_by_difference(kind):
    function = RETRIEVAL_LOSSES[kind]
    scores = SCORES + np.array([0.03, 0.01, -0.02])  # away from the hinge's corner
    slope = slope_of(function, scores)
    for place in np.ndindex(*scores.shape):
        step = np.zeros_like(scores)
        step[place] = 1e-2
        up, down = (run(function, POSITIVE, scores + s).sum() for s in (step, -step))
        assert slope[place] == pytest.approx((up - down) / 2e-2, abs=2e-3)


@every_loss
def test_a_row_without_negatives_is_finite_and_a_batch_of_one_works(kind):
    loss = run(RETRIEVAL_LOSSES[kind], [0], [[2.0, -1e9]])
    assert np.isfinite(loss).all() and loss.shape == (1,)
    assert kind == "pointwise" or loss[0] == 0.0


@every_loss
def test_the_mean_over_the_batch_does_not_grow_with_it(kind):
    loss = RetrievalLoss(kind)
    once = float(loss(POSITIVE, SCORES))
    twice = float(loss(np.tile(POSITIVE, 2), np.tile(SCORES, (2, 1))))
    assert once == pytest.approx(twice, rel=1e-6)
    assert once == pytest.approx(np.mean(BY_HAND[kind]), rel=1e-5)


def test_config_round_trip_keeps_every_argument():
    given = {"kind": "hinge", "margin": 0.3, "sigma": 2.0, "name": "mine"}
    loss = keras.losses.deserialize(keras.losses.serialize(RetrievalLoss(**given)))
    assert given.items() <= loss.get_config().items()
    assert float(loss(ops.array([0]), ops.array([[1.0, 1.0]]))) == pytest.approx(0.3)


@pytest.mark.parametrize("bad", [{"kind": "sum"}, {"margin": -1.0}, {"sigma": 0.0}])
def test_rejects(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        RetrievalLoss(**bad)
