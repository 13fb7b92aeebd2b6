"""Relevance towers, which read the features of an item and never its place.

Any Keras layer that maps `(..., F)` to `(..., out)` can replace `Tower`.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from debias.data.kinds import Feature, coded_columns, starts
from debias.data.scaling import moments
from debias.engine.seeds import seed_at
from debias.engine.tensors import glorot, rowwise
from debias.types import Tensor


def symlog(x: Tensor) -> Tensor:
    """sign(x) log(1 + |x|), which compresses heavy tails and keeps sign and order.

    >>> [round(float(value), 4) for value in symlog(np.array([-1.0, 0.0, 99.0]))]
    [-0.6931, 0.0, 4.6052]
    """
    return ops.sign(x) * ops.log1p(ops.abs(x))


@keras.saving.register_keras_serializable(package="debias")
class Standardize(keras.layers.Layer):
    """Scales heavy-tailed features to (symlog(x) - mean) / standard deviation.

    The mean and the standard deviation are computed from symlog(x), so a scaled feature
    has mean 0 and variance 1. A feature that never varies becomes 0. Apply the layer to
    the table of items once, before training. The serving model reads raw features, so
    pass the same layer to `ranker(model, preprocess=...)`.

    If the data has `kinds`, its first columns are the codes of categories, which do not
    change. A missing number (NaN) becomes 0, the mean of a scaled feature. Each feature
    with missing numbers gets an additional column, which is 1 at missing numbers and 0
    at known numbers.

    Args:
        codes: Number of leading columns that hold codes.
        linear: Indices of the date columns, which are scaled without symlog.
        missing: Indices of the columns for which an indicator of missing numbers is
            appended. `adapt` sets these indices unless `missing` is None. With
            `missing=None`, no indicator is appended, and NaN stays NaN.

    Shapes: `(..., F)` to `(..., F + len(missing))`.

    >>> layer = Standardize()
    >>> scaled = np.asarray(layer.adapt(np.array([[0.0], [1.0], [9.0]]))(
    ...     np.array([[0.0], [1.0], [9.0]])))
    >>> bool(abs(scaled.mean()) < 1e-6), bool(abs(scaled.std() - 1) < 1e-6)
    (True, True)
    >>> layer = Standardize(codes=1, missing=())
    >>> rows = np.array([[7.0, 0.0], [9.0, np.nan], [8.0, 2.0]])
    >>> np.round(np.asarray(layer.adapt(rows)(rows)), 3).tolist()
    [[7.0, -1.0, 0.0], [9.0, 0.0, 1.0], [8.0, 1.0, 0.0]]
    """

    def __init__(
        self,
        codes: int = 0,
        linear: Sequence[int] = (),
        missing: Sequence[int] | None = None,
        **kwargs: Any,
    ):
        # Raw features need the range of float32, whatever the precision of the towers.
        super().__init__(**{"dtype": "float32", **kwargs})
        self.codes, self.linear = codes, tuple(linear)
        self.missing = None if missing is None else tuple(missing)

    @classmethod
    def of(cls, features: Sequence[Feature] | None) -> "Standardize":
        """Makes a layer from the kinds of the features, such as `RankingData.kinds`."""
        if features is None:
            return cls()
        start = starts(tuple(features))
        dates = [start[each.name] for each in features if each.kind == "date"]
        return cls(coded_columns(tuple(features)), dates, ())

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        size = (input_shape[-1],)
        self.mean = self.add_weight(
            shape=size, initializer="zeros", trainable=False, name="mean"
        )
        self.scale = self.add_weight(
            shape=size, initializer="ones", trainable=False, name="scale"
        )

    def adapt(
        self, features: np.ndarray, rows: np.ndarray | None = None
    ) -> "Standardize":
        """Sets the mean and the standard deviation, and returns the layer.

        Args:
            features: (N, F) features of all items.
            rows: (N,) bool mask of the items to use. None uses all items.
        """
        if np.ndim(features) != 2 or len(features) == 0:
            raise ValueError(
                f"features must be (items, F) with items > 0, got {np.shape(features)}"
            )
        if not self.weights:
            self.build((None, np.shape(features)[1]))
            self.built: bool = True
        gaps = self.missing is not None
        found = moments(features, rows, self.linear, gaps)
        self.missing = found.missing
        self.mean.assign(found.mean)
        self.scale.assign(found.scale)
        return self

    def call(self, features: Tensor) -> Tensor:
        if features.shape[-1] != self.mean.shape[0]:  # otherwise it would broadcast
            raise ValueError(
                f"this layer scales {self.mean.shape[0]} features, got "
                f"{features.shape[-1]}"
            )
        if self.missing is None:
            return (symlog(features) - self.mean) * self.scale
        gone = ops.isnan(features)
        known = ops.where(gone, 0.0, features)
        dates = np.isin(np.arange(self.mean.shape[0]), self.linear)
        squeezed = ops.where(dates, known, symlog(known))
        scaled = ops.where(gone, 0.0, (squeezed - self.mean) * self.scale)
        parts = [features[..., : self.codes], scaled[..., self.codes :]]
        if self.missing:
            marks = ops.take(gone, np.array(self.missing), axis=-1)
            parts.append(ops.cast(marks, scaled.dtype))
        return ops.concatenate(parts, axis=-1)

    def compute_output_shape(
        self, input_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        *lead, last = input_shape
        return (*lead, None if last is None else last + len(self.missing or ()))

    def get_config(self) -> dict[str, Any]:
        own = {"codes": self.codes, "linear": self.linear, "missing": self.missing}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="debias")
class Tower(keras.layers.Layer):
    """A multilayer perceptron over item features.

    Args:
        hidden: Sizes of the hidden layers; empty for a linear tower.
        out: Size of the output: 1 for a relevance logit, more for an embedding.
        activation: Keras activation of the hidden layers.
        dropout: Rate of dropout after each hidden layer, in [0, 1).
        seed: int or None. Random seed of the initial weights and the dropout.

    Shapes: `(..., F)` to `(..., out)`.

    >>> Tower(hidden=(8,), out=3)(np.zeros((2, 10, 5))).shape[-1]
    3
    """

    def __init__(
        self,
        hidden: Sequence[int] = (64, 32),
        out: int = 1,
        activation: str = "relu",
        dropout: float = 0.0,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if any(size < 1 for size in (*hidden, out)):
            raise ValueError(f"hidden and out must be positive, got {hidden} and {out}")
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout must be in [0, 1), got {dropout}")
        self.hidden = tuple(hidden)
        self.out = out
        self.activation = activation
        self.dropout = dropout
        self.seed = seed
        self.steps: list[keras.layers.Layer] = []
        for place, size in enumerate(self.hidden):
            kernel = glorot(seed, place)
            self.steps.append(
                keras.layers.Dense(size, activation, kernel_initializer=kernel)
            )
            if dropout:
                self.steps.append(
                    keras.layers.Dropout(dropout, seed=seed_at(seed, place))
                )
        kernel = glorot(seed, len(self.hidden))
        self.steps.append(keras.layers.Dense(out, kernel_initializer=kernel))

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        for step in self.steps:
            step.build(input_shape)
            input_shape = step.compute_output_shape(input_shape)

    def call(self, features: Tensor, training: bool = False) -> Tensor:
        def outputs(x: Tensor) -> Tensor:
            for step in self.steps:
                if isinstance(step, keras.layers.Dropout):
                    x = step(x, training=training)
                else:
                    x = step(x)
            return x

        return rowwise(outputs, features)

    @property
    def intercept(self) -> Any:
        """The bias vector (out,) of the last layer of a built tower."""
        return self.steps[-1].bias

    def compute_output_shape(
        self, input_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        return (*input_shape[:-1], self.out)

    def get_config(self) -> dict[str, Any]:
        own = {
            "hidden": list(self.hidden),
            "out": self.out,
            "activation": self.activation,
            "dropout": self.dropout,
            "seed": self.seed,
        }
        return {**super().get_config(), **own}
