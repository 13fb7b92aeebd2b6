"""Tests of debias.propensity.bias_tower."""

import keras
import numpy as np
import pytest

from debias.layers import BiasTower, Tower
from debias.models import Additive, Product
from debias.propensity import estimate
from simulators.behaviours import PositionBased
from simulators.clicks import simulate
from simulators.policies import PlackettLuce, expert
from simulators.populations import Population
from simulators.queries import generate

DATA = generate(queries=8, seed=3, min_items=6, median_items=7, max_items=9)
THETA = (1.0, 0.6, 0.3)
X = np.random.default_rng(0).normal(size=(DATA.items, 3)).astype("float32")


def simulated(sessions):
    attraction = (1 / (1 + np.exp(1 - X @ [1.0, 0.5, -0.5]))).astype("float32")
    crowd = Population(((1.0, PositionBased(THETA)),))
    return simulate(DATA, PlackettLuce(expert, 1.0), crowd, sessions, 0, 3, attraction)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("kind", [Product, Additive])
def test_of_a_fitted_model_by_hand(kind):
    log = simulated(300)
    model = kind(Tower(hidden=(), seed=1), BiasTower({"position": 3}, seed=1))
    places = np.tile([1, 2, 3], (2, 1))
    model({"features": X[:6].reshape(2, 3, 3), "position": places, "mask": places > 0})
    bias = np.array([0.0, 1.2, -0.4, -2.0])
    next(v for v in model.bias.weights).assign(bias[:, None])
    found = estimate(log, "bias_tower", features=X, model=model)
    if kind is Product:  # whatever the items
        want = sigmoid(bias[1:]) / sigmoid(bias[1])
    else:
        score = keras.ops.convert_to_numpy(model.score(X[log.item.ravel()]))
        mean = sigmoid(score[:, None] + bias[1:]).mean(axis=0)
        want = mean / mean[0]
    np.testing.assert_allclose(found.examination, want, rtol=1e-5)
    assert found.interval == "none" and np.isnan(found.upper).all()


def test_fits_a_model_that_is_not_fitted():
    log = simulated(4000)
    found = estimate(log, "bias_tower", features=X, epochs=12, seed=1)
    np.testing.assert_allclose(found.examination, THETA, atol=0.1)


def test_rejects():
    with pytest.raises(ValueError, match="item must be below 2"):
        estimate(simulated(20), "bias_tower", features=X[:2])
