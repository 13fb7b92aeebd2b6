"""Embeddings of ids and of features, with vectors of the same size.

Codes follow `debias.retrieval.data.interactions.FeatureTable`: 0 is missing or padding,
1 is out of vocabulary, and known values start at 2.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from debias.data.text import one_of
from debias.losses.lists import exact
from debias.types import Tensor

UNKNOWN, FIRST = 1, 2
COMPRESS = ("hash", "quotient_remainder")


@keras.saving.register_keras_serializable(package="debias")
class RowEmbedding(keras.layers.Layer):
    """An embedding table whose cost per step is independent of the vocabulary size.

    On TensorFlow, this layer gathers rows directly from the variable.
    `keras.layers.Embedding` copies the whole table at every lookup after a sparse
    update. Train this layer with `debias.engine.optimizers.RowWiseAdam`, because
    Keras's adaptive optimisers take wrong steps for ids that repeat in a batch.

    Code 0 always gives the zero vector. The vector of code 1 (out of vocabulary) starts
    at zero, so an unseen value does not add noise.

    Set `compress` if the vocabulary does not fit into memory: all known values then
    share `rows` rows. The vector of a code is computed from n = code - 2:

        "hash":                vector = row[n mod rows]
        "quotient_remainder":  vector = row[n mod rows] * quotient[n div rows]

    "quotient_remainder" gives every code a vector of its own. "quotient_remainder"
    needs ceil((size - 2) / rows) additional rows. Vocabulary codes are consecutive
    numbers, so n mod rows acts as a hash of the value. No two of the first `rows`
    values share a row.

    Source: Weinberger et al., Feature Hashing for Large Scale Multitask Learning, ICML
    2009; Shi et al., Compositional Embeddings Using Complementary Partitions for
    Memory-Efficient Recommendation Systems, KDD 2020.

    Args:
        size: Number of codes, including the two reserved codes.
        dim: Dimension of a vector.
        scale: Standard deviation of the initial vectors.
        seed: int or None. Random seed of the initial vectors.
        compress: "hash", "quotient_remainder", or None for one row per code.
        rows: Number of shared rows. Required with `compress`, and None without
            `compress`.

    Shapes: ids of any shape `(...)` to `(..., dim)`.

    >>> float(ops.max(ops.abs(RowEmbedding(9, 4)(ops.array([0, 1])))))
    0.0
    """

    def __init__(
        self,
        size: int,
        dim: int,
        scale: float = 0.05,
        seed: int | None = None,
        compress: str | None = None,
        rows: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if size < 2 or dim < 1:
            raise ValueError(
                f"size must be at least 2 and dim at least 1, got {size} and {dim}"
            )
        check_compress(compress, rows)
        self.size, self.dim, self.scale, self.seed = size, dim, scale, seed
        self.compress, self.rows = compress, rows
        # Always full precision: an autocast would read and copy the whole table.
        self.table = self.add_weight(
            shape=(size if rows is None else FIRST + rows, dim),
            initializer=self._start,
            autocast=False,
            name="table",
        )
        self.quotients: Any = None
        if compress == "quotient_remainder" and rows is not None:
            self.quotients = self.add_weight(
                shape=(max(1, math.ceil((size - FIRST) / rows)), dim),
                initializer=self._spread,
                autocast=False,
                name="quotients",
            )
        self.built = True

    def _start(self, shape: tuple[int, ...], dtype: Any = None) -> Tensor:
        draw = keras.random.normal(
            (shape[0] - 2, shape[1]), stddev=self.scale, dtype=dtype, seed=self.seed
        )
        return ops.concatenate([ops.zeros((2, shape[1]), dtype), draw])

    def _spread(self, shape: tuple[int, ...], dtype: Any = None) -> Tensor:
        """Initial values of variance 1, so that products keep the variance of `row`."""
        seed = None if self.seed is None else self.seed + 1
        return keras.random.normal(shape, dtype=dtype, seed=seed)

    def call(self, ids: Tensor) -> Tensor:
        ids = ops.cast(ids, "int32")
        if self.rows is None:
            vectors = _gathered(self.table, ids)
        else:
            value = ops.maximum(ids - FIRST, 0)
            shared = ops.where(ids < FIRST, ids, FIRST + ops.mod(value, self.rows))
            vectors = _gathered(self.table, shared)
            if self.quotients is not None:
                part = _gathered(self.quotients, ops.floor_divide(value, self.rows))
                vectors = vectors * part
        vectors = ops.where(ops.expand_dims(ids, -1) > 0, vectors, 0.0)
        return ops.cast(vectors, self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        names = ("size", "dim", "scale", "seed", "compress", "rows")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def _gathered(table: Any, ids: Tensor) -> Tensor:
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.gather(table.value, ids)
    return ops.take(table, ids, axis=0)


def check_compress(compress: str | None, rows: int | None) -> None:
    """Raises ValueError if `compress` and `rows` are not a valid combination."""
    if compress is None and rows is None:
        return
    if compress not in COMPRESS:
        raise ValueError(one_of("compress", COMPRESS, compress))
    if rows is None or rows < 1:
        raise ValueError(f"rows must be at least 1 with compress, got {rows}")


def compressed(
    schema: Mapping[str, Mapping[str, Any]], compress: str | None, rows: int | None
) -> dict[str, dict[str, Any]]:
    """A copy of a schema in which values of the feature "id" share embedding rows.

    `RowEmbedding` explains `compress` and `rows`.

    >>> compressed({"id": {"kind": "categorical", "size": 9}}, "hash", 4)["id"]["rows"]
    4
    """
    check_compress(compress, rows)
    found = {name: dict(kind) for name, kind in schema.items()}
    if compress is not None and "id" in found:
        found["id"] |= {"compress": compress, "rows": rows}
    return found


def masked_mean(vectors: Tensor, mask: Tensor) -> Tensor:
    """Mean of the vectors at which `mask` is true, or zero if `mask` is all false.

    Shapes: vectors (..., m, d) and mask (..., m) to means (..., d).

    >>> float(masked_mean(ops.array([[2.0], [4.0], [9.0]]), ops.array([1, 1, 0]))[0])
    3.0
    """
    weight = ops.expand_dims(ops.cast(mask, vectors.dtype), -1)
    total = ops.sum(vectors * weight, axis=-2)
    return total / ops.maximum(ops.sum(weight, axis=-2), 1.0)


@keras.saving.register_keras_serializable(package="debias")
class FeatureEmbedding(keras.layers.Layer):
    """Embeds each feature as a vector of size `dim`, in the order of the schema.

    A categorical feature gets the learned vector of its value. A multi-valued feature
    gets the mean of the vectors of its values, or zero if it has no value. A numeric
    feature gets its value times a learned vector.

    Args:
        schema: Schema of the features, from `FeatureTable.schema` or from `compressed`,
            which adds "compress" and "rows" to the feature "id".
        dim: Dimension of the vector of each feature.
        unknown_rate: Probability of replacing a value of the feature "id" with the
            out-of-vocabulary code in training. The vector of the out-of-vocabulary code
            then learns to represent unseen ids.
        scale, seed: See `RowEmbedding`.

    Call arguments:
        features: Dict from feature name to an array: codes `(...)` of one value, codes
            `(..., m)` of m values, or numbers `(...)`. Features that are not in the
            schema are ignored.
        training: Whether `unknown_rate` applies.

    Returns:
        `(..., F, dim)`.

    >>> schema = {"id": {"kind": "categorical", "size": 5}, "age": {"kind": "numeric"}}
    >>> layer = FeatureEmbedding(schema, 3)
    >>> tuple(layer({"id": ops.array([2, 3]), "age": ops.array([0.5, 1.0])}).shape)
    (2, 2, 3)
    """

    def __init__(
        self,
        schema: Mapping[str, Mapping[str, Any]],
        dim: int,
        unknown_rate: float = 0.0,
        scale: float = 0.05,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**{"autocast": False, **kwargs})
        if not schema:
            raise ValueError("schema must name at least one feature, got none")
        if not 0.0 <= unknown_rate < 1.0:
            raise ValueError(f"unknown_rate must be in [0, 1), got {unknown_rate}")
        self.schema = {name: dict(kind) for name, kind in schema.items()}
        self.dim, self.unknown_rate = dim, unknown_rate
        self.scale, self.seed = scale, seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.tables: dict[str, keras.layers.Layer] = {}
        for place, (name, kind) in enumerate(self.schema.items()):
            own_seed = None if seed is None else seed * 1013 + place
            # A numeric feature has one vector, with code 2.
            size = 3 if kind["kind"] == "numeric" else kind["size"]
            self.tables[name] = RowEmbedding(
                size,
                dim,
                scale,
                own_seed,
                kind.get("compress"),
                kind.get("rows"),
                name=f"{name}_embedding",
            )
        self.built = True

    def call(self, features: Mapping[str, Tensor], training: bool = False) -> Tensor:
        absent = [name for name in self.schema if name not in features]
        if absent:
            raise ValueError(
                f"features must hold {list(self.schema)}, {absent} are absent"
            )
        fields = []
        for name, kind in self.schema.items():
            values, table = features[name], self.tables[name]
            if kind["kind"] == "numeric":
                vector = table(ops.full((1,), 2, "int32"))[0]
                wide = exact(vector)  # a number may exceed half precision
                wide = ops.expand_dims(ops.cast(values, wide.dtype), -1) * wide
                fields.append(ops.cast(wide, vector.dtype))
            elif kind["kind"] == "multivalued":
                fields.append(masked_mean(table(values), values > 0))
            else:
                if name == "id" and training and self.unknown_rate:
                    draw = keras.random.uniform(
                        ops.shape(values), seed=self.seed_generator
                    )
                    hide = (draw < self.unknown_rate) & (values > 0)
                    values = ops.where(hide, UNKNOWN, values)
                fields.append(table(values))
        return ops.stack(fields, axis=-2)

    def compute_output_shape(
        self, input_shape: Mapping[str, Sequence[int | None]]
    ) -> tuple[int | None, ...]:
        name, kind = next(iter(self.schema.items()))
        lead = tuple(input_shape[name])
        lead = lead[:-1] if kind["kind"] == "multivalued" else lead
        return (*lead, len(self.schema), self.dim)

    def get_config(self) -> dict[str, Any]:
        names = ("schema", "dim", "unknown_rate", "scale", "seed")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
