"""Bias towers, which read where and how an item is displayed.

A bias tower reads only the layout columns of a batch, such as position and device. Any
Keras layer that maps the batch dict to `(batch, list_size, out)` can replace
`BiasTower`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from debias.engine.seeds import seed_at
from debias.engine.tensors import checked_ids, glorot, lookup, rowwise
from debias.types import Tensor


@keras.saving.register_keras_serializable(package="debias")
class BiasTower(keras.layers.Layer):
    """Embeds each layout column, then applies an optional perceptron.

    Each column has an embedding table with one row per id. Without hidden layers, the
    output is the sum of the embeddings of all columns. With the single column
    `{"position": 10}`, the tower learns one bias per position. A pair of crossed
    columns adds a table with one row per pair of ids. Crossing position and badge lets
    the effect of a badge depend on the position. Id 0 means missing or padding, and has
    its own row. An id above the largest id of its column raises an error, even inside a
    TensorFlow graph. XLA, which compiles every `fit` on JAX, cannot check ids. With
    XLA, only a list longer than the table of positions raises an error.

    Args:
        columns: Dict from column name to largest id, such as `{"position": 10,
            "device": 3}`.
        hidden: Sizes of hidden layers, which let columns interact.
        out: Dimension of the output: 1 for a bias logit, more for an embedding.
        dropout: Probability of hiding the layout of a whole list in training. Relevance
            alone then has to explain the clicks of the list. Source: after Zhao et al.,
            Recommending What Video to Watch Next, RecSys 2019, who use a dropout rate
            of 0.1.
        init_std: Standard deviation of the initial embeddings. With `init_std=0`,
            mixture components that share a relevance tower start identical, and
            training cannot separate them.
        center: Mean of the initial embeddings. Keep the mean near 0 in models that
            multiply relevance by bias embeddings, such as `Dot`. If the mean is far
            from 0, the initial ranking is the same for all places.
        seed: int or None. Random seed of the initial embeddings and the dropout.
        cross: Pairs of columns to cross, such as `[("position", "badge")]`.
        merge: Dict from column name to a list whose entry i replaces id i, such as
            `{"position": [0, 1, 2, 2]}`. Ids with the same replacement share a bias.
            `debias.propensity.merge_places` computes a list that merges positions.

    Call arguments:
        batch: Dict from column name to integer ids `(batch, list_size)`, or `(batch,)`
            if all items of a list share an id.
        training: Whether `dropout` applies.

    Returns:
        `(batch, list_size, out)`.

    >>> import numpy as np
    >>> tower = BiasTower({"position": 3}, out=2)
    >>> tuple(tower({"position": np.array([[1, 2, 3, 0]])}).shape)
    (1, 4, 2)
    """

    def __init__(
        self,
        columns: Mapping[str, int],
        hidden: Sequence[int] = (),
        out: int = 1,
        dropout: float = 0.0,
        init_std: float = 0.05,
        center: float = 0.0,
        seed: int | None = None,
        merge: Mapping[str, Sequence[int]] | None = None,
        cross: Sequence[Sequence[str]] = (),
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if not columns:
            raise ValueError("columns must name at least one layout column, got none")
        for name, size in columns.items():
            if size < 1:
                raise ValueError(f"columns[{name!r}] must be at least 1, got {size}")
        if any(size < 1 for size in (*hidden, out)):
            raise ValueError(f"hidden and out must be positive, got {hidden} and {out}")
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout must be in [0, 1), got {dropout}")
        self.columns = dict(columns)
        self.merge = {
            name: _merged(name, ids, self.columns)
            for name, ids in (merge or {}).items()
        }
        self.cross = [(one, other) for one, other in cross]
        for name in {name for pair in self.cross for name in pair} - {*columns}:
            raise ValueError(
                f"cross names column {name!r}, but columns has {[*columns]}"
            )
        self.hidden = tuple(hidden)
        self.out = out
        self.dropout = dropout
        self.init_std = init_std
        self.center = center
        self.seed = seed
        self.draw = keras.random.SeedGenerator(seed)
        self.perceptron: list[keras.layers.Layer] = []
        if self.hidden:
            sizes = [*((n, "relu") for n in self.hidden), (out, None)]
            self.perceptron = [
                keras.layers.Dense(
                    size, activation, kernel_initializer=glorot(seed, 500 + place)
                )
                for place, (size, activation) in enumerate(sizes)
            ]

    def build(self, input_shape: Any = None) -> None:
        width = self.hidden[0] if self.hidden else self.out
        sizes = {name: size + 1 for name, size in self.columns.items()}
        self.tables = {
            name: self._table(name, size, width, place, self.center)
            for place, (name, size) in enumerate(sizes.items())
        }
        # Starts around 0: the joint effect of the two columns beyond their separate
        # effects.
        self.crossed = [
            self._table(
                f"{one}_{other}", sizes[one] * sizes[other], width, 100 + place, 0.0
            )
            for place, (one, other) in enumerate(self.cross)
        ]
        inputs = width * (len(self.columns) + len(self.cross))
        shape: tuple[int | None, ...] = (None, None, inputs)
        for layer in self.perceptron:
            layer.build(shape)
            shape = layer.compute_output_shape(shape)

    def _table(self, name: str, size: int, width: int, place: int, mean: float) -> Any:
        initializer = keras.initializers.RandomNormal(
            mean=mean, stddev=self.init_std, seed=seed_at(self.seed, place)
        )
        return self.add_weight(shape=(size, width), initializer=initializer, name=name)

    def ids(self, batch: Mapping[str, Tensor], name: str) -> Tensor:
        """Checked and merged ids of a column, `(batch, list_size)` or `(batch, 1)`."""
        if name not in batch:
            raise ValueError(
                f"the bias tower reads column {name!r}, but the batch has "
                f"{sorted(batch)}"
            )
        ids = ops.convert_to_tensor(batch[name])
        ids = ids if len(ids.shape) == 2 else ops.expand_dims(ids, -1)
        size = self.columns[name]
        largest = _largest(ids)
        if largest is None:  # inside a graph, the list size bounds the place
            largest = ids.shape[1] if name == "position" else None
        built_for = (
            f"but the bias tower was built for {size}: cut the lists, or train on "
            "lists of this length"
        )
        if largest is not None and largest > size:
            raise ValueError(f"column {name!r} reaches {largest}, {built_for}")
        ids = checked_ids(ids, size, f"column {name!r} is out of range, {built_for}")
        return ops.take(self.merge[name], ids) if name in self.merge else ids

    def call(self, batch: Mapping[str, Tensor], training: bool = False) -> Tensor:
        ids = {name: self.ids(batch, name) for name in self.columns}
        if training and self.dropout:
            lists = ops.shape(ids[next(iter(ids))])[0]
            shown = keras.random.uniform((lists, 1), seed=self.draw) >= self.dropout
            ids = {name: ops.where(shown, column, 0) for name, column in ids.items()}
        rows = [lookup(self.tables[name], column) for name, column in ids.items()]
        for (one, other), table in zip(self.cross, self.crossed, strict=True):
            both = ids[one] * (self.columns[other] + 1) + ids[other]
            rows.append(lookup(table, both))
        if not self.perceptron:
            return sum(rows[1:], rows[0])
        longest = max(rows, key=lambda row: row.shape[1] or 0)
        rows = [ops.broadcast_to(row, ops.shape(longest)) for row in rows]
        x = ops.concatenate(rows, axis=-1)
        for layer in self.perceptron:
            x = rowwise(layer, x)
        return x

    def get_config(self) -> dict[str, Any]:
        own = {
            "columns": self.columns,
            "hidden": list(self.hidden),
            "out": self.out,
            "dropout": self.dropout,
            "init_std": self.init_std,
            "center": self.center,
            "seed": self.seed,
            "merge": self.merge,
            "cross": self.cross,
        }
        return {**super().get_config(), **own}


def _merged(name: str, ids: Sequence[int], columns: Mapping[str, int]) -> list[int]:
    """Checks the ids that replace the ids of a column."""
    if name not in columns:
        raise ValueError(
            f"merge names column {name!r}, but columns has {sorted(columns)}"
        )
    size, found = columns[name], np.asarray(ids)
    if found.shape != (size + 1,) or found.dtype.kind not in "iu":
        raise ValueError(
            f"merge[{name!r}] must be {size + 1} ids, each in 0..{size}, got {ids}"
        )
    if found[0] != 0 or not ((found >= 0) & (found <= size)).all():
        raise ValueError(
            f"merge[{name!r}] must be in 0..{size} and must keep 0 (missing), got {ids}"
        )
    return found.tolist()


def _largest(ids: Tensor) -> int | None:
    """The largest id; None inside a graph, where values are not known."""
    try:
        return int(ops.max(ids)) if 0 not in ids.shape else 0
    except TypeError:
        return None
