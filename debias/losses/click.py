"""Pointwise click losses: a cross-entropy for each shown item."""

from keras import ops

from debias.losses.lists import prepared, require_flat, serializable, weights_like
from debias.types import Tensor


def binary_cross_entropy(y: Tensor, z: Tensor) -> Tensor:
    """Cross-entropy of a label y and a logit z, exact in both tails.

    The gradient in z is sigmoid(z) - y.
    """
    return y * ops.softplus(-z) + (1.0 - y) * ops.softplus(z)


@serializable
def click_cross_entropy(
    y_true: Tensor, y_pred: Tensor, weights: Tensor | None = None
) -> Tensor:
    """Negative log-likelihood of a session's clicks, in nats.

    L = -sum_k [c_k log sigma(z_k) + (1 - c_k) log(1 - sigma(z_k))] over valid items k,
    with clicks c and click logits z.

    Args:
        y_true: `(batch, list_size)` clicks from 0 to 1, -1 at padding.
        y_pred: `(batch, list_size)` click logits.
        weights: Weights of lists or of items; `debias.losses` explains the shapes.

    Returns:
        `(batch,)` losses, summed over the valid items of each list.

    >>> loss = click_cross_entropy([[1, 0, -1]], [[0.0, 0.0, 9.0]])
    >>> round(float(loss[0]), 6)  # 2 log 2
    1.386294
    """
    y, z, mask = prepared(y_true, y_pred)
    require_flat(z, "click_cross_entropy")
    items = binary_cross_entropy(y, z) * weights_like(weights, z)
    return ops.sum(ops.where(mask, items, 0.0), axis=1)
