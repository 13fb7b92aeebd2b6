"""Attention between the items of a list or a grid."""

from typing import Any

import keras
from keras import ops

from debias.engine.tensors import glorot, rowwise
from debias.losses.lists import exact
from debias.types import Tensor

NEVER = -1e9  # a float32 logit whose softmax share is exactly 0


@keras.saving.register_keras_serializable(package="debias")
class CrossPositionAttention(keras.layers.Layer):
    """Attention within a list, with weights that depend only on the items' places.

    The attention weight A_ij is the softmax of q(z_i) . k(z_j) / sqrt(dim) over the
    shown items j. Here z are the embeddings of the places, q is the query layer, and k
    is the key layer. The weights depend only on z, so a heatmap of A describes the
    layout. The output for item i is sum_j A_ij v(x_j), where x are the relevance
    embeddings or the bias embeddings.

    Args:
        dim: Dimension of queries and keys.
        out: Dimension of the values.
        attend_self: Whether an item attends to itself (j = i). If False, the output for
            an item does not depend on its own `values`.
        seed: int or None. Random seed of the initial weights.

    Call arguments:
        values: `(batch, list_size, D)`.
        places: `(batch, list_size, E)`.
        shown: `(batch, list_size)` bool, False at padding.

    Returns:
        The output `(batch, list_size, out)` and the weights A `(batch, list_size,
        list_size)`. Each row of A sums to 1, or to 0 if there is no item to attend to.

    Source: after Zhuang et al., Cross-Positional Attention for Debiasing Clicks, WWW
    2021.

    >>> layer = CrossPositionAttention(dim=4, out=1)
    >>> x = ops.ones((1, 3, 2))
    >>> layer(x, x, ops.array([[True, True, False]]))[1].shape[1:] == (3, 3)
    True
    """

    def __init__(
        self,
        dim: int = 16,
        out: int = 1,
        attend_self: bool = False,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if dim < 1 or out < 1:
            raise ValueError(f"dim and out must be positive, got {dim} and {out}")
        self.dim = dim
        self.out = out
        self.attend_self = attend_self
        self.seed = seed
        start = [glorot(seed, place) for place in range(3)]
        self.query = keras.layers.Dense(dim, kernel_initializer=start[0])
        self.key = keras.layers.Dense(dim, kernel_initializer=start[1])
        self.value = keras.layers.Dense(
            out, use_bias=False, kernel_initializer=start[2]
        )

    def build(self, values_shape: Any, places_shape: Any, shown_shape: Any) -> None:
        self.query.build(places_shape)
        self.key.build(places_shape)
        self.value.build(values_shape)

    def weights_between(self, places: Tensor, shown: Tensor) -> Tensor:
        """The attention weights A, `(batch, list_size, list_size)`."""
        heard = ops.cast(ops.expand_dims(shown, 1), "bool")
        if not self.attend_self:
            size = ops.shape(shown)[1]
            heard = ops.logical_and(heard, ops.logical_not(ops.eye(size, dtype="bool")))
        query, key = rowwise(self.query, places), rowwise(self.key, places)
        # Half precision would not hold `NEVER`.
        match = exact(ops.matmul(query, ops.transpose(key, (0, 2, 1))))
        match = ops.where(heard, match / self.dim**0.5, NEVER)
        weight = ops.exp(match - ops.max(match, axis=-1, keepdims=True))
        weight = weight * ops.cast(heard, match.dtype)
        return weight / ops.maximum(ops.sum(weight, axis=-1, keepdims=True), 1e-9)

    def call(
        self, values: Tensor, places: Tensor, shown: Tensor
    ) -> tuple[Tensor, Tensor]:
        attention = self.weights_between(places, shown)
        return ops.matmul(attention, rowwise(self.value, values)), attention

    def get_config(self) -> dict[str, Any]:
        names = ("dim", "out", "attend_self", "seed")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
