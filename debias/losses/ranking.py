"""Ranking losses: softmax, pairwise, and smooth NDCG."""

from keras import ops

from debias.losses.lists import (
    MASKED,
    of_items_and_lists,
    prepared,
    require_flat,
    require_positive,
    serializable,
    weights_like,
)
from debias.types import Tensor


@serializable
def softmax_cross_entropy(
    y_true: Tensor,
    y_pred: Tensor,
    weights: Tensor | None = None,
    gain: bool = False,
    temperature: float = 1.0,
) -> Tensor:
    """Listwise softmax loss -sum_i w_i y_i log softmax(z / T)_i over valid items i.

    A list without a positive label has loss 0. The loss equals TF-Ranking's
    `SoftmaxLoss` and is not divided by the sum of the labels. With inverse propensities
    as weights, the loss is the listwise inverse propensity estimator.

    Args:
        y_true: `(batch, list_size)` labels >= 0, -1 at padding.
        y_pred: `(batch, list_size)` scores.
        weights: Weights of lists or of items; `debias.losses` explains the shapes.
        gain: bool. Whether to replace a grade y by 2^y - 1, the gain of NDCG.
        temperature: T > 0.

    Returns:
        `(batch,)`.

    >>> loss = softmax_cross_entropy([[2, 0, -1]], [[0.0, 0.0, 9.0]])
    >>> round(float(loss[0]), 6)  # 2 log 2
    1.386294
    """
    require_positive(temperature=temperature)
    y, z, mask = prepared(y_true, y_pred)
    require_flat(z, "softmax_cross_entropy")
    z = ops.where(mask, z / temperature, MASKED)
    labels = (2.0**y - 1.0 if gain else y) * weights_like(weights, z)
    items = labels * (ops.logsumexp(z, axis=1, keepdims=True) - z)
    return ops.sum(ops.where(mask, items, 0.0), axis=1)


@serializable
def pairwise_logistic(
    y_true: Tensor,
    y_pred: Tensor,
    weights: Tensor | None = None,
    temperature: float = 1.0,
) -> Tensor:
    """RankNet loss: sum over pairs y_i > y_j of w_i log(1 + exp(-(z_i - z_j) / T)).

    Source: Burges et al., Learning to Rank using Gradient Descent, ICML 2005. The loss
    equals TF-Ranking's `PairwiseLogisticLoss`, summed over each list. Memory use is
    proportional to batch size times list_size^2.

    Args:
        y_true: `(batch, list_size)` labels >= 0, -1 at padding.
        y_pred: `(batch, list_size)` scores.
        weights: Weights of lists or of items; `debias.losses` explains the shapes. A
            pair has the weight of the item with the higher label.
        temperature: T > 0.

    Returns:
        `(batch,)` losses, summed over the pairs of each list. A list with equal labels
        has loss 0.

    >>> loss = pairwise_logistic([[1, 0, 0, -1]], [[1.0, 1.0, 1.0, 9.0]])
    >>> round(float(loss[0]), 6)  # two pairs, 2 log 2
    1.386294
    """
    require_positive(temperature=temperature)
    y, z, mask = prepared(y_true, y_pred)
    require_flat(z, "pairwise_logistic")
    z = z / temperature
    pair = ops.expand_dims(y, 2) > ops.expand_dims(y, 1)
    pair = pair & ops.expand_dims(mask, 2) & ops.expand_dims(mask, 1)
    losses = ops.softplus(ops.expand_dims(z, 1) - ops.expand_dims(z, 2))
    losses = ops.sum(ops.where(pair, losses, 0.0), axis=2)
    # Invalid labels are in no pair, and must not count as padding.
    items = ops.where(ops.isnan(y), y, losses * weights_like(weights, z))
    return ops.sum(ops.where(mask, items, 0.0), axis=1)


@serializable
def approx_ndcg(
    y_true: Tensor,
    y_pred: Tensor,
    weights: Tensor | None = None,
    temperature: float = 0.1,
) -> Tensor:
    """Minus NDCG with smooth ranks 1 + sum_{j != i} sigma((z_j - z_i) / T).

    The gain is 2^y - 1, and the discount is 1 / log2(1 + rank). The sum of discounted
    gains is divided by the ideal DCG of the list. A list without a positive label has
    loss 0.

    Source: Qin et al., A General Approximation Framework for Direct Optimization of
    Information Retrieval Measures, Information Retrieval 2010. The loss equals
    TF-Ranking's `ApproxNDCGLoss`.

    Args:
        y_true: `(batch, list_size)` grades >= 0, -1 at padding.
        y_pred: `(batch, list_size)` scores.
        weights: Weights of lists or of items; `debias.losses` explains the shapes. The
            loss of a list is multiplied by the label-weighted mean of its item weights,
            as in TF-Ranking's listwise losses.
        temperature: T > 0. With a lower T, the loss is closer to NDCG, and gradients
            are steeper.

    Returns:
        `(batch,)` losses, in [-1, 0] before weighting.

    >>> loss = approx_ndcg([[0, 1]], [[0.0, 0.0]])  # both at rank 1.5
    >>> round(float(loss[0]), 6)  # -1 / log2(2.5)
    -0.756471
    """
    require_positive(temperature=temperature)
    y, z, mask = prepared(y_true, y_pred)
    require_flat(z, "approx_ndcg")
    z = z / temperature
    ahead = ops.sigmoid(ops.expand_dims(z, 1) - ops.expand_dims(z, 2))
    ahead = ops.where(ops.expand_dims(mask, 1), ahead, 0.0)
    ranks = 0.5 + ops.sum(ahead, axis=2)  # the item itself counts as one half
    top = ops.max(y, axis=1, keepdims=True)
    gains = 2.0 ** (y - top) - 2.0**-top  # divided by 2^top, so no gain overflows
    ideal = ops.flip(ops.sort(gains, axis=1), axis=1)
    places = ops.cast(ops.arange(2, ops.shape(y)[1] + 2), z.dtype)
    best = ops.sum(ideal / ops.log2(places), axis=1)
    dcg = ops.sum(ops.where(mask, gains / ops.log2(1.0 + ranks), 0.0), axis=1)
    loss = -ops.where(best > 0, dcg / ops.where(best > 0, best, 1.0), 0.0)
    of_items, of_lists = of_items_and_lists(weights, z)
    total = ops.sum(y, axis=1)
    of_items = ops.sum(y * of_items, axis=1) / ops.where(total > 0, total, 1.0)
    return loss * of_items * of_lists
