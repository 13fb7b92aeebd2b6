"""Layers that read a user's history: mean, recency-weighted sum, Transformer.

A history is (B, L) id codes, most recent first, padded with 0. A user without a history
gets zero vectors.
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from debias.data.text import one_of
from debias.engine.seeds import split_seed
from debias.layers.embedding import masked_mean
from debias.types import Tensor


def recency_sum(vectors: Tensor, mask: Tensor, decay: float = 0.9) -> Tensor:
    """Weighted sum of vectors: sum_a decay^a v_a over the ages a = 0, 1, ...

    The latest item has age 0, and therefore the largest weight. The sum is not
    normalised, so longer histories have more influence.

    Shapes: (..., L, d) and (..., L) to (..., d).

    >>> float(recency_sum(ops.ones((3, 1)), ops.array([1, 1, 0]), 0.5)[0])  # 1 + .5
    1.5
    """
    ages = np.power(decay, np.arange(vectors.shape[-2]))
    weight = ops.cast(ages, vectors.dtype) * ops.cast(mask, vectors.dtype)
    return ops.sum(vectors * ops.expand_dims(weight, -1), axis=-2)


@keras.saving.register_keras_serializable(package="debias")
class TransformerHistory(keras.layers.Layer):
    """Self-attention over a history, which returns the output at the latest item.

    The input is the sum of item vectors and age vectors. Each block has pre-normalised
    attention and a feed-forward layer of the same width. Padding is masked.

    Source: Kang and McAuley, Self-Attentive Sequential Recommendation, ICDM 2018;
    Chen et al., Behavior Sequence Transformer, DLP-KDD 2019.

    Args:
        length: L, the length of the longest history.
        blocks: Number of blocks.
        heads: Number of attention heads, which must divide the vector size.
        dropout: Dropout rate inside the blocks.
        seed: int or None. Random seed of the initial weights and the dropout.

    Shapes: `(B, L, d)` vectors and `(B, L)` mask to `(B, d)`.

    >>> layer = TransformerHistory(length=3, heads=2)
    >>> tuple(layer(ops.ones((2, 3, 4)), ops.ones((2, 3), "bool")).shape)
    (2, 4)
    """

    def __init__(
        self,
        length: int,
        blocks: int = 1,
        heads: int = 2,
        dropout: float = 0.1,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if min(length, blocks, heads) < 1:
            raise ValueError(
                "length, blocks and heads must be at least 1, got "
                f"{length}, {blocks} and {heads}"
            )
        self.length, self.blocks, self.heads = length, blocks, heads
        self.dropout, self.seed = dropout, seed

    def build(self, vectors_shape: Any, mask_shape: Any = None) -> None:
        dim = vectors_shape[-1]
        if dim % self.heads:
            raise ValueError(f"heads must divide {dim}, got {self.heads}")
        seeds = iter(split_seed(self.seed, 5 * self.blocks))

        def start() -> keras.initializers.Initializer:
            return keras.initializers.GlorotUniform(next(seeds))

        self.ages = self.add_weight(
            shape=(self.length, dim), initializer="zeros", name="ages"
        )
        self.steps: list[dict[str, Any]] = []
        for _ in range(self.blocks):
            block = {
                "before": keras.layers.LayerNormalization(),
                "attention": keras.layers.MultiHeadAttention(
                    self.heads,
                    dim // self.heads,
                    dropout=self.dropout,
                    kernel_initializer=start(),
                    seed=next(seeds),
                ),
                "between": keras.layers.LayerNormalization(),
                "wide": keras.layers.Dense(dim, "relu", kernel_initializer=start()),
                "back": keras.layers.Dense(dim, kernel_initializer=start()),
                "drop": keras.layers.Dropout(self.dropout, seed=next(seeds)),
            }
            shape = (None, self.length, dim)
            block["attention"].build(shape, shape)
            for name in ("before", "between", "wide", "back"):
                block[name].build(shape)
            self.steps.append(block)
        self.after = keras.layers.LayerNormalization()
        self.after.build((None, dim))

    def call(self, vectors: Tensor, mask: Tensor, training: bool = False) -> Tensor:
        mask = ops.cast(mask, "bool")
        x = vectors + self.ages
        attend = ops.expand_dims(mask, 1)
        # A row without history would have a softmax over no entries. It attends to
        # everything, and is set to zero at the end.
        attend = attend | ~ops.any(mask, axis=-1)[:, None, None]
        attend = ops.broadcast_to(attend, (ops.shape(x)[0], self.length, self.length))
        for block in self.steps:
            y = block["before"](x)
            y = block["attention"](y, y, attention_mask=attend, training=training)
            x = x + block["drop"](y, training=training)
            y = block["back"](block["wide"](block["between"](x)))
            x = x + block["drop"](y, training=training)
        last = self.after(x[:, 0])
        return last * ops.cast(mask[:, :1], last.dtype)

    def compute_output_shape(self, vectors_shape: Any, mask_shape: Any = None) -> Any:
        return (vectors_shape[0], vectors_shape[-1])

    def get_config(self) -> dict[str, Any]:
        names = ("length", "blocks", "heads", "dropout", "seed")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


HISTORIES = ("mean", "recency", "transformer")


@keras.saving.register_keras_serializable(package="debias")
class History(keras.layers.Layer):
    """Reads a history of item vectors as one or two user fields.

    "mean" gives the mean of the item vectors. "recency" gives `recency_sum` and the
    mean. "transformer" gives `TransformerHistory` and the mean.

    Args:
        kind: str. One of `HISTORIES`.
        length: L, the length of the longest history.
        decay: Decay of `recency_sum`.
        seed: int or None.
        **transformer: Arguments `blocks`, `heads` and `dropout` of
            `TransformerHistory`.

    Shapes: `(B, L, d)` vectors and `(B, L)` mask to `(B, 1 or 2, d)`.

    >>> tuple(History("recency", 3)(ops.ones((1, 3, 4)), ops.ones((1, 3))).shape)
    (1, 2, 4)
    """

    def __init__(
        self,
        kind: str = "recency",
        length: int = 50,
        decay: float = 0.9,
        blocks: int = 1,
        heads: int = 2,
        dropout: float = 0.1,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if kind not in HISTORIES:
            raise ValueError(one_of("kind", HISTORIES, kind))
        if not 0.0 < decay <= 1.0:
            raise ValueError(f"decay must be in (0, 1], got {decay}")
        self.kind, self.length, self.decay = kind, length, decay
        self.blocks, self.heads, self.dropout = blocks, heads, dropout
        self.seed = seed
        self.fields = 1 if kind == "mean" else 2
        self.attention = None
        if kind == "transformer":
            self.attention = TransformerHistory(length, blocks, heads, dropout, seed)

    def build(self, vectors_shape: Any, mask_shape: Any = None) -> None:
        if self.attention is not None:
            self.attention.build(vectors_shape, mask_shape)

    def call(self, vectors: Tensor, mask: Tensor, training: bool = False) -> Tensor:
        mean = masked_mean(vectors, mask)
        if self.kind == "recency":
            return ops.stack([recency_sum(vectors, mask, self.decay), mean], axis=-2)
        if self.attention is not None:
            last = self.attention(vectors, mask, training=training)
            return ops.stack([last, mean], axis=-2)
        return ops.expand_dims(mean, -2)

    def compute_output_shape(self, vectors_shape: Any, mask_shape: Any = None) -> Any:
        return (vectors_shape[0], self.fields, vectors_shape[-1])

    def get_config(self) -> dict[str, Any]:
        names = ("kind", "length", "decay", "blocks", "heads", "dropout", "seed")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
