"""Coordinates beside those that a model learned: a linear part, a prior of items."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from debias.retrieval.data.interactions import FIRST, ID
from debias.retrieval.layers.history import recency_sum
from debias.retrieval.models.encoder import HISTORY, encode
from debias.types import Tensor

LENGTH = 50  # items of a history that the linear part reads


class Extra(NamedTuple):
    """What is added to products of vectors: with h_a the item of age a in a history,

        sum_a decay^a <past[h_a], items[j, :-1]>  +  items[j, -1]

    Attributes:
        items: (codes, r + 1) float32, each item's coordinates, by the code of its id;
            the last one is a prior. Codes beyond the table have zeros.
        past: (codes, r) float32, what an item of a history adds to its user's.
        decay: Of the weights of older items, above 0 and at most 1.
    """

    items: np.ndarray
    past: np.ndarray
    decay: float

    def grown(self, prior: np.ndarray) -> "Extra":
        """With rows for new items, of whom only the prior (items,) is known."""
        new = FIRST + len(prior) - len(self.items)
        if new <= 0:
            return self
        items, past = (np.pad(t, ((0, new), (0, 0))) for t in self[:2])
        items[-new:, -1] = prior[-new:]
        return Extra(items, past, self.decay)


def with_prior(vectors: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """(n, d + m): item vectors, then their coordinates (n, m) of an `Extra`.

    >>> with_prior(np.ones((2, 1), "float32"), np.array([[0.5], [2.0]])).tolist()
    [[1.0, 0.5], [1.0, 2.0]]
    """
    return np.concatenate([vectors, prior.astype(vectors.dtype)], axis=1)


def with_past(vectors: Tensor, past: Tensor | None = None) -> Tensor:
    """User vectors (..., d), then past (B, r), then 1, which meets an item's prior.

    Of several vectors (B, K, d), those that are all zero stay so, but for the first: a
    user does not have them.

    >>> ops.convert_to_numpy(with_past(np.array([[[2.0], [3.0], [0.0]]]))).tolist()
    [[[2.0, 1.0], [3.0, 1.0], [0.0, 0.0]]]
    """
    more = ops.ones_like(vectors[..., :1])
    if past is not None:
        past = ops.cast(past, vectors.dtype)
        if len(vectors.shape) == 3:
            past = ops.repeat(ops.expand_dims(past, 1), vectors.shape[1], axis=1)
        more = ops.concatenate([past, more], axis=-1)
    if len(vectors.shape) == 3:
        live = ops.any(ops.not_equal(vectors, 0), axis=-1, keepdims=True)
        first = ops.expand_dims(ops.arange(vectors.shape[1]) == 0, -1)
        more = more * ops.cast(ops.logical_or(live, first), more.dtype)
    return ops.concatenate([vectors, more], axis=-1)


@keras.saving.register_keras_serializable(package="debias")
class ExtendedUser(keras.layers.Layer):
    """`with_past` of what an encoder of users gives.

    Args:
        encoder: Reads the latest items of the history, as many as it is made for.
        codes, rank: The shape of `Extra.past`; a rank of 0 adds the 1 alone.
        decay: Of the `Extra`.
    """

    def __init__(
        self, encoder: Any, codes: int, rank: int, decay: float, **kwargs: Any
    ):
        super().__init__(**{"autocast": False, **kwargs})
        self.encoder = encoder
        self.codes, self.rank, self.decay = codes, rank, decay
        self.schema, self.history = encoder.schema, encoder.history
        self.own_length = encoder.history["length"] if encoder.history else 0
        if rank:
            length = max(self.own_length, LENGTH)
            self.history = {**(encoder.history or {}), "length": length}

    def build(self, input_shape: Any = None) -> None:
        if not self.encoder.built:
            self.encoder.build(None)
            self.encoder.built = True
        if self.rank:
            self.past = self.add_weight(
                shape=(self.codes, self.rank),
                initializer="zeros",
                trainable=False,
                dtype="float32",
                name="past",
            )

    def call(self, features: Mapping[str, Tensor]) -> Tensor:
        if not self.rank:
            return with_past(self.encoder(features))
        codes = features[HISTORY]
        own = {**features, HISTORY: codes[..., : self.own_length]}
        known = ops.where(codes < self.codes, codes, 0)
        vectors = ops.take(self.past, known, axis=0)
        past = recency_sum(vectors, known > 0, self.decay)
        return with_past(self.encoder(own), past)

    def get_config(self) -> dict[str, Any]:
        own = {"codes": self.codes, "rank": self.rank, "decay": self.decay}
        encoder = keras.saving.serialize_keras_object(self.encoder)
        return {**super().get_config(), **own, "encoder": encoder}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "ExtendedUser":
        encoder = keras.saving.deserialize_keras_object(config["encoder"])
        return cls(**{**config, "encoder": encoder})


class Extended:
    """A retrieval model whose vectors go on with the coordinates of an `Extra`.

    Attributes:
        user: The layer of the user side.
        temperature: Of the model.
    """

    def __init__(self, model: Any, extra: Extra):
        self.model, self.extra = model, extra
        self.temperature = getattr(model, "temperature", 1.0)
        codes, rank = extra.past.shape
        self.user = ExtendedUser(model.user, codes, rank, extra.decay)
        self.user.build(None)
        self.user.built = True
        if self.user.rank:
            self.user.past.assign(extra.past)

    @property
    def linear(self) -> int:
        """r, how many coordinates the linear part has."""
        return int(self.extra.past.shape[1])

    def user_vectors(self, features: Mapping[str, np.ndarray]) -> np.ndarray:
        """(n, d + r + 1), or (n, K, d + r + 1) of several interests."""
        return encode(self.user, features)

    def item_vectors(self, features: Mapping[str, np.ndarray]) -> np.ndarray:
        """(n, d + r + 1)."""
        code = np.asarray(features[ID])
        known = np.where(code < len(self.extra.items), code, 0)
        return with_prior(self.model.item_vectors(features), self.extra.items[known])
