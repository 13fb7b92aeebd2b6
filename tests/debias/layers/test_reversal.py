"""Tests of debias.layers.reversal."""

import keras
import numpy as np
import pytest

from debias.layers import GradientReversal
from tests.gradient import gradient

X = np.array([[-3.0, 0.0, 0.1], [1e-20, 7.3, 1e20]], "float32")


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0, 10.0])
def test_forward_is_the_input_in_every_bit(strength):
    out = keras.ops.convert_to_numpy(GradientReversal(strength)(X))
    np.testing.assert_array_equal(out, X)


@pytest.mark.parametrize("strength", [0.0, 0.3, 10.0])
def test_the_gradient_comes_back_times_minus_strength(strength):
    """Of x^2, through the layer: -strength 2 x."""
    layer, x = GradientReversal(strength), [1.0, -2.0, 0.5]
    slope = gradient(lambda x: layer(x) ** 2, x)
    np.testing.assert_allclose(slope, -strength * 2 * np.array(x), rtol=1e-6)


def test_config_round_trip_and_bad_strengths():
    restored = keras.layers.deserialize(keras.layers.serialize(GradientReversal(0.7)))
    assert restored.strength == 0.7
    for bad in (-0.1, np.inf, np.nan):
        with pytest.raises(ValueError, match="strength must be finite, 0 or more"):
            GradientReversal(bad)
