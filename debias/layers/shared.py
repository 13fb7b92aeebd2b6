"""A relevance tower with several outputs that share their first layers."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from debias.engine.seeds import split_seed
from debias.engine.tensors import rowwise
from debias.layers.tower import Tower
from debias.types import Tensor


@keras.saving.register_keras_serializable(package="debias")
class SharedBottom(keras.layers.Layer):
    """A tower with shared hidden layers and a separate head for each output.

    `SharedBottom` can replace `Tower(out=K)`, whose outputs share all hidden layers.
    The shared layers learn from all targets. The head of a rare target, such as an
    order, learns only from this target and not from frequent targets.

    Args:
        bottom: Sizes of the shared hidden layers; empty for separate towers.
        heads: Sizes of the hidden layers of each head; empty for linear heads.
        out: Number of outputs.
        activation: Keras activation of all hidden layers.
        dropout: Rate of dropout after each hidden layer, in [0, 1).
        seed: int or None. Random seed of the initial weights and the dropout.

    Shapes: `(..., F)` to `(..., out)`.

    Source: Caruana, Multitask Learning, Machine Learning 1997.

    >>> import numpy as np
    >>> layer = SharedBottom(bottom=(8,), heads=(4,), out=3)
    >>> tuple(layer(np.zeros((2, 10, 5))).shape), layer.count_params()
    ((2, 10, 3), 171)
    """

    def __init__(
        self,
        bottom: Sequence[int] = (64,),
        heads: Sequence[int] = (32,),
        out: int = 2,
        activation: str = "relu",
        dropout: float = 0.0,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if any(size < 1 for size in (*bottom, *heads, out)):
            raise ValueError(
                f"bottom, heads and out must be positive, got {bottom}, {heads} and "
                f"{out}"
            )
        self.bottom, self.heads, self.out = tuple(bottom), tuple(heads), out
        self.activation, self.dropout, self.seed = activation, dropout, seed
        own, *seeds = split_seed(seed, out + 1)
        self.trunk: list[keras.layers.Layer] = []
        if bottom:
            *hidden, last = self.bottom
            self.trunk = [
                Tower(hidden, last, activation, dropout, seed),
                keras.layers.Activation(activation),
                keras.layers.Dropout(dropout, seed=own),
            ]
        self.towers = [
            Tower(self.heads, 1, activation, dropout, each) for each in seeds
        ]

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        for layer in self.trunk:
            layer.build(input_shape)
            input_shape = layer.compute_output_shape(input_shape)
        for tower in self.towers:
            tower.build(input_shape)

    def call(self, features: Tensor, training: bool = False) -> Tensor:
        def outputs(x: Tensor) -> Tensor:
            for layer in self.trunk:
                still = isinstance(layer, keras.layers.Activation)
                x = layer(x) if still else layer(x, training=training)
            each = [tower(x, training=training) for tower in self.towers]
            return ops.concatenate(each, axis=-1)

        return rowwise(outputs, features)

    def compute_output_shape(
        self, input_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        return (*input_shape[:-1], self.out)

    def get_config(self) -> dict[str, Any]:
        names = ("bottom", "heads", "out", "activation", "dropout", "seed")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
