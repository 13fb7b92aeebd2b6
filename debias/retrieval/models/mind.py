"""MIND: several interests per user, by capsule routing."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from debias.engine.seeds import split_seed
from debias.layers.embedding import FeatureEmbedding, RowEmbedding
from debias.layers.tower import Tower
from debias.losses.lists import exact
from debias.retrieval.layers.capsules import (
    InterestCapsules,
    interest_count,
    label_aware,
)
from debias.retrieval.models.encoder import (
    Encoder,
    flat,
    history_of,
    shared_table_config,
    table_of_history,
    unit,
    with_shared_table,
)
from debias.retrieval.models.two_tower import TEMPERATURE, RetrievalModel, Schema
from debias.types import Tensor


@keras.saving.register_keras_serializable(package="debias")
class InterestEncoder(keras.layers.Layer):
    """Encodes a user as up to K vectors, from the history and the features.

    Args:
        schema: Schema of the users, which may be empty.
        history: Dict with "length" and, for a separate embedding table, "size", the
            number of item id codes.
        history_table: Shared embedding table, see `Encoder`.
        dim: Dimension of the vectors and of the embeddings.
        interests: K, the largest number of interests.
        iterations: Number of routing iterations.
        hidden: Sizes of the hidden layers of the tower that combines an interest with
            the features.
        normalize: Whether vectors have length 1.
        unknown_rate, scale: See `FeatureEmbedding`.
        seed: int or None. Random seed of all initial weights and draws.

    Shapes: dict of features with "history" (B, L) to (B, K, dim), with zero vectors for
    missing interests.

    >>> user = InterestEncoder({}, {"size": 9, "length": 2}, dim=4, interests=3)
    >>> tuple(user({"history": ops.array([[2, 0]])}).shape)
    (1, 3, 4)
    """

    def __init__(
        self,
        schema: Schema,
        history: Mapping[str, Any],
        history_table: RowEmbedding | None = None,
        dim: int = 64,
        interests: int = 4,
        iterations: int = 3,
        hidden: Sequence[int] = (128,),
        normalize: bool = True,
        unknown_rate: float = 0.0,
        scale: float = 0.05,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**{"autocast": False, **kwargs})
        self.schema = {name: dict(kind) for name, kind in schema.items()}
        self.history = dict(history)
        self.dim, self.interests, self.iterations = dim, interests, iterations
        self.embedding, self.hidden, self.normalize = dim, tuple(hidden), normalize
        self.unknown_rate, self.scale, self.seed = unknown_rate, scale, seed

        seeds = split_seed(seed, 4)
        self.fields = None
        if self.schema:
            self.fields = FeatureEmbedding(
                self.schema, dim, unknown_rate, scale, seeds[0], name="fields"
            )
        self.shares_table = history_table is not None
        self.history_table = table_of_history(
            self.history, history_table, dim, scale, seeds[1]
        )
        self.capsules = InterestCapsules(
            interests, self.history["length"], iterations, seeds[2]
        )
        self.mix = Tower(self.hidden, dim, seed=seeds[3])

    def build(self, input_shape: Any = None) -> None:
        length = self.history["length"]
        self.capsules.build((None, length, self.dim), (None, length))
        self.mix.build((None, None, (len(self.schema) + 1) * self.dim))

    def live(self, features: Mapping[str, Tensor]) -> Tensor:
        """(B, K) bool, whether each interest of a user exists."""
        behaviours = ops.sum(ops.cast(history_of(features) > 0, "int32"), axis=-1)
        count = interest_count(behaviours, self.interests)
        return ops.arange(self.interests) < ops.expand_dims(count, -1)

    def call(self, features: Mapping[str, Tensor], training: bool = False) -> Tensor:
        codes = history_of(features)
        x = self.capsules(self.history_table(codes), codes > 0)
        if self.fields is not None:
            known = flat(self.fields(features, training=training))
            known = ops.expand_dims(known, 1)
            known = ops.repeat(known, self.interests, axis=1)
            x = ops.concatenate([x, known], axis=-1)
        x = self.mix(x, training=training)
        x = unit(x) if self.normalize else exact(x)
        return x * ops.expand_dims(ops.cast(self.live(features), x.dtype), -1)

    def compute_output_shape(self, *_: Any, **__: Any) -> tuple[int | None, ...]:
        return (None, self.interests, self.dim)

    def get_config(self) -> dict[str, Any]:
        names = ("schema", "history", "dim", "interests", "iterations", "normalize")
        more = ("unknown_rate", "scale", "seed")
        own = {name: getattr(self, name) for name in (*names, *more)}
        own["history_table"] = shared_table_config(self)
        return {**super().get_config(), **own, "hidden": list(self.hidden)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "InterestEncoder":
        return cls(**with_shared_table(config))


@keras.saving.register_keras_serializable(package="debias")
class MIND(RetrievalModel):
    """Multi-interest retrieval.

    In training, `label_aware` attention combines the interests into one user vector,
    with the positive as the label. This user vector scores all candidates. In serving,
    the score of a candidate is its largest inner product with an interest. An index
    gives the same scores if it is searched once per interest and the results are merged
    by maximum.

    Source: Li et al., Multi-Interest Network with Dynamic Routing for Recommendation at
    Tmall, CIKM 2019.

    Args:
        users, items: Schemas.
        dim: Size of all vectors.
        interests, iterations: Settings of the capsules.
        power: p of `label_aware`.
        length: Length of the longest history.
        hidden: Sizes of the hidden layers of the tower that combines an interest with
            the user's features.
        item_features: Whether the item tower also reads the features other than the id.
        share_items: Whether the history uses the id embedding table of the item tower.
        normalize, normalize_users: Whether item vectors (`normalize`) and user vectors
            (`normalize_users`) have length 1.
        temperature, **kwargs: See `TwoTower`.

    >>> schema = {"id": {"kind": "categorical", "size": 9}}
    >>> model = MIND(schema, schema, dim=4, length=2)
    >>> user = {"id": ops.array([2]), "history": ops.array([[3, 0]])}
    >>> tuple(model({"user": user, "item": {"id": ops.array([4, 5])}}).shape)
    (1, 2)
    """

    def __init__(
        self,
        users: Schema,
        items: Schema,
        dim: int = 64,
        interests: int = 4,
        iterations: int = 3,
        power: float = 2.0,
        length: int = 50,
        hidden: Sequence[int] = (128,),
        item_features: bool = False,
        share_items: bool = True,
        normalize: bool = True,
        normalize_users: bool = False,
        unknown_rate: float = 0.0,
        scale: float = 0.05,
        temperature: float = TEMPERATURE,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(temperature, **kwargs)
        if power < 0:
            raise ValueError(f"power must not be negative, got {power}")
        self.settings = {
            "users": {name: dict(kind) for name, kind in users.items()},
            "items": {name: dict(kind) for name, kind in items.items()},
            "dim": dim,
            "interests": interests,
            "iterations": iterations,
            "power": power,
            "length": length,
            "hidden": list(hidden),
            "item_features": item_features,
            "share_items": share_items,
            "normalize": normalize,
            "normalize_users": normalize_users,
            "unknown_rate": unknown_rate,
            "scale": scale,
            "seed": seed,
        }
        self.power = power
        seeds = split_seed(seed, 2)
        common: dict[str, Any] = {"unknown_rate": unknown_rate, "scale": scale}
        read = items if item_features else {"id": items["id"]}
        self.item = Encoder(
            read, dim, "fm", normalize=normalize, seed=seeds[1], **common
        )
        self.user = InterestEncoder(
            users,
            {"length": length, "size": items["id"]["size"]},
            self.item.id_table if share_items else None,
            dim,
            interests,
            iterations,
            hidden,
            normalize_users,
            seed=seeds[0],
            **common,
        )

    def match(self, users: Tensor, items: Tensor, batch: Any, label: Any) -> Tensor:
        if label is not None:
            live = self.user.live(batch["user"])
            one = label_aware(users, label, live, self.power)
            return super().match(one, items, batch, label)
        live = ops.expand_dims(self.user.live(batch["user"]), -1)
        if len(items.shape) == 2:
            each = ops.matmul(users, ops.transpose(items))  # (B, K, C)
        else:
            each = ops.matmul(users, ops.transpose(items, (0, 2, 1)))
        return ops.max(ops.where(live, each, -1e9), axis=1)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.settings}
