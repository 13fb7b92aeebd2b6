"""Losses on corrected clicks, as alternatives to click models.

A click model predicts biased clicks. A correction instead modifies the clicks and
trains a ranker as if users had examined all items. Each loss is a pure function of
clicks and scores in `keras.ops`. Clicks and scores have the shape `(batch, list_size)`,
and clicks are -1 at padding. Each loss returns one number per list.

| correction | label for a click c | needs |
|---|---|---|
| inverse propensity | c / theta | examination |
| affine | (c - beta) / alpha | examination, trust |
| doubly robust | g + (c - beta - alpha g) / alpha | examination, trust, attraction g |
| regression EM | posterior probabilities of examination and relevance | nothing |
| dual learning | c w, with weights w from a bias tower | nothing |
| PairDebias | pairs of clicked and unclicked items, weighted by ratios | nothing |

In the table, theta is the examination probability of a position-based model. In the
trust bias model, alpha gamma + beta is the click probability of an item with attraction
gamma. In the table, g is the attraction that another model predicts. Dual learning
trains the bias tower together with the ranker. PairDebias learns the ratios of
positions together with the ranker.

Inverse propensity, affine and doubly robust losses are unbiased if their parameters are
right and no weight is clipped. The expectation of an unbiased loss over random clicks
equals the loss computed from the true attraction. Clipping weights reduces the variance
of the loss and adds bias.
"""

import keras
from keras import ops

from debias.losses.click import binary_cross_entropy
from debias.losses.lists import labels_and_mask, prepared
from debias.losses.ranking import softmax_cross_entropy
from debias.types import Tensor


def corrected_clicks(
    clicks: Tensor,
    alpha: Tensor,
    beta: Tensor | float = 0.0,
    guess: Tensor | float = 0.0,
    clip: float = 10.0,
) -> Tensor:
    """Unbiased estimates of attraction, `(batch, list_size)`, to use as labels.

    The estimate is g + (c - beta - alpha g) / max(alpha, 1 / clip), where c is the
    click and g is `guess`. With beta = 0 and g = 0, the estimate is the click weighted
    by its inverse propensity. With g = 0 and beta above 0, the estimate is the affine
    correction for trust bias. With a predicted attraction g, the estimate is doubly
    robust. The estimate is unbiased if alpha and beta are right and no divisor is
    clipped. If alpha, beta and g are all right, the estimate is unbiased even with
    clipped divisors. Estimates may be below 0 or above 1.

    Source: Joachims et al., WSDM 2017; Vardasbi et al., When Inverse Propensity Scoring
    does not Work, CIKM 2020; after Oosterhuis, Doubly-Robust Estimation for Correcting
    Position-Bias in Click Feedback for Unbiased Learning to Rank, TOIS 2023.

    Args:
        clicks: `(batch, list_size)`, -1 at padding. The result is also -1 at padding.
        alpha: Increase of the click probability when attraction goes from 0 to 1. In a
            position-based model, alpha is the examination probability. The shape of
            alpha must broadcast to the shape of `clicks`.
        beta: Click probability at attraction 0.
        guess: Attraction predicted by another model.
        clip: Largest weight: divisors below 1 / clip are raised to 1 / clip.

    >>> found = corrected_clicks([[1, 0, -1]], [[0.5, 0.5, 0.5]], guess=0.25)
    >>> [round(float(x), 4) for x in found[0]]  # 1/4 + (1 - 1/8) / (1/2), and so on
    [2.0, 0.0, -1.0]
    """
    c, mask = labels_and_mask(clicks, keras.backend.floatx())
    alpha, beta, guess = (
        ops.cast(ops.convert_to_tensor(x), c.dtype) for x in (alpha, beta, guess)
    )
    surprise = c - beta - alpha * guess
    estimate = guess + surprise / ops.maximum(alpha, 1 / clip)
    return ops.where(mask, estimate, -1.0)


def soft_cross_entropy(estimates: Tensor, scores: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy of real labels and scores, summed over each list, `(batch,)`.

    An item with label y and score z adds softplus(z) - y z, the cross-entropy of y and
    sigma(z). Labels may have any sign. The loss is linear in y, so unbiased labels give
    an unbiased loss.

    >>> loss = soft_cross_entropy([[2.0, 9.0]], [[0.0, 9.0]], [[True, False]])
    >>> round(float(loss[0]), 6)
    0.693147
    """
    y = ops.convert_to_tensor(estimates)
    z = ops.cast(ops.convert_to_tensor(scores), y.dtype)
    items = ops.softplus(z) - y * z
    return ops.sum(ops.where(mask, items, 0.0), axis=1)


def soft_softmax(estimates: Tensor, scores: Tensor, mask: Tensor) -> Tensor:
    """Listwise loss -sum_i y_i log softmax(z)_i for real labels y, `(batch,)`.

    >>> shown = [[True, True, False]]
    >>> loss = soft_softmax([[2.0, -1.0, 9.0]], [[0.0, 0.0, 9.0]], shown)
    >>> round(float(loss[0]), 6)  # (2 - 1) log 2
    0.693147
    """
    ones = ops.where(mask, 1.0, -1.0)
    return softmax_cross_entropy(ones, scores, ops.convert_to_tensor(estimates))


def click_em(clicks: Tensor, examination: Tensor, relevance: Tensor) -> Tensor:
    """Regression-EM loss with latent examination and relevance.

    The click model is P(c = 1) = sigma(e) sigma(r). For an unclicked item, the
    posteriors are P(examined | c = 0) = sigma(e - softplus(r)) and
    P(relevant | c = 0) = sigma(r - softplus(e)). For a clicked item, both posteriors
    are 1. The loss is the sum of two cross-entropies, of e and of r, with the
    posteriors as constant targets. The gradient of the loss equals the gradient of the
    exact negative log-likelihood.

    Source: Wang et al., Position Bias Estimation for Unbiased Learning to Rank in
    Personal Search, WSDM 2018. The loss equals TF-Ranking's `ClickEMLoss`, summed over
    each list.

    Args:
        clicks: `(batch, list_size)`, -1 at padding.
        examination: Logits e of examination, `(batch, list_size)`.
        relevance: Logits r of relevance, `(batch, list_size)`.

    Returns:
        `(batch,)` losses, summed over the valid items of each list.

    >>> loss = click_em([[1]], [[0.0]], [[0.0]])  # both targets are 1
    >>> round(float(loss[0]), 6)
    1.386294
    """
    y, e, mask = prepared(clicks, examination)
    r = prepared(clicks, relevance)[1]
    clicked = y >= 1
    examined = ops.where(clicked, 1.0, ops.sigmoid(e - ops.softplus(r)))
    relevant = ops.where(clicked, 1.0, ops.sigmoid(r - ops.softplus(e)))
    items = binary_cross_entropy(ops.stop_gradient(examined), e)
    items = items + binary_cross_entropy(ops.stop_gradient(relevant), r)
    return ops.sum(ops.where(mask, items, 0.0), axis=1)


def dual_learning(
    clicks: Tensor,
    relevance: Tensor,
    bias: Tensor,
    first: Tensor,
    clip: float = 10.0,
) -> Tensor:
    """Dual learning loss: two softmax losses, each weighted by the other model.

    The loss is sum_i c_i w_i [-log softmax(f)_i] + sum_i c_i v_i [-log softmax(g)_i].
    The weights w_i = exp(g_1 - g_i) and v_i = exp(f_1 - f_i) have no gradient. Each
    weight is the softmax at the first position divided by the softmax at the item's
    position.

    Source: Ai et al., Unbiased Learning to Rank with Unbiased Propensity Estimation,
    SIGIR 2018.

    Args:
        clicks: `(batch, list_size)`, -1 at padding.
        relevance: Scores f of the items, `(batch, list_size)`.
        bias: Logits g of the positions, `(batch, list_size)`.
        first: bool `(batch, list_size)`, True at the first position.
        clip: Largest weight.

    Returns:
        `(batch,)`.

    >>> loss = dual_learning([[1, 0]], [[0.0, 0.0]], [[0.0, 0.0]], [[True, False]])
    >>> round(float(loss[0]), 6)  # 2 log 2
    1.386294
    """

    def weights(logits: Tensor) -> Tensor:
        top = ops.sum(ops.where(first, logits, 0.0), axis=1, keepdims=True)
        ratio = ops.exp(ops.minimum(top - logits, 30.0))
        return ops.stop_gradient(ops.minimum(ratio, clip))

    relevance, bias = ops.convert_to_tensor(relevance), ops.convert_to_tensor(bias)
    of_items = softmax_cross_entropy(clicks, relevance, weights(bias))
    return of_items + softmax_cross_entropy(clicks, bias, weights(relevance))


def pairs_debiased(
    clicks: Tensor, scores: Tensor, plus: Tensor, minus: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """PairDebias loss: pairwise losses, divided by the position ratios of both items.

    The loss sums L_ij / (t+_i t-_j) over all pairs of a clicked item i and an unclicked
    item j. The pairwise loss is L_ij = log(1 + exp(z_j - z_i)), where z are the scores.

    Source: Hu et al., Unbiased LambdaMART: An Unbiased Pairwise Learning-to-Rank
    Algorithm, WWW 2019.

    Args:
        clicks: `(batch, list_size)`, -1 at padding.
        scores: `(batch, list_size)`.
        plus: Ratios t+ at the items' positions, for clicked items, `(batch,
            list_size)`.
        minus: Ratios t- at the items' positions, for unclicked items.

    Returns:
        The loss `(batch,)`, and two statistics `(batch, list_size)` that update the
        ratios. The first statistic is sum_j L_ij / t-_j for clicked items i, and the
        second statistic is sum_i L_ij / t+_i for unclicked items j.

    >>> loss, *_ = pairs_debiased([[1, 0]], [[0.0, 0.0]], [[2.0, 1.0]], [[1.0, 1.0]])
    >>> round(float(loss[0]), 6)  # log 2 / 2
    0.346574
    """
    z = ops.convert_to_tensor(scores)
    c = ops.cast(ops.convert_to_tensor(clicks), z.dtype)
    pair = (ops.expand_dims(c, 2) > 0) & (ops.expand_dims(c, 1) == 0)
    each = ops.softplus(ops.expand_dims(z, 1) - ops.expand_dims(z, 2))
    each = ops.where(pair, each, 0.0)
    of_clicked = ops.sum(each / ops.expand_dims(minus, 1), axis=2)
    of_unclicked = ops.sum(each / ops.expand_dims(plus, 2), axis=1)
    return ops.sum(of_clicked / plus, axis=1), of_clicked, of_unclicked
