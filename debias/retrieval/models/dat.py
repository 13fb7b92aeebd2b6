"""DAT: two towers, each with an augmented vector that imitates the other tower.

Source: Yu et al., A Dual Augmented Two-tower Model for Online Large-scale
Recommendation, DLP-KDD 2021.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from debias.engine.seeds import split_seed
from debias.layers.embedding import RowEmbedding
from debias.losses.lists import exact
from debias.retrieval.models.encoder import Encoder
from debias.retrieval.models.two_tower import TEMPERATURE, RetrievalModel, Schema
from debias.types import Tensor


def mimic_loss(
    augmented: Tensor, other: Tensor, weight: Tensor | None = None
) -> Tensor:
    """Mimic loss: mean of w (a - p)^2 over pairs and entries.

    The tower outputs p and the weights w get no gradients. The article's loss is the
    mean of (y a + (1 - y) p - p)^2, which is zero for negatives (y = 0). So pass only
    positive pairs, or give each pair a weight between 0 and 1.

    Args:
        augmented: (B, d) augmented vectors of one side.
        other: (B, d) tower outputs of the other side for the same pairs.
        weight: (B,) weight of each pair. If None, all weights are 1.

    Returns:
        Scalar.

    The loss of the pair in this example is (1 + 4) / 2:

    >>> float(mimic_loss(ops.array([[1.0, 0.0]]), ops.array([[0.0, 2.0]])))
    2.5
    """
    augmented, other = exact(augmented), ops.stop_gradient(exact(other))
    apart = ops.mean(ops.square(augmented - other), axis=-1)
    if weight is not None:
        apart = apart * ops.stop_gradient(exact(weight))
    return ops.mean(apart)


def alignment_loss(vectors: Tensor, category: Tensor, categories: int) -> Tensor:
    """Alignment loss: sum of |cov(major) - cov(i)|_F^2 over the categories i.

    The major category is the most frequent category of the batch; ties go to the lowest
    code. Covariances have the denominator n - 1, so categories with fewer than two
    items are ignored. Items with code 0 (missing) are ignored too.

    Args:
        vectors: (n, d) item vectors.
        category: (n,) codes.
        categories: Number of codes.

    Returns:
        Scalar.

    Example: vectors with one entry, whose variance is 1 in one category and 8 in the
    other category.

    >>> vectors = ops.array([[0.0], [2.0], [1.0], [0.0], [4.0]])
    >>> float(alignment_loss(vectors, ops.array([2, 2, 2, 3, 3]), 4))  # (1 - 8)^2
    49.0
    """
    vectors = exact(vectors)
    member = ops.one_hot(category, categories, dtype=vectors.dtype)
    present = ops.cast(ops.arange(categories) > 0, vectors.dtype)
    count = ops.sum(member, axis=0) * present
    total = ops.matmul(ops.transpose(member), vectors)  # (G, d)
    mean = total / ops.maximum(ops.expand_dims(count, -1), 1.0)
    centred = vectors - ops.take(mean, category, axis=0)
    # (G, d, d): sum over the members of centred outer products.
    covariance = ops.einsum("ng,nd,ne->gde", member, centred, centred)
    covariance = covariance / ops.reshape(ops.maximum(count - 1.0, 1.0), (-1, 1, 1))
    major = ops.take(covariance, ops.argmax(count), axis=0)
    apart = ops.sum(ops.square(covariance - major), axis=(1, 2))
    return ops.sum(ops.where((count >= 2.0), apart, 0.0))


@keras.saving.register_keras_serializable(package="debias")
class AugmentedEncoder(keras.layers.Layer):
    """An `Encoder` with the augmented vector of the id as an additional field.

    Args:
        encoder: The encoder; its schema must have "id", and `extra_fields` must be 1.
        seed: int or None.

    >>> inner = Encoder({"id": {"kind": "categorical", "size": 9}}, 4, extra_fields=1)
    >>> tuple(AugmentedEncoder(inner)({"id": ops.array([2, 3])}).shape)
    (2, 4)
    """

    def __init__(self, encoder: Encoder, seed: int | None = None, **kwargs: Any):
        super().__init__(**{"autocast": False, **kwargs})
        if "id" not in encoder.schema:
            raise ValueError(f"schema must have 'id', got {list(encoder.schema)}")
        if encoder.embedding != encoder.dim:
            raise ValueError(
                "embedding must equal dim, because the augmented vector mimics the "
                f"tower's output; got {encoder.embedding} and {encoder.dim}"
            )
        if encoder.extra_fields != 1:
            raise ValueError(f"extra_fields must be 1, got {encoder.extra_fields}")
        self.encoder, self.seed = encoder, seed
        self.schema, self.history = encoder.schema, encoder.history
        self.augment = RowEmbedding(
            encoder.schema["id"]["size"], encoder.dim, seed=seed, name="augmented"
        )

    def build(self, input_shape: Any = None) -> None:
        if not self.encoder.built:
            self.encoder.build(None)

    def call(self, features: Mapping[str, Tensor], training: bool = False) -> Tensor:
        extra = self.augment(features["id"])
        return self.encoder(features, extra, training=training)

    def compute_output_shape(self, *_: Any, **__: Any) -> tuple[int | None, ...]:
        return (None, self.encoder.dim)

    def get_config(self) -> dict[str, Any]:
        encoder = keras.saving.serialize_keras_object(self.encoder)
        return {**super().get_config(), "encoder": encoder, "seed": self.seed}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "AugmentedEncoder":
        encoder = keras.saving.deserialize_keras_object(config["encoder"])
        return cls(**{**config, "encoder": encoder})


def _check_losses(
    items: Schema, category: str | None, mimic: float, alignment: float
) -> None:
    if min(mimic, alignment) < 0:
        raise ValueError(
            f"mimic and alignment must not be negative, got {mimic}, {alignment}"
        )
    if category is not None and items.get(category, {}).get("kind") != "categorical":
        raise ValueError(
            f"category must name a categorical feature of {list(items)}, got "
            f"{category!r}"
        )


def _encoders(
    users: Schema,
    items: Schema,
    history: str | None,
    length: int,
    normalize_users: bool,
    seed: int | None,
    **settings: Any,
) -> tuple[AugmentedEncoder, AugmentedEncoder]:
    """Both encoders of a `DAT`."""
    past = None
    if history is not None:
        past = {"kind": history, "length": length, "size": items["id"]["size"]}
    seeds = split_seed(seed, 4)
    names = ("dim", "combine", "hidden", "dropout", "unknown_rate", "scale")
    common: dict[str, Any] = {name: settings[name] for name in names}
    common["extra_fields"] = 1
    user = Encoder(
        users, history=past, normalize=normalize_users, seed=seeds[0], **common
    )
    item = Encoder(items, seed=seeds[2], **common)
    return AugmentedEncoder(user, seeds[1]), AugmentedEncoder(item, seeds[3])


@keras.saving.register_keras_serializable(package="debias")
class DAT(RetrievalModel):
    """Dual augmented two-tower model (DAT) with mimic and alignment losses.

    Each tower has an augmented vector as an additional input. In positive pairs, this
    vector learns to imitate the output of the other tower. So each tower gets
    information about the other tower as an input. The alignment loss makes the
    covariances of item vectors similar in all categories, so that rare categories
    benefit from the major category. The article uses the loss "pointwise" with random
    negatives. The default weights of the losses are from the article.

    Args:
        users, items: Schemas of users and items, which must have "id".
        category: Categorical item feature for the alignment loss.
        dim: Size of all vectors.
        hidden: Sizes of the hidden layers of both towers. The article uses hidden
            layers of 256 and 128 units, and output vectors of size 32.
        history, length: See `dssm`. The article's model reads no history.
        mimic: Weight of each mimic loss.
        alignment: Weight of the alignment loss.
        temperature, **kwargs: See `TwoTower`.
        normalize_users: See `dssm`.
        **options: Arguments `dropout`, `scale` and `unknown_rate` of `Encoder`.

    >>> schema = {"id": {"kind": "categorical", "size": 9}}
    >>> model = DAT(schema, schema, category=None, dim=4, history=None)
    >>> batch = {"user": {"id": ops.array([2])}, "item": {"id": ops.array([4, 5])}}
    >>> tuple(model(batch).shape)
    (1, 2)
    """

    def __init__(
        self,
        users: Schema,
        items: Schema,
        category: str | None = "category",
        dim: int = 32,
        hidden: Sequence[int] = (256, 128),
        history: str | None = "recency",
        length: int = 50,
        mimic: float = 0.5,
        alignment: float = 1.0,
        combine: str = "mlp",
        normalize_users: bool = False,
        dropout: float = 0.0,
        unknown_rate: float = 0.0,
        scale: float = 0.05,
        temperature: float = TEMPERATURE,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(temperature, **kwargs)
        _check_losses(items, category, mimic, alignment)
        self.settings: dict[str, Any] = {
            "users": {name: dict(kind) for name, kind in users.items()},
            "items": {name: dict(kind) for name, kind in items.items()},
            "category": category,
            "dim": dim,
            "hidden": list(hidden),
            "history": history,
            "length": length,
            "mimic": mimic,
            "alignment": alignment,
            "combine": combine,
            "normalize_users": normalize_users,
            "dropout": dropout,
            "unknown_rate": unknown_rate,
            "scale": scale,
            "seed": seed,
        }
        self.category, self.mimic, self.alignment = category, mimic, alignment
        self.categories = items[category]["size"] if category is not None else 0
        self.user, self.item = _encoders(**self.settings)

    def auxiliary(
        self, batch: Mapping[str, Any], users: Tensor, items: dict[str, Tensor]
    ) -> None:
        super().auxiliary(batch, users, items)
        read = ["id", self.category] if self.category is not None else ["id"]
        item = {name: self._positive(batch, name) for name in read}
        label = self.label_of(batch, items)
        self.pair_losses(batch["user"]["id"], item, users, label)

    def pair_losses(
        self,
        user: Tensor,
        item: Mapping[str, Tensor],
        users: Tensor,
        items: Tensor,
        weight: Tensor | None = None,
        scale: float = 1.0,
    ) -> None:
        if self.mimic:
            u, v = self.user.augment(user), self.item.augment(item["id"])
            both = mimic_loss(u, items, weight) + mimic_loss(v, users, weight)
            self.add_loss(scale * self.mimic * both)
        if self.alignment and self.category is not None:
            loss = alignment_loss(items, item[self.category], self.categories)
            self.add_loss(scale * self.alignment * loss)

    @staticmethod
    def _positive(batch: Mapping[str, Any], name: str) -> Tensor:
        """(B,) codes of a categorical feature, for the positive of each row."""
        place = ops.cast(batch["positive"], "int32")
        if "item" in batch:
            return ops.take(batch["item"][name], place, axis=0)
        place = ops.expand_dims(place, -1)
        return ops.take_along_axis(batch["own"][name], place, axis=1)[:, 0]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.settings}
