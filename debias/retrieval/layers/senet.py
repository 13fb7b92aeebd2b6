"""Squeeze-and-excitation network, which weights fields depending on the input."""

from typing import Any

import keras
from keras import ops

from debias.engine.seeds import split_seed
from debias.types import Tensor


@keras.saving.register_keras_serializable(package="debias")
class SENet(keras.layers.Layer):
    """Multiplies each field i by a weight s_i that depends on all fields.

    The squeeze z_i is the mean of the entries of v_i, the vector of field i. The
    excitation is s = act(W2 relu(W1 z + b1) + b2), through a bottleneck of size max(1,
    F // reduction). The output of field i is s_i v_i. Initially, b2 is 1 and W2 is
    small. So a new layer hardly changes its fields, and no weight s_i is 0.

    Source: Huang et al., FiBiNET, RecSys 2019; Hu et al., Squeeze-and-Excitation
    Networks, CVPR 2018.

    Args:
        reduction: Reduction ratio of the bottleneck, at least 1.
        activation: Keras activation of the excitation.
        seed: int or None. Random seed of the initial weights.

    Shapes: `(..., F, d)` to `(..., F, d)`.

    >>> layer = SENet(seed=0)
    >>> tuple(layer(ops.ones((2, 4, 8))).shape)
    (2, 4, 8)
    """

    def __init__(
        self,
        reduction: int = 2,
        activation: str = "relu",
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if reduction < 1:
            raise ValueError(f"reduction must be at least 1, got {reduction}")
        self.reduction, self.activation, self.seed = reduction, activation, seed

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        fields = input_shape[-2]
        if fields is None:
            raise ValueError("the number of fields must be known, got None")
        seeds = split_seed(self.seed, 2)
        self.squeeze = keras.layers.Dense(
            max(1, fields // self.reduction),
            "relu",
            kernel_initializer=keras.initializers.GlorotUniform(seeds[0]),
        )
        self.excite = keras.layers.Dense(
            fields,
            self.activation,
            kernel_initializer=keras.initializers.RandomNormal(0.0, 0.05, seeds[1]),
            bias_initializer="ones",
        )
        self.squeeze.build((None, fields))
        self.excite.build((None, self.squeeze.units))

    def importance(self, fields: Tensor) -> Tensor:
        """The weights s, (..., F), of fields (..., F, d)."""
        if not self.built:
            self.build(tuple(fields.shape))
        return self.excite(self.squeeze(ops.mean(fields, axis=-1)))

    def call(self, fields: Tensor) -> Tensor:
        return fields * ops.expand_dims(self.importance(fields), -1)

    def compute_output_shape(
        self, input_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        names = ("reduction", "activation", "seed")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
