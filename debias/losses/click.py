"""Losses of single clicks: each shown item was clicked or was not."""

from keras import ops

from debias.losses.lists import Tensor, prepared, require_flat, weights_like


def binary_cross_entropy(y: Tensor, z: Tensor) -> Tensor:
    """Of logits; exact in both tails, and its gradient is sigmoid(z) - y everywhere."""
    return y * ops.softplus(-z) + (1.0 - y) * ops.softplus(z)


# Click models


def click_cross_entropy(
    y_true: Tensor, y_pred: Tensor, weights: Tensor | None = None
) -> Tensor:
    """Negative log-likelihood of a session's clicks, in nats.

    L = -sum_k [c_k log sigma(z_k) + (1 - c_k) log(1 - sigma(z_k))], k over valid items.

    Args:
        y_true: `(batch, list_size)` clicks 0 or 1 (or in between), -1 at padding.
        y_pred: `(batch, list_size)` click logits.
        weights: Of lists or of items, see the module.

    Returns:
        `(batch,)` sums over the valid items of each list.

    >>> loss = click_cross_entropy([[1, 0, -1]], [[0.0, 0.0, 9.0]])
    >>> round(float(loss[0]), 6)  # 2 log 2
    1.386294
    """
    y, z, mask = prepared(y_true, y_pred)
    require_flat(z, "click_cross_entropy")
    items = binary_cross_entropy(y, z) * weights_like(weights, z)
    return ops.sum(ops.where(mask, items, 0.0), axis=1)


def click_em(
    y_true: Tensor,
    y_pred: Tensor,
    weights: Tensor | None = None,
    examination_weight: float = 1.0,
    relevance_weight: float = 1.0,
) -> Tensor:
    """Regression-EM: a click needs examination and relevance, each a latent variable.

    With P(c) = sigma(e) sigma(r), the posteriors of an item that was not clicked are
    P(examined | c = 0) = sigma(e - softplus(r)) and
    P(relevant | c = 0) = sigma(r - softplus(e)); both are 1 given a click. Held fixed,
    they are the targets of two cross-entropies, one of e and one of r. The gradient is
    that of the exact negative log-likelihood.

    Source: Wang et al., Position Bias Estimation for Unbiased Learning to Rank in
    Personal Search, WSDM 2018. Equal to the sum over a list of TF-Ranking's
    `ClickEMLoss`, whose order of logits it keeps.

    Args:
        y_true: `(batch, list_size)` clicks, -1 at padding.
        y_pred: `(batch, list_size, 2)` logits of examination, then of relevance.
        weights: Of lists or of items, see the module.
        examination_weight: Factor of the cross-entropy of examination.
        relevance_weight: Factor of the cross-entropy of relevance.

    Returns:
        `(batch,)` sums over the valid items of each list.

    >>> loss = click_em([[1]], [[[0.0, 0.0]]])  # both targets are 1
    >>> round(float(loss[0]), 6)
    1.386294
    """
    y, z, mask = prepared(y_true, y_pred)
    if len(z.shape) != 3 or z.shape[-1] != 2:
        raise ValueError(
            "click_em needs y_pred of shape (batch, list_size, 2), examination then "
            f"relevance, got {tuple(z.shape)}"
        )
    examination, relevance = z[..., 0], z[..., 1]
    clicked = y >= 1
    examined = ops.sigmoid(examination - ops.softplus(relevance))
    relevant = ops.sigmoid(relevance - ops.softplus(examination))
    examined = ops.stop_gradient(ops.where(clicked, 1.0, examined))
    relevant = ops.stop_gradient(ops.where(clicked, 1.0, relevant))
    items = examination_weight * binary_cross_entropy(examined, examination)
    items = items + relevance_weight * binary_cross_entropy(relevant, relevance)
    items = items * weights_like(weights, z)
    return ops.sum(ops.where(mask, items, 0.0), axis=1)


# Mixtures: a session is of one hidden type m, each type has its own click logits
