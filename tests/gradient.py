"""The gradient of a function of one array, on whichever backend the tests run.

`keras.ops` has no gradient of its own, and gradients are where backends differ.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np


def gradient(function: Callable[[Any], Any], x: Any) -> np.ndarray:
    """The gradient at `x` of the sum of `function`'s values, of the shape of `x`."""
    x = np.asarray(x, "float32")
    if keras.backend.backend() == "jax":
        import jax

        return np.asarray(jax.grad(lambda x: function(x).sum())(x))
    import tensorflow as tf

    x = tf.Variable(x)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(function(x))
    zero = tf.UnconnectedGradients.ZERO
    found = tape.gradient(total, x, unconnected_gradients=zero)
    return tf.convert_to_tensor(found).numpy()  # the gradient of a gather is a list
