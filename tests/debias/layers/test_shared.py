"""A shared bottom: its outputs by hand, and what they share."""

import keras
import numpy as np
import pytest

from debias.layers import SharedBottom
from tests.gradient import gradient

X = np.random.default_rng(0).normal(size=(2, 4, 5)).astype("float32")


def numbers(x):
    return keras.ops.convert_to_numpy(x)


def test_outputs_are_heads_of_one_bottom():
    layer = SharedBottom((6,), (3,), out=2, seed=1)
    found = numbers(layer(X))
    w = [numbers(each) for each in layer.weights]
    shared = np.maximum(X @ w[0] + w[1], 0)
    for k, (a, b, c, d) in enumerate((w[2:6], w[6:10])):
        own = np.maximum(shared @ a + b, 0) @ c + d
        np.testing.assert_allclose(found[..., k], own[..., 0], rtol=1e-4, atol=1e-6)
    assert (w[2] != w[6]).any()


@pytest.mark.parametrize("bottom, heads", [((6,), (3,)), ((6, 4), ()), ((), (3,))])
def test_an_output_moves_the_bottom_and_its_own_head_alone(bottom, heads):
    layer = SharedBottom(bottom, heads, out=2, seed=1)
    layer(X)
    own = {id(w) for w in layer.towers[1].weights}
    before = [numbers(w) for w in layer.weights]
    inputs = keras.Input((None, 5))
    model = keras.Model(inputs, layer(inputs)[..., 1])
    model.compile(keras.optimizers.SGD(1.0), "mse")
    model.fit(X, np.ones((2, 4)), verbose=0)
    other = {id(w) for w in layer.towers[0].weights}
    for w, old in zip(layer.weights, before, strict=True):
        moved = (numbers(w) != old).any()
        assert moved == (id(w) not in other), (id(w) in own, w.path)


def test_configuration_and_shape():
    layer = SharedBottom((6,), (3, 2), out=3, activation="tanh", dropout=0.2, seed=4)
    config = layer.get_config()
    again = SharedBottom.from_config(config)
    assert again.get_config() == config
    assert layer.compute_output_shape((None, 4, 5)) == (None, 4, 3)
    np.testing.assert_allclose(numbers(layer(X)), numbers(again(X)), rtol=1e-6)
    assert (numbers(layer(X, training=True)) != numbers(layer(X))).any()
    assert gradient(lambda x: layer(x)[..., 0], X).shape == X.shape


def test_rejects():
    with pytest.raises(ValueError, match=r"must be positive, got \(0,\), \(3,\) and 2"):
        SharedBottom((0,), (3,))
    with pytest.raises(ValueError, match="dropout must be in"):
        SharedBottom(dropout=1.0)
