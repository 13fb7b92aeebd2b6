"""Gradient reversal, for adversarial training."""

import math
from typing import Any

import keras
from keras import ops

from debias.types import Tensor


def reversed_gradient(x: Tensor, strength: float) -> Tensor:
    """Returns x unchanged and multiplies its gradient by -strength.

    The function is f(x) = c + strength (c - x), where c is x with the gradient stopped.
    The term c - x is exactly 0, and the derivative of f is -strength on any backend.
    Source: Ganin & Lempitsky, Unsupervised Domain Adaptation by Backpropagation, ICML
    2015.

    >>> float(reversed_gradient(ops.array(1.5), strength=0.3))
    1.5
    """
    constant = ops.stop_gradient(x)
    return constant + strength * (constant - x)


@keras.saving.register_keras_serializable(package="debias")
class GradientReversal(keras.layers.Layer):
    """Identity layer that multiplies the gradient by -strength.

    Args:
        strength: Factor of the reversed gradient, 0 or more. With strength 0, the
            gradient is 0.

    Raises:
        ValueError: `strength` is negative or not finite.

    Shapes: the output has the shape of the input.

    >>> float(GradientReversal(strength=0.3)(ops.array(1.5)))
    1.5
    """

    def __init__(self, strength: float = 1.0, **kwargs: Any):
        super().__init__(**kwargs)
        if not 0 <= strength < math.inf:
            raise ValueError(f"strength must be finite, 0 or more, got {strength}")
        self.strength = strength

    def call(self, inputs: Tensor) -> Tensor:
        return reversed_gradient(inputs, self.strength)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "strength": self.strength}
