"""Tests of debias.layers.tower."""

from math import log

import keras
import numpy as np
import pytest

from debias.layers import Standardize, Tower, symlog


def numbers(x):
    return keras.ops.convert_to_numpy(x)


def test_symlog_by_hand():
    x = np.array([-np.e + 1, 0.0, np.e**2 - 1], "float32")
    np.testing.assert_allclose(numbers(symlog(x)), [-log(np.e), 0.0, 2.0], rtol=1e-6)


def test_standardize_by_hand_and_a_constant_feature_becomes_zero():
    features = np.array([[0.0, 7.0], [np.e - 1, 7.0], [np.e**2 - 1, 7.0]], "float32")
    scaled = numbers(Standardize().adapt(features)(features))
    deviation = (2 / 3) ** 0.5  # of 0, 1, 2
    np.testing.assert_allclose(
        scaled, [[-1 / deviation, 0], [0, 0], [1 / deviation, 0]], atol=1e-5
    )


@pytest.mark.parametrize("bad", [np.zeros(3), np.zeros((0, 3))])
def test_standardize_rejects_what_is_no_table(bad):
    with pytest.raises(ValueError, match="features must be"):
        Standardize().adapt(bad)


def test_linear_tower_is_a_product_of_matrices():
    tower = Tower(hidden=(), out=2, seed=3)
    x = np.random.default_rng(0).normal(size=(4, 5, 3)).astype("float32")
    out = numbers(tower(x))
    kernel, bias = (numbers(weight) for weight in tower.weights)
    np.testing.assert_allclose(out, x @ kernel + bias, rtol=1e-5, atol=1e-6)


def test_a_seed_names_the_weights_and_layers_differ():
    x = np.ones((1, 6), "float32")
    first, again, other = (numbers(Tower((6,), 6, seed=s)(x)) for s in (1, 1, 2))
    assert (first == again).all() and (first != other).any()
    tower = Tower((6,), 6, seed=1)
    tower(x)
    assert (numbers(tower.weights[0]) != numbers(tower.weights[2])).any()


def test_dropout_only_in_training():
    tower = Tower((256,), dropout=0.5, seed=0)
    x = np.ones((1, 4), "float32")
    assert (numbers(tower(x)) == numbers(tower(x))).all()
    assert (numbers(tower(x, training=True)) != numbers(tower(x))).any()


def test_config_round_trip_keeps_every_argument():
    given = {
        "hidden": [5, 4],
        "out": 3,
        "activation": "tanh",
        "dropout": 0.25,
        "seed": 9,
    }
    restored = keras.layers.deserialize(keras.layers.serialize(Tower(**given)))
    assert given.items() <= restored.get_config().items()


@pytest.mark.parametrize("bad", [{"hidden": (0,)}, {"out": 0}, {"dropout": 1.0}])
def test_rejects(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Tower(**bad)
