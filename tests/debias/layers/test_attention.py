"""Tests of debias.layers.attention."""

import keras
import numpy as np
import pytest

from debias.layers import CrossPositionAttention

RNG = np.random.default_rng(0)
VALUES = RNG.normal(size=(2, 4, 3)).astype("float32")
PLACES = RNG.normal(size=(2, 4, 5)).astype("float32")
SHOWN = np.array([[1, 1, 1, 1], [1, 1, 1, 0]], bool)


def numbers(x):
    return keras.ops.convert_to_numpy(x)


@pytest.mark.parametrize("attend_self", [False, True])
def test_output_and_weights_by_loops(attend_self):
    layer = CrossPositionAttention(dim=6, out=2, attend_self=attend_self, seed=1)
    out, weights = map(numbers, layer(VALUES, PLACES, SHOWN))
    query, key = (numbers(d(PLACES)) for d in (layer.query, layer.key))
    value = VALUES @ numbers(layer.value.kernel)
    for b in range(2):
        for i in range(4):
            heard = [j for j in range(4) if SHOWN[b, j] and (attend_self or j != i)]
            match = np.array([query[b, i] @ key[b, j] / 6**0.5 for j in heard])
            share = np.exp(match) / np.exp(match).sum()
            np.testing.assert_allclose(weights[b, i, heard], share, rtol=1e-4)
            np.testing.assert_allclose(weights[b, i].sum(), 1, rtol=1e-5)
            np.testing.assert_allclose(
                out[b, i], share @ value[b, heard], rtol=1e-3, atol=1e-5
            )


def test_padding_is_never_heard():
    layer = CrossPositionAttention(seed=1)
    before, weights = layer(VALUES, PLACES, SHOWN)
    changed = VALUES.copy()
    changed[1, 3] += 100
    after, _ = layer(changed, PLACES, SHOWN)
    assert (numbers(before)[1] == numbers(after)[1]).all()
    assert (numbers(weights)[1, :, 3] == 0).all()


def test_an_item_alone_hears_nobody():
    layer = CrossPositionAttention(seed=1)
    alone = np.array([[True, False, False, False]])
    out, weights = layer(VALUES[:1], PLACES[:1], alone)
    assert (numbers(out)[0, 0] == 0).all() and (numbers(weights)[0, 0] == 0).all()


def test_config_round_trip_keeps_every_argument():
    given = {"dim": 3, "out": 2, "attend_self": True, "seed": 8}
    layer = CrossPositionAttention(**given)
    restored = keras.layers.deserialize(keras.layers.serialize(layer))
    assert given.items() <= restored.get_config().items()


def test_rejects():
    with pytest.raises(ValueError, match="dim and out"):
        CrossPositionAttention(dim=0)
