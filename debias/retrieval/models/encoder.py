"""Encoders, which map features and optionally a user's history to a vector."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from debias.data.text import one_of
from debias.engine.seeds import split_seed
from debias.layers.embedding import FeatureEmbedding, RowEmbedding
from debias.layers.tower import Tower
from debias.losses.lists import exact
from debias.retrieval.layers.fm import fm_sum
from debias.retrieval.layers.history import History
from debias.retrieval.layers.senet import SENet
from debias.types import Tensor

COMBINES = ("mlp", "fm", "senet")
HISTORY = "history"


def unit(vectors: Tensor) -> Tensor:
    """Scales vectors (the last axis) to length 1; a zero vector stays zero.

    The function uses at least single precision, because squares in half precision
    underflow and overflow.

    >>> [round(float(x), 4) for x in unit(ops.array([3.0, 4.0]))]
    [0.6, 0.8]
    """
    vectors = exact(vectors)
    square = ops.sum(ops.square(vectors), axis=-1, keepdims=True)
    return vectors * ops.rsqrt(ops.maximum(square, 1e-12))


def flat(fields: Tensor) -> Tensor:
    """Concatenates the fields, (..., F, d) to (..., F d)."""
    return ops.reshape(
        fields, (*ops.shape(fields)[:-2], fields.shape[-2] * fields.shape[-1])
    )


def _check_encoder(combine: str, dim: int, embedding: int, extra_fields: int) -> None:
    if combine not in COMBINES:
        raise ValueError(one_of("combine", COMBINES, combine))
    if combine == "fm" and embedding != dim:
        raise ValueError(
            f"embedding must equal dim ({dim}) if fields are summed, got {embedding}"
        )
    if extra_fields not in (0, 1):
        raise ValueError(f"extra_fields must be 0 or 1, got {extra_fields}")


def table_of_history(
    history: Mapping[str, Any],
    shared: RowEmbedding | None,
    dim: int,
    scale: float,
    seed: int | None,
) -> RowEmbedding:
    """The shared embedding table for histories, or a new table if `shared` is None.

    Raises:
        ValueError: The shared table and "size" are both missing, or the shared table
            does not have dimension `dim`.
    """
    if shared is not None:
        if shared.dim != dim:
            raise ValueError(
                f"history_table must have vectors of size {dim}, like the fields, got "
                f"{shared.dim}"
            )
        return shared
    if "size" not in history:
        raise ValueError(
            "history needs a size, or a history_table: the id_table of the item encoder"
        )
    shared_rows = history.get("compress"), history.get("rows")
    name = "history_embedding"
    return RowEmbedding(history["size"], dim, scale, seed, *shared_rows, name=name)


def history_of(features: Mapping[str, Tensor]) -> Tensor:
    """The entry "history" of `features`; raises ValueError if the entry is missing."""
    if HISTORY not in features:
        raise ValueError(
            f"features must hold {HISTORY!r}, (B, L) id codes, got {list(features)}"
        )
    return features[HISTORY]


def shared_table_config(encoder: Any) -> dict[str, Any] | None:
    """The config of an encoder's shared `history_table`; None if no table is shared."""
    if not encoder.shares_table:
        return None
    return keras.saving.serialize_keras_object(encoder.history_table)


def with_shared_table(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with `history_table` deserialised to a layer."""
    table = config.get("history_table")
    if isinstance(table, dict):
        table = keras.saving.deserialize_keras_object(table)
    return {**config, "history_table": table}


@keras.saving.register_keras_serializable(package="debias")
class Encoder(keras.layers.Layer):
    """Combines the fields of a user or an item into one vector.

    Fields are the embedded features. A history adds one or two vectors to the fields.
    "mlp" concatenates the fields and applies a `Tower` (DSSM). "senet" first reweights
    the fields by `SENet`. "fm" sums the fields, which then have size `dim`.

    Args:
        schema: Features to read, from `FeatureTable.schema`. The schema may be empty if
            the encoder reads a history.
        dim: Dimension of the vector.
        combine: str. One of `COMBINES`.
        hidden: Sizes of the hidden layers.
        embedding: Dimension of a field. If None, it is `dim`.
        history: Keyword arguments of `debias.retrieval.layers.history.History`. If
            None, the encoder reads no history. If `history_table` is None, also give
            "size", the number of item id codes, and optionally "compress" and "rows" of
            `RowEmbedding`. The encoder reads (B, L) id codes from the entry "history"
            of the features.
        history_table: Shared embedding table for the items of a history, such as the
            `id_table` of the item encoder. If None, the encoder makes a separate table.
        extra_fields: Number of additional fields that the caller passes as `extra`, 0
            or 1.
        normalize: Whether the vector has length 1, so that inner products are cosines.
        unknown_rate: See `FeatureEmbedding`.
        dropout: Dropout rate of the tower or, with "fm", of the entries of the fields.
        reduction: Reduction of `SENet`.
        scale: Standard deviation of initial embeddings.
        seed: int or None. Random seed of all initial weights and draws.

    Call arguments:
        features: Dict from `FeatureTable.take`, with "history" if the encoder reads a
            history. If `extra_fields` is 1, `extra` is an additional field (..., d).

    Returns:
        (..., dim) vectors, normalised if `normalize` is true. An exported encoder
        returns the same vectors as in training, but applies neither dropout nor
        `unknown_rate`.

    >>> schema = {"id": {"kind": "categorical", "size": 9}}
    >>> past = {"kind": "mean", "length": 3, "size": 7}
    >>> user = Encoder(schema, 4, "fm", history=past)
    >>> tuple(user({"id": ops.array([2]), "history": ops.array([[3, 4, 0]])}).shape)
    (1, 4)
    """

    def __init__(
        self,
        schema: Mapping[str, Mapping[str, Any]],
        dim: int = 64,
        combine: str = "mlp",
        hidden: Sequence[int] = (128,),
        embedding: int | None = None,
        history: Mapping[str, Any] | None = None,
        history_table: RowEmbedding | None = None,
        extra_fields: int = 0,
        normalize: bool = True,
        unknown_rate: float = 0.0,
        dropout: float = 0.0,
        reduction: int = 2,
        scale: float = 0.05,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**{"autocast": False, **kwargs})
        embedding = dim if embedding is None else embedding
        _check_encoder(combine, dim, embedding, extra_fields)
        if not schema and history is None:
            raise ValueError(
                "schema must name at least one feature if no history is read"
            )
        self.schema = {name: dict(kind) for name, kind in schema.items()}
        self.dim, self.combine, self.hidden = dim, combine, tuple(hidden)
        self.embedding, self.normalize = embedding, normalize
        self.unknown_rate, self.dropout = unknown_rate, dropout
        self.reduction, self.scale, self.seed = reduction, scale, seed
        self.history = None if history is None else dict(history)
        self.extra_fields = extra_fields

        seeds = split_seed(seed, 5)
        self.fields = None
        if self.schema:
            self.fields = FeatureEmbedding(
                self.schema, embedding, unknown_rate, scale, seeds[0], name="fields"
            )
        self.history_table: Any = None
        self.pool: Any = None
        self.shares_table = history_table is not None
        if self.history is not None:
            self.history_table = table_of_history(
                self.history, history_table, embedding, scale, seeds[1]
            )
            own = ("size", "compress", "rows")
            pooling = {k: v for k, v in self.history.items() if k not in own}
            self.pool = History(**{"seed": seeds[2], **pooling}, name="pool")
        self.reweigh = SENet(reduction, seed=seeds[3]) if combine == "senet" else None
        self.mix = None
        if combine == "fm":
            self.drop = keras.layers.Dropout(dropout, seed=seeds[4])
        else:
            self.mix = Tower(self.hidden, dim, dropout=dropout, seed=seeds[4])

    @property
    def id_table(self) -> RowEmbedding:
        """The embedding table of the feature "id", which a history may share.

        Raises:
            ValueError: The schema has no "id".
        """
        if self.fields is None or "id" not in self.schema:
            raise ValueError(f"schema must have 'id', got {list(self.schema)}")
        table: RowEmbedding = self.fields.tables["id"]
        return table

    @property
    def field_names(self) -> list[str]:
        """Names of the fields, in the order of SENet's weights."""
        pooled = self.pool.fields if self.pool is not None else 0
        return [*self.schema, *(f"history_{i}" for i in range(pooled))]

    def build(self, input_shape: Any = None) -> None:
        count = len(self.field_names) + self.extra_fields
        if self.pool is not None:
            length = self.pool.length
            self.pool.build((None, length, self.embedding), (None, length))
        if self.reweigh is not None:
            self.reweigh.build((None, count, self.embedding))
        if self.mix is not None:
            self.mix.build((None, count * self.embedding))

    def embed(
        self,
        features: Mapping[str, Tensor],
        extra: Tensor | None = None,
        training: bool = False,
    ) -> Tensor:
        """The fields (..., F, d) before combination."""
        parts = []
        if self.fields is not None:
            parts.append(self.fields(features, training=training))
        if self.pool is not None:
            codes = history_of(features)
            vectors = self.history_table(codes)
            parts.append(self.pool(vectors, codes > 0, training=training))
        if extra is not None:
            parts.append(ops.expand_dims(extra, -2))
        return parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=-2)

    def importance(self, features: Mapping[str, Tensor]) -> Tensor:
        """SENet's weights (..., F) for the features, ordered like `field_names`."""
        if self.reweigh is None:
            raise ValueError("importance needs combine='senet'")
        return self.reweigh.importance(self.embed(features))

    def call(
        self,
        features: Mapping[str, Tensor],
        extra: Tensor | None = None,
        training: bool = False,
    ) -> Tensor:
        fields = self.embed(features, extra, training)
        if self.reweigh is not None:
            fields = self.reweigh(fields)
        if self.mix is not None:
            vectors = self.mix(flat(fields), training=training)
        else:
            vectors = fm_sum(exact(self.drop(fields, training=training)))
        return unit(vectors) if self.normalize else exact(vectors)

    def compute_output_shape(self, *_: Any, **__: Any) -> tuple[int | None, ...]:
        return (None, self.dim)

    def get_config(self) -> dict[str, Any]:
        names = ("schema", "dim", "combine", "embedding", "history", "normalize")
        more = ("extra_fields", "unknown_rate", "dropout", "reduction", "scale", "seed")
        own = {name: getattr(self, name) for name in (*names, *more)}
        own["history_table"] = shared_table_config(self)
        return {**super().get_config(), **own, "hidden": list(self.hidden)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Encoder":
        return cls(**with_shared_table(config))


def tower(encoder: Any) -> keras.Model:
    """Makes a Keras model of an encoder, which maps a dict of features to vectors.

    The model shares the weights of `encoder` and returns the same vectors as in
    training. Save or export the model like any Keras model.

    >>> encoder = Encoder({"id": {"kind": "categorical", "size": 9}}, 4)
    >>> tuple(tower(encoder)({"id": ops.array([2, 3])}).shape)
    (2, 4)
    """
    inputs = {}
    for name, kind in encoder.schema.items():
        shape = (None,) if kind["kind"] == "multivalued" else ()
        dtype = "float32" if kind["kind"] == "numeric" else "int32"
        inputs[name] = keras.Input(shape, name=name, dtype=dtype)
    if encoder.history is not None:
        length = encoder.history["length"]
        inputs[HISTORY] = keras.Input((length,), name=HISTORY, dtype="int32")
    return keras.Model(inputs, encoder(inputs), name="tower")


def encode(
    encoder: keras.Model | keras.layers.Layer,
    features: Mapping[str, np.ndarray],
    block: int = 4096,
) -> np.ndarray:
    """Encodes many rows in blocks; maps NumPy arrays to a NumPy array.

    Args:
        encoder: The encoder of users or items, or a model from `tower`.
        features: Dict from feature name to an (n,) or (n, m) array.

    Returns:
        (n, dim) or, for K interests, (n, K, dim) float32.
    """
    rows = len(next(iter(features.values())))
    parts = [
        ops.convert_to_numpy(
            encoder(
                {
                    k: ops.convert_to_tensor(v[i : i + block])
                    for k, v in features.items()
                }
            )
        )
        for i in range(0, max(rows, 1), block)
    ]
    return np.concatenate(parts).astype(np.float32, copy=False)
