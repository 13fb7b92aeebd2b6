"""Additional vector coordinates: a linear part and an item prior."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from debias.retrieval.data.interactions import FIRST, ID
from debias.retrieval.layers.history import recency_sum
from debias.retrieval.models.encoder import HISTORY, encode
from debias.types import Tensor

LENGTH = 50  # history items that the linear part reads


class Extra(NamedTuple):
    """A term that is added to the inner product of a user and an item.

    If h_a is the item of age a in the user's history, the term for item j is

        sum_a decay^a <past[h_a], items[j, :-1]>  +  items[j, -1]

    Attributes:
        items: (codes, r + 1) float32 coordinates of items by id code. The last
            coordinate is the item prior. The coordinates of id codes beyond the table
            are zero.
        past: (codes, r) float32 contribution of each item of a history to the user's
            coordinates.
        decay: Factor that multiplies the weight of an item per step of age, above 0 and
            at most 1.
    """

    items: np.ndarray
    past: np.ndarray
    decay: float

    def grown(self, prior: np.ndarray) -> "Extra":
        """A copy with rows for new items, which only have a `prior` (items,)."""
        new = FIRST + len(prior) - len(self.items)
        if new <= 0:
            return self
        items, past = (np.pad(t, ((0, new), (0, 0))) for t in self[:2])
        items[-new:, -1] = prior[-new:]
        return Extra(items, past, self.decay)


def with_past(vectors: Tensor, past: Tensor | None = None) -> Tensor:
    """Appends `past` (B, r), and 1 for the item prior, to user vectors (..., d).

    If users have several vectors, (B, K, d), a zero vector marks a missing interest. So
    zero vectors stay zero, except for the first vector of a user.

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
    """Applies `with_past` to the output of a user encoder.

    Args:
        encoder: User encoder, which may read a shorter history than the `Extra`.
        codes, rank: Shape of `Extra.past`. If the rank is 0, the only appended
            coordinate is the 1 for the item prior.
        decay: The `decay` of the `Extra`.
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
    """A retrieval model whose vectors are extended by an `Extra`.

    Attributes:
        user: User encoder that returns the extended vectors.
        temperature: Temperature of the model.
    """

    def __init__(self, model: Any, extra: Extra):
        self.model, self.extra = model, extra
        self.temperature = getattr(model, "temperature", 1.0)
        codes, rank = extra.past.shape
        self.user = ExtendedUser(model.user, codes, rank, extra.decay)
        self.user.build(None)
        if self.user.rank:
            self.user.past.assign(extra.past)

    @property
    def linear(self) -> int:
        """r, the number of coordinates of the linear part."""
        return int(self.extra.past.shape[1])

    def user_vectors(self, features: Mapping[str, np.ndarray]) -> np.ndarray:
        """User vectors (n, d + r + 1), or (n, K, d + r + 1) for several interests."""
        return encode(self.user, features)

    def item_vectors(self, features: Mapping[str, np.ndarray]) -> np.ndarray:
        """Item vectors (n, d + r + 1)."""
        code = np.asarray(features[ID])
        known = np.where(code < len(self.extra.items), code, 0)
        vectors = self.model.item_vectors(features)
        return np.hstack([vectors, self.extra.items[known].astype(vectors.dtype)])
