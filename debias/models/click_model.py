"""Base class of click models, which train on clicks and rank by relevance.

A click model reads a batch: a dict of `features`, `mask`, `position` and the other
layout columns of the log. A click model returns click logits `(batch, list_size)`.
Keras's `compile` and `fit` train a click model. The method `score` reads only features,
and `ranker` wraps this method as a separate model to save and serve.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Self

import keras
import numpy as np
from keras import ops

from debias.data.kinds import Features, as_records, of_records
from debias.data.tables import Streamed
from debias.engine.scoring import encoded
from debias.engine.steps import MakesExecutions, SteppingModel, loop_over_log
from debias.engine.tensors import rowwise
from debias.layers import BiasTower, Tower
from debias.losses import click_cross_entropy
from debias.losses.lists import exact
from debias.types import Batch, Place, Tensor

COUNTED = {"epochs", "initial_epoch", "verbose", "callbacks", "shuffle"} | {
    f"validation_{name}" for name in ("data", "steps", "batch_size", "freq")
}  # arguments of `fit` that a compiled loop can use beside a dataset
LAYOUT = ("position", "row", "column", "device")  # place of an item


class ClickModel(SteppingModel):
    """Base class of click models, with a default loss and serialisation.

    A subclass defines `call(batch, training)`, which returns click logits, and
    `score(features)`, which returns ranking scores. The constructor of a subclass
    passes a dict of its arguments to `super().__init__(arguments)`. The methods
    `get_config` and `from_config` use this dict.
    """

    predicts_clicks = True  # False if `click_logits` are scores without a scale
    takes_weight = True  # False if `session_losses` cannot weight single cells

    def __init__(self, arguments: Mapping[str, Any], **kwargs: Any):
        super().__init__(**kwargs)
        self._arguments = dict(arguments)

    def score(self, features: Tensor) -> Tensor:
        """Relevance scores `(...)` of features `(..., F)`; higher scores rank first."""
        raise NotImplementedError

    def logits_at(self, features: Tensor, place: Place) -> Tensor:
        """Click logits `(...)` of items at `place`, each as the only item of its list.

        Args:
            features: `(..., F)`.
            place: Dict from layout column to id, or an int to use as the id of
                position, row and column. All other columns get id 0, which means
                missing.
        """
        alone = ops.reshape(features, (-1, 1, features.shape[-1]))  # lists of one item
        nowhere = ops.cast(ops.zeros_like(alone[..., 0]), "int32")
        read = [name for tower in self._bias_towers() for name in tower.columns]
        layout = {name: nowhere + id for name, id in layout_of(place, read).items()}
        batch = {"features": alone, "mask": nowhere == 0, **layout}
        return ops.reshape(
            self.click_logits(batch, self(batch)), ops.shape(features)[:-1]
        )

    def click_logits(self, batch: Batch, outputs: Any) -> Tensor:
        """Click logits `(batch, list_size)` from the output of `call`."""
        return outputs

    def conditional_click_logits(
        self, batch: Batch, clicks: Tensor, outputs: Any
    ) -> Tensor:
        """Logits of each click given the clicks above it, from the output of `call`.

        Evaluation uses these conditional logits. A mixture infers the type of user from
        the clicks above an item. In other models, conditional and unconditional logits
        are equal. `clicks` are -1 at padding.
        """
        return self.click_logits(batch, outputs)

    def session_losses(
        self, batch: Batch, clicks: Tensor, outputs: Any, training: bool = False
    ) -> Tensor:
        """Default loss: -log P(clicks) of each session in nats, `(batch,)`.

        The loss of a session is the sum of the losses of its cells. A `weight` in the
        batch multiplies the losses of the cells.
        """
        return click_cross_entropy(clicks, outputs, batch.get("weight"))

    def learn_from(self, batch: Batch, clicks: Tensor, outputs: Any) -> None:
        """Updates values that gradients do not train, once per training batch."""

    def intercepts(self) -> list[tuple[Any, Any]]:
        """Pairs (variable, increment).

        Adding every increment to its variable adds 1 to all click logits.
        """
        return []

    def without_decay(self) -> list[keras.layers.Layer]:
        """Layers without weight decay in `debias.fit`, by default the bias towers."""
        return [*self._bias_towers()]

    def _bias_towers(self) -> list[BiasTower]:
        return [e for e in self._flatten_layers() if isinstance(e, BiasTower)]

    def start_at(
        self, rate: float, targets: Mapping[str, np.ndarray] | None = None
    ) -> None:
        """Sets intercepts that are still 0 to the logit of a click rate.

        `debias.fit` calls this method before training. With intercepts of 0, the first
        training steps on a log with rare clicks only lower all outputs of the towers.
        Hidden units could become inactive or identical in these steps.

        Args:
            rate: Share of clicked cells. A rate of 0 or 1 changes nothing.
            targets: Dict from target column to its values (N,) at clicked cells, for
                models that learn targets.

        Raises:
            ValueError: The model is not built yet.
        """
        if not self.built:
            raise ValueError("the model must be built: call it on a batch first")
        if not 0 < rate < 1:
            return
        for each, one in self.intercepts():
            start_intercept(each, one, rate)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Tensor:
        """The mean of `session_losses`, unless `compile` received another loss.

        `sample_weight` has one number per session, `(batch,)` or `(batch, 1)`, or one
        number per cell, `(batch, list_size)`. Cell weights multiply the `weight` of the
        batch.

        Raises:
            ValueError: The batch has cell weights, which the loss of this model cannot
                use.
        """
        default, of_cells = self.loss is None, False
        if default and sample_weight is not None:
            sample_weight = ops.convert_to_tensor(sample_weight)
            of_cells = len(sample_weight.shape) == 2 and sample_weight.shape[1] != 1
        if of_cells:
            weight = ops.multiply(sample_weight, x.get("weight", 1.0))
            x = {**x, "weight": weight}
        weighed = isinstance(x, Mapping) and "weight" in x
        if weighed and not (self.takes_weight and default):
            given = "" if default else " that compile was given"
            raise ValueError(
                f"the loss of {type(self).__name__}{given} cannot take a weight of "
                "each cell: weigh whole sessions by sample_weight (batch,), and make "
                "batches without the argument weight"
            )
        if not default:
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        losses = self.session_losses(x, y, y_pred, training)
        if training:
            self.learn_from(x, y, y_pred)
        if sample_weight is not None and not of_cells:
            weight = ops.reshape(sample_weight, ops.shape(losses))
            losses = ops.multiply(losses, weight)
        return ops.mean(losses) + sum(self.losses)

    def fit(self, x: Any = None, y: Any = None, **kwargs: Any) -> Any:
        """Trains like `keras.Model.fit`, but does not shuffle a dataset by default.

        Raises:
            ValueError: A batch has an id above the largest id of a bias tower, or
                `class_weight` is given.
            ValueError: Batches are packed, and XLA compiles the training steps.
        """
        _refuse_class_weight(kwargs.get("class_weight"))
        with argument_errors():
            if y is not None:
                return super().fit(x, y, **kwargs)
            kwargs.setdefault("shuffle", False)
            self._can_take(x)
            counted = isinstance(x, MakesExecutions) and set(kwargs) <= COUNTED
            if not (counted and self.takes_several_steps()):
                return super().fit(x, **kwargs)
            self.build_for(x)
            executions = x.executions(self.steps_per_execution)
            return self.fit_executions(
                loop_over_log, executions, int(x.cardinality()), **kwargs
            )

    def train_on_batch(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        class_weight: Any = None,
        return_dict: bool = False,
    ) -> Any:
        _refuse_class_weight(class_weight)
        return super().train_on_batch(x, y, sample_weight, return_dict=return_dict)

    def _can_take(self, x: Any) -> None:
        if not self.jit_compile:
            return
        batch: Any = getattr(x, "element_spec", ({},))[0]
        if isinstance(batch, Mapping) and "cell" in batch:
            raise ValueError(
                "packed batches differ in shape, so XLA would compile every step "
                "again: give compile jit_compile=False, or make batches with "
                "packed=False"
            )

    def evaluate(self, x: Any = None, y: Any = None, **kwargs: Any) -> Any:
        with argument_errors():
            return super().evaluate(x, y, **kwargs)

    def predict(self, x: Any, **kwargs: Any) -> Any:
        with argument_errors():
            return super().predict(x, **kwargs)

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict[str, Any]:
        if len(self.metrics) > 1:  # there are metrics besides the loss
            y_pred = self.click_logits(x, y_pred)
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def get_config(self) -> dict[str, Any]:
        # Layers stay objects, so Keras serialises them and recognises shared ones.
        return {**self._arguments, "name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Self:
        return cls(**{name: _restored(value) for name, value in config.items()})


@contextmanager
def argument_errors() -> Iterator[None]:
    """Context manager that turns argument errors into a short `ValueError`.

    Two kinds of errors are shortened: TensorFlow errors of failed assertions in a
    graph, and Keras errors that end with a dump of all arguments of a layer.
    """
    try:
        yield
    except ValueError as error:
        found = re.search(
            r"^Exception encountered when calling .*?\n\n(?:\x1b\[1m)?(.*?)"
            r"(?:\x1b\[0m)?\n\nArguments received",
            str(error),
            re.DOTALL,
        )
        if found is None:
            raise
        raise ValueError(found[1]) from error
    except Exception as error:
        message = getattr(error, "message", "")  # in tf.errors.InvalidArgumentError
        found = re.search(r"assertion failed: \[(.*?)\]", str(message))
        if found is None:
            raise
        raise ValueError(found[1].replace("\\'", "'")) from error


def _refuse_class_weight(class_weight: Any) -> None:
    """Raises ValueError if `class_weight` is given.

    Keras would weight each list as a whole, by the position of its first click.
    """
    if class_weight:
        raise ValueError(
            "class_weight cannot weight clicks, because a list can have several "
            "clicks; to count each click ten times, give "
            "sample_weight=np.where(clicks == 1, 10, 1), or "
            "batches(..., weight=np.where(log.click, 10, 1))"
        )


def layout_of(place: Place, read: Sequence[str] = ()) -> dict[str, int]:
    """Dict from layout column to id at a place; columns without an id get id 0.

    Args:
        place: Dict from layout column to id, or an int to use as the id of position,
            row and column.
        read: Additional columns that a bias tower reads, such as presentation columns.

    >>> layout_of(2)
    {'position': 2, 'row': 2, 'column': 2, 'device': 0}
    """
    if not isinstance(place, Mapping):
        place = dict.fromkeys(("position", "row", "column"), place)
    return {name: place.get(name, 0) for name in (*LAYOUT, *read, *place)}


def on_rows(
    tower: keras.layers.Layer, features: Tensor, training: bool = False
) -> Tensor:
    """Applies a relevance tower to each item separately, `(..., F)` to `(..., out)`.

    The tower is called on rows `(N, F)`. A tower built for lists, such as a model with
    `keras.Input((None, F))`, is called on lists `(N, 1, F)` of one item.

    Raises:
        ValueError: The tower needs lists of a fixed length above 1.

    >>> tower = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    >>> tuple(on_rows(tower, ops.ones((4, 5, 3))).shape)
    (4, 5, 2)
    """
    shape = getattr(tower, "inputs", None) and tower.inputs[0].shape
    if not shape or len(shape) != 3:
        return rowwise(lambda rows: tower(rows, training=training), features)
    if shape[1] not in (None, 1):
        raise ValueError(
            f"{tower.name} takes lists of {shape[1]}, but a relevance tower reads one "
            f"item: build it from keras.Input(({shape[2]},))"
        )
    return rowwise(
        lambda rows: tower(ops.expand_dims(rows, 1), training=training)[:, 0], features
    )


def to_cells(values: Tensor, batch: Batch) -> Tensor:
    """Maps a value per row of `features` to a value per cell of the batch.

    In a packed batch (see `debias.batches`), each row is a distinct item, and `cell`
    gives the row of each cell. In other batches, each row is a cell, so values do not
    change.

    >>> to_cells(ops.array([0.5, 2.0]), {"cell": ops.array([[1, 0, 1]])}).shape[1]
    3
    """
    return ops.take(values, batch["cell"], axis=0) if "cell" in batch else values


def only_output(layer: keras.layers.Layer, outputs: Tensor) -> Tensor:
    """Removes the last axis of the output of a tower, `(..., 1)` to `(...)`.

    The result is in single precision, even if the tower computes in half precision.
    """
    if outputs.shape[-1] != 1:
        raise ValueError(
            f"{layer.name} must have one output per item, got {outputs.shape[-1]}"
        )
    return exact(ops.squeeze(outputs, -1))


def start_intercept(variable: Any, one: Any, rate: float) -> None:
    """Sets an intercept that is still 0 to `one` times the logit of a rate."""
    value = ops.convert_to_numpy(variable)
    if not np.any(value[np.broadcast_to(one, value.shape) != 0]):
        logit = np.log(rate / (1 - rate))
        variable.assign((value + logit * np.asarray(one)).astype("float32"))


def intercepts_of(tower: keras.layers.Layer) -> list[tuple[Any, Any]]:
    """The bias of a tower's last layer as a list like `ClickModel.intercepts`.

    The tower must be built. This function supports a `Tower`, a linear Dense layer, and
    a Sequential that ends with such a layer. For other layers, the returned list is
    empty.
    """
    last = tower.layers[-1] if isinstance(tower, keras.Sequential) else tower
    if isinstance(last, Tower):
        return [(last.intercept, 1.0)]
    linear = getattr(last, "activation", None) is keras.activations.linear
    if isinstance(last, keras.layers.Dense) and last.use_bias and linear:
        return [(last.bias, 1.0)]
    return []


def without_gradient(features: Any) -> AbstractContextManager[Any]:
    """Context manager that disables gradients for NumPy input on torch.

    Callers convert the result to a NumPy array, and torch cannot convert a tensor with
    a gradient.
    """
    if keras.backend.backend() != "torch" or not isinstance(features, np.ndarray):
        return nullcontext()
    import torch

    without: AbstractContextManager[Any] = torch.no_grad()
    return without


@keras.saving.register_keras_serializable(package="debias")
class Ranker(keras.Model):
    """The model to serve: maps features to scores and reads no position.

    Shapes: `(..., F)` to `(...)`, for any batch size and list length. A score depends
    only on the item's features, not on its place, neighbours or padding. A ranker with
    feature names also reads raw rows, and finds the features by name. Raw rows are a
    pandas or Polars data frame, an Arrow table, or a dict of columns.

    Args:
        model: A built click model.
        preprocess: Layer applied to raw features first, or None.
        feature_names: Names of the F features in order; None if features have no names.
        kinds: Kinds of the features with the vocabularies of training, as in
            `RankingData.kinds`. `debias.data.matrix` uses these kinds to encode raw
            rows. None means that all features are numbers.
        examination: Learned examination of each rank relative to rank 1, with None for
            unknown ranks. Exports include the examination, but scores do not depend on
            the examination.
    """

    def __init__(
        self,
        model: ClickModel,
        preprocess: keras.layers.Layer | None = None,
        feature_names: Sequence[str] | None = None,
        kinds: Features | None = None,
        examination: Sequence[float | None] | None = None,
        **kwargs: Any,
    ):
        super().__init__(autocast=False, **kwargs)  # raw features need float32
        self.model = model
        self.preprocess = preprocess
        self._rank = 0  # rank of the last input to `predict`
        self.feature_names = None if feature_names is None else tuple(feature_names)
        self.kinds = None if kinds is None else tuple(kinds)
        self.examination = None if examination is None else tuple(examination)

    def __call__(self, features: Any, *args: Any, **kwargs: Any) -> Any:
        features = self._read(features)
        with without_gradient(features):
            return super().__call__(features, *args, **kwargs)

    def _read(self, features: Any) -> Any:
        """Encodes raw rows as an array, and returns other input unchanged."""
        if isinstance(features, Mapping | Streamed):
            return encoded(features, self.feature_names, self.kinds, self.name)
        return features

    def call(self, features: Tensor) -> Tensor:
        names, count = self.feature_names, features.shape[-1]
        if names is not None and count is not None and count != len(names):
            raise ValueError(
                f"this ranker reads {len(names)} features, {' '.join(names[:8])}"
                f"{' ...' if len(names) > 8 else ''}; got {count}"
            )
        rows = ops.reshape(features, (-1, count))
        if self.preprocess is not None:
            rows = on_rows(self.preprocess, rows)
        scores = self.model.score(rows)
        if len(features.shape) != 3:
            return ops.reshape(scores, ops.shape(features)[:-1])
        # Without reshape: for lists without items, ONNX reads a 0 in a shape as the
        # dimension that was there before.
        lists, size = ops.shape(features)[:2]
        first = ops.expand_dims(ops.arange(lists) * size, 1)
        return ops.take(scores, first + ops.arange(size))

    def predict(self, x: Any, **kwargs: Any) -> Any:
        """Predicts like `keras.Model.predict`, for features `(..., F)` or raw rows."""
        x = self._read(x)
        first = keras.tree.flatten(getattr(x, "element_spec", x))[0]
        rank = len(getattr(first, "shape", ()))
        if rank != self._rank:  # a function for both ranks would have no known shape
            self.predict_function, self._rank = None, rank
        return super().predict(x, **kwargs)

    def get_config(self) -> dict[str, Any]:
        names = None if self.feature_names is None else list(self.feature_names)
        own = {"model": self.model, "preprocess": self.preprocess}
        own |= {"kinds": as_records(self.kinds), "examination": self.examination}
        return {**own, "feature_names": names, "name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Self:
        told = ("feature_names", "kinds", "examination")
        names, kinds, curve = (config.pop(key, None) for key in told)
        layers = {name: _restored(value) for name, value in config.items()}
        return cls(
            **layers, feature_names=names, kinds=of_records(kinds), examination=curve
        )


def _restored(value: Any) -> Any:
    """Restores an argument from its configuration, or returns a layer unchanged."""
    if isinstance(value, list):
        return [_restored(each) for each in value]
    if isinstance(value, keras.layers.Layer):
        return value
    return keras.saving.deserialize_keras_object(value)


def ranker(
    model: ClickModel,
    preprocess: keras.layers.Layer | None = None,
    feature_names: Sequence[str] | None = None,
    kinds: Features | None = None,
) -> Ranker:
    """The ranker of a trained click model.

    Args:
        model: A click model that has been called on a batch.
        preprocess: Layer applied to raw features first, such as the `Standardize` used
            in training.
        feature_names: Names of the features in order; exports include them.
        kinds: Kinds of the features, which exports include. None means that all
            features are numbers.

    Raises:
        ValueError: The model was never built.

    >>> import numpy as np
    >>> from debias.layers import BiasTower, Tower
    >>> from debias.models import Additive
    >>> model = Additive(Tower(hidden=()), BiasTower({"position": 5}))
    >>> features, position = np.zeros((2, 5, 3), "float32"), np.ones((2, 5), int)
    >>> logits = model({"features": features, "position": position})
    >>> ranker(model)(np.zeros((1, 7, 3), "float32")).shape[1]  # a list of any length
    7
    """
    if not model.built:
        raise ValueError("model has no weights yet: fit it, or call it on a batch")
    return Ranker(model, preprocess, feature_names, kinds)
