"""A retrieval model as the relevance tower of a click model."""

from collections.abc import Mapping
from typing import Any, Self

import keras
import numpy as np
from keras import ops

from debias.retrieval.models.two_tower import RetrievalModel
from debias.types import Tensor


@keras.saving.register_keras_serializable(package="debias")
class PairRelevance(keras.layers.Layer):
    """Relevance of an item to a user: the retrieval model's score plus an offset.

    This layer can be the relevance tower of any click model. The bias tower of the
    click model then explains the effect of position. Serving needs only the score u . v
    / temperature, from `model.user_vectors`, `model.item_vectors` and an index. The
    offset is equal for all pairs, so it does not change the order of items.

    In the log of the click model, the features of an item are the pair (row of the
    user, row of the item). Features are float32, so rows must be below 2^24. The layer
    stores the feature tables as fixed weights, and looks up features by row.

    Some models have losses on positive pairs (`pair_losses`), such as the mimic and
    alignment losses of DAT. In training, the pair losses weight each shown pair by its
    relevance sigmoid(score), without a gradient through the weight. The DAT article
    weights pairs by clicks, which are biased.

    Args:
        model: A retrieval model.
        users, items: Features from `FeatureTable.columns`. If the model reads a
            history, `users` must have the entry "history".
        shared_by: Number of mixture components that share the layer. Each component
            calls the layer once per step, and each call adds 1 / shared_by of the pair
            losses.

    Shapes: `(B, L, 2)` for lists, or `(B, 2)` for pairs. All pairs of a list have the
    same user. The result has shape `(..., 1)`.

    >>> from debias.retrieval.models import fm_tower
    >>> schema = {"id": {"kind": "categorical", "size": 9}}
    >>> rows = {"id": np.arange(2, 9, dtype="int32")}
    >>> layer = PairRelevance(fm_tower(schema, schema, 4, history=None), rows, rows)
    >>> pairs = np.array([[[0, 5], [0, 6]]], "float32")  # user 0 is shown items 5, 6
    >>> tuple(layer(pairs).shape)
    (1, 2, 1)
    """

    def __init__(
        self,
        model: RetrievalModel,
        users: Mapping[str, np.ndarray],
        items: Mapping[str, np.ndarray],
        shared_by: int = 1,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if shared_by < 1:
            raise ValueError(f"shared_by must be at least 1, got {shared_by}")
        self.model, self.shared_by = model, shared_by
        self.tables: dict[str, dict[str, Any]] = {}
        for side, columns in (("user", users), ("item", items)):
            rows = len(next(iter(columns.values())))
            if rows >= 1 << 24:
                raise ValueError(f"{side}s must be fewer than 2^24 rows, got {rows}")
            self.tables[side] = {
                name: self._constant(f"{side}_{name}", np.asarray(column))
                for name, column in columns.items()
            }
        self.offset = self.add_weight(shape=(), initializer="zeros", name="offset")

    def _constant(self, name: str, values: np.ndarray) -> Any:
        table = self.add_weight(
            shape=values.shape,
            dtype="float32" if values.dtype.kind == "f" else "int32",
            initializer="zeros",
            trainable=False,
            autocast=False,
            name=name,
        )
        table.assign(values)
        return table

    def build(self, input_shape: Any = None) -> None:
        if not self.model.built:
            self.model.build(None)

    def _rows(self, side: str, rows: Tensor) -> dict[str, Tensor]:
        rows = ops.cast(rows, "int32")
        return {
            name: ops.take(column, rows, axis=0)
            for name, column in self.tables[side].items()
        }

    def call(self, features: Tensor, training: bool = False) -> Tensor:
        features = ops.convert_to_tensor(features)
        if len(features.shape) == 2:
            return self.call(ops.expand_dims(features, 1), training)[:, 0]
        # Padding is the pair (0, 0), so the largest user row of a list is its user.
        user = self._rows("user", ops.max(features[..., 0], axis=1))
        item = self._rows("item", features[..., 1])
        users = self.model.encode_user({"user": user}, training)
        items = self.model.encode_item(item, training)
        scores = self.model.match(
            users, items / self.model.temperature, {"user": user}, None
        )
        logits = scores + self.offset
        if training and len(users.shape) == 2:
            self._pair_losses(user, item, users, items, logits)
        return ops.expand_dims(logits, -1)

    def _pair_losses(
        self,
        user: dict[str, Tensor],
        item: dict[str, Tensor],
        users: Tensor,
        items: Tensor,
        logits: Tensor,
    ) -> None:
        """Adds the losses of the model on all (user, item) pairs of the lists."""
        each = ops.zeros_like(item["id"])
        known = {
            name: ops.reshape(column, (-1,))
            for name, column in item.items()
            if len(column.shape) == 2
        }
        size = items.shape[-1]
        alike = ops.expand_dims(users, 1) + ops.zeros_like(items)
        self.model.pair_losses(
            ops.reshape(ops.expand_dims(user["id"], 1) + each, (-1,)),
            known,
            ops.reshape(alike, (-1, size)),
            ops.reshape(items, (-1, size)),
            ops.reshape(ops.sigmoid(logits), (-1,)),
            1.0 / self.shared_by,
        )

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        return (*input_shape[:-1], 1)

    def get_config(self) -> dict[str, Any]:
        tables = {
            f"{side}s": {
                name: {"shape": list(table.shape), "dtype": str(table.dtype)}
                for name, table in columns.items()
            }
            for side, columns in self.tables.items()
        }
        own = {"model": self.model, "shared_by": self.shared_by}
        return {**super().get_config(), **own, **tables}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        model = config["model"]
        if not isinstance(model, keras.Model):
            model = keras.saving.deserialize_keras_object(model)
        tables = {
            side: {name: np.zeros(**of) for name, of in config[side].items()}
            for side in ("users", "items")
        }
        return cls(**{**config, "model": model, **tables})
