"""Labels, logits and weights of padded lists, and the base class of Keras losses."""

from typing import Any

import keras
from keras import ops

from debias.types import Tensor

serializable = keras.saving.register_keras_serializable(package="debias")
MASKED = -1e30  # finite, but its softmax weight is exactly 0


def exact(values: Tensor) -> Tensor:
    """Converts values to float32, except that float64 values stay float64."""
    values = ops.convert_to_tensor(values)
    return values if values.dtype == "float64" else ops.cast(values, "float32")


def labels_and_mask(y_true: Tensor, dtype: str) -> tuple[Tensor, Tensor]:
    """Labels, with nan in place of invalid labels, and a mask, False at padding."""
    y = ops.cast(ops.convert_to_tensor(y_true), dtype)
    mask = y != -1
    return ops.where(mask & (y < 0), float("nan"), y), mask


def prepared(y_true: Tensor, y_pred: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Labels, logits and mask in one float type, with zeros at padding."""
    z = exact(y_pred)
    y, mask = labels_and_mask(y_true, z.dtype)
    if len(y.shape) != 2 or len(z.shape) not in (2, 3):
        raise ValueError(
            "y_true must have shape (batch, list_size) and y_pred (batch, list_size) "
            f"or (batch, list_size, K), got {tuple(y.shape)} and {tuple(z.shape)}"
        )
    known = zip(y.shape, z.shape[:2], strict=True)
    if any(None not in sides and sides[0] != sides[1] for sides in known):
        raise ValueError(
            "y_true and y_pred must agree in (batch, list_size), got "
            f"{tuple(y.shape)} and {tuple(z.shape)}"
        )
    z_mask = mask if len(z.shape) == 2 else ops.expand_dims(mask, -1)
    return ops.where(mask, y, 0.0), ops.where(z_mask, z, 0.0), mask


def require_flat(y_pred: Tensor, loss: str) -> None:
    """Raises ValueError if an item has several logits, as in a mixture."""
    if len(y_pred.shape) != 2:
        raise ValueError(
            f"{loss} needs y_pred of shape (batch, list_size), "
            f"got {tuple(y_pred.shape)}"
        )


def weights_like(weights: Tensor | None, like: Tensor) -> Tensor:
    """Weights that broadcast to `(batch, list_size)`."""
    if weights is None:
        return ops.ones((1, 1), dtype=like.dtype)
    weights = ops.cast(ops.convert_to_tensor(weights), like.dtype)
    return ops.expand_dims(weights, -1) if len(weights.shape) == 1 else weights


def of_items_and_lists(weights: Tensor | None, like: Tensor) -> tuple[Tensor, Tensor]:
    """Splits weights into item weights, of rank 2, and list weights, of rank 1."""
    weights = weights_like(weights, like)
    ones = ops.ones((1, 1), dtype=like.dtype)
    return (ones, weights[:, 0]) if weights.shape[1] == 1 else (weights, ones[:, 0])


def require_positive(**arguments: Any) -> None:
    for name, value in arguments.items():
        if isinstance(value, (int, float)) and not value > 0:
            raise ValueError(f"{name} must be above 0, got {value}")


class ListLoss(keras.losses.Loss):
    """Keras loss over lists that calls a pure function with stored arguments.

    A `sample_weight` of shape `(batch,)` or `(batch, 1)` weights lists. A
    `sample_weight` of shape `(batch, list_size)` weights items. The base class
    `keras.losses.Loss` would multiply item weights by list losses. If batch size and
    list size are equal, this wrong product raises no error.
    """

    function: Any

    def __init__(self, reduction: str, name: str | None, **arguments: Any):
        super().__init__(name=name, reduction=reduction)
        require_positive(**{k: v for k, v in arguments.items() if k == "temperature"})
        self.arguments = arguments

    def __call__(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> Tensor:
        if sample_weight is not None and len(ops.shape(sample_weight)) == 2:
            return super().__call__((y_true, sample_weight), y_pred)
        return super().__call__(y_true, y_pred, sample_weight)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        y_true, weights = y_true if isinstance(y_true, tuple) else (y_true, None)
        return self.function(y_true, y_pred, weights=weights, **self.arguments)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.arguments}
