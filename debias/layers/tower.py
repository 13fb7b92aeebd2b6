"""Relevance towers: what an item is, read from its features, never from its place.

Any Keras layer that maps `(..., F)` to `(..., out)` can stand in for `Tower`.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from debias.engine.seeds import seed_at
from debias.engine.tensors import glorot, rowwise
from debias.types import Tensor


def symlog(x: Tensor) -> Tensor:
    """sign(x) log(1 + |x|): tames heavy tails, keeps sign, order and zero.

    >>> [round(float(value), 4) for value in symlog(np.array([-1.0, 0.0, 99.0]))]
    [-0.6931, 0.0, 4.6052]
    """
    return ops.sign(x) * ops.log1p(ops.abs(x))


@keras.saving.register_keras_serializable(package="debias")
class Standardize(keras.layers.Layer):
    """Heavy-tailed features to mean 0, variance 1: (symlog(x) - mean) / deviation.

    A table of items is transformed once, before training; the same layer then goes in
    front of the serving model (`ranker(model, preprocess=...)`), which reads raw
    features. A feature that never varies becomes 0.

    Shapes: `(..., F)` to `(..., F)`.

    >>> layer = Standardize()
    >>> scaled = np.asarray(layer.adapt(np.array([[0.0], [1.0], [9.0]]))(
    ...     np.array([[0.0], [1.0], [9.0]])))
    >>> bool(abs(scaled.mean()) < 1e-6), bool(abs(scaled.std() - 1) < 1e-6)
    (True, True)
    """

    def __init__(self, **kwargs: Any):
        # Raw features need their range, whatever the towers compute in.
        super().__init__(**{"dtype": "float32", **kwargs})

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        size = (input_shape[-1],)
        self.mean = self.add_weight(
            shape=size, initializer="zeros", trainable=False, name="mean"
        )
        self.scale = self.add_weight(
            shape=size, initializer="ones", trainable=False, name="scale"
        )

    def adapt(self, features: np.ndarray) -> "Standardize":
        """Takes mean and deviation from `features` (N, F); returns itself."""
        if np.ndim(features) != 2 or len(features) == 0:
            raise ValueError(
                f"features must be (items, F) with items > 0, got {np.shape(features)}"
            )
        if not self.weights:
            self.build((None, np.shape(features)[1]))
            self.built: bool = True
        squeezed = np.sign(features) * np.log1p(np.abs(features))
        deviation = squeezed.std(axis=0, dtype="float64")
        self.mean.assign(squeezed.mean(axis=0, dtype="float64"))
        self.scale.assign(
            np.where(deviation > 1e-6, 1 / np.maximum(deviation, 1e-6), 0)
        )
        return self

    def call(self, features: Tensor) -> Tensor:
        if features.shape[-1] != self.mean.shape[0]:  # which would broadcast
            raise ValueError(
                f"this layer scales {self.mean.shape[0]} features, got "
                f"{features.shape[-1]}"
            )
        return (symlog(features) - self.mean) * self.scale


@keras.saving.register_keras_serializable(package="debias")
class Tower(keras.layers.Layer):
    """A multilayer perceptron over item features.

    Args:
        hidden: Sizes of the hidden layers; empty for a linear tower.
        out: Size of the output: 1 for a relevance logit, more for an embedding.
        activation: Keras activation of the hidden layers.
        dropout: Rate of dropout after each hidden layer, in [0, 1).
        seed: int or None. Names the initial weights and the dropout.

    Shapes: `(..., F)` to `(..., out)`.

    >>> Tower(hidden=(8,), out=3)(np.zeros((2, 10, 5))).shape[-1]
    3
    """

    def __init__(
        self,
        hidden: Sequence[int] = (64, 32),
        out: int = 1,
        activation: str = "relu",
        dropout: float = 0.0,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if any(size < 1 for size in (*hidden, out)):
            raise ValueError(f"hidden and out must be positive, got {hidden} and {out}")
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout must be in [0, 1), got {dropout}")
        self.hidden = tuple(hidden)
        self.out = out
        self.activation = activation
        self.dropout = dropout
        self.seed = seed
        self.steps: list[keras.layers.Layer] = []
        for place, size in enumerate(self.hidden):
            kernel = glorot(seed, place)
            self.steps.append(
                keras.layers.Dense(size, activation, kernel_initializer=kernel)
            )
            if dropout:
                self.steps.append(
                    keras.layers.Dropout(dropout, seed=seed_at(seed, place))
                )
        kernel = glorot(seed, len(self.hidden))
        self.steps.append(keras.layers.Dense(out, kernel_initializer=kernel))

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        for step in self.steps:
            step.build(input_shape)
            input_shape = step.compute_output_shape(input_shape)

    def call(self, features: Tensor, training: bool = False) -> Tensor:
        def outputs(x: Tensor) -> Tensor:
            for step in self.steps:
                if isinstance(step, keras.layers.Dropout):
                    x = step(x, training=training)
                else:
                    x = step(x)
            return x

        return rowwise(outputs, features)

    def compute_output_shape(
        self, input_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        return (*input_shape[:-1], self.out)

    def get_config(self) -> dict[str, Any]:
        own = {
            "hidden": list(self.hidden),
            "out": self.out,
            "activation": self.activation,
            "dropout": self.dropout,
            "seed": self.seed,
        }
        return {**super().get_config(), **own}
