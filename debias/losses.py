"""Losses of click models and rankers, in `keras.ops`: one number a list.

Every loss is a pure function of `y_true`, shape `(batch, list_size)` with -1 at
padding, and of logits `y_pred`. It returns shape `(batch,)`, so that the mean over the
batch, the default reduction of the Keras shells, is a mean over sessions. Padding is
left out before anything is computed: it adds exactly 0 to a loss and to its gradient,
whatever its logit, and a list that is all padding has loss 0.

`weights` is one number a list, `(batch,)` or `(batch, 1)`, or one an item,
`(batch, list_size)`, such as inverse propensities. The shells take them as
`sample_weight`, so `model.fit(x, y, sample_weight=weights)` works with either.

Softplus and logsumexp throughout, never `ops.logaddexp`: its gradient on the TensorFlow
backend is wrong where the arguments tie, as they do in zero-initialised towers.

To add a loss, write the function and its shell, and enter the shell in `LOSSES`: the
property tests pick it up from there.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

Tensor = Any  # a tensor of the backend, or what converts to one

_MASKED = -1e30  # a logit whose softmax weight is exactly 0, yet not infinite


def _prepared(y_true: Tensor, y_pred: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Labels, logits and mask of one float type, with zeros in place of padding."""
    z = ops.convert_to_tensor(y_pred)
    if not keras.backend.is_float_dtype(z.dtype):
        z = ops.cast(z, keras.backend.floatx())
    y = ops.cast(ops.convert_to_tensor(y_true), z.dtype)
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
    mask = y >= 0
    z_mask = mask if len(z.shape) == 2 else ops.expand_dims(mask, -1)
    return ops.where(mask, y, 0.0), ops.where(z_mask, z, 0.0), mask


def _flat(y_pred: Tensor, loss: str) -> None:
    """Refuses logits of a mixture where one logit an item is meant."""
    if len(y_pred.shape) != 2:
        raise ValueError(
            f"{loss} needs y_pred of shape (batch, list_size), "
            f"got {tuple(y_pred.shape)}"
        )


def _weights(weights: Tensor | None, like: Tensor) -> Tensor:
    """Weights that broadcast to `(batch, list_size)`."""
    if weights is None:
        return ops.ones((1, 1), dtype=like.dtype)
    weights = ops.cast(ops.convert_to_tensor(weights), like.dtype)
    return ops.expand_dims(weights, -1) if len(weights.shape) == 1 else weights


def _of_items_and_lists(weights: Tensor | None, like: Tensor) -> tuple[Tensor, Tensor]:
    """Weights that enter within a list, of rank 2, and weights of lists, of rank 1."""
    weights = _weights(weights, like)
    ones = ops.ones((1, 1), dtype=like.dtype)
    return (ones, weights[:, 0]) if weights.shape[1] == 1 else (weights, ones[:, 0])


def _positive(**arguments: Any) -> None:
    for name, value in arguments.items():
        if isinstance(value, (int, float)) and not value > 0:
            raise ValueError(f"{name} must be above 0, got {value}")


def _binary_cross_entropy(y: Tensor, z: Tensor) -> Tensor:
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
    y, z, mask = _prepared(y_true, y_pred)
    _flat(z, "click_cross_entropy")
    items = _binary_cross_entropy(y, z) * _weights(weights, z)
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
    y, z, mask = _prepared(y_true, y_pred)
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
    items = examination_weight * _binary_cross_entropy(examined, examination)
    items = items + relevance_weight * _binary_cross_entropy(relevant, relevance)
    items = items * _weights(weights, z)
    return ops.sum(ops.where(mask, items, 0.0), axis=1)


# Mixtures: a session is of one hidden type m, each type has its own click logits


def _log_prior(log_prior: Tensor | None, z: Tensor) -> Tensor:
    """Normalised log prior that broadcasts to `(batch, K)`."""
    components = z.shape[-1]
    if len(z.shape) != 3 or components == 0:
        raise ValueError(
            "a mixture needs y_pred of shape (batch, list_size, K) with K >= 1, "
            f"got {tuple(z.shape)}"
        )
    if log_prior is None:
        return ops.log_softmax(ops.zeros((1, components), dtype=z.dtype), axis=-1)
    log_prior = ops.cast(ops.convert_to_tensor(log_prior), z.dtype)
    if len(log_prior.shape) not in (1, 2) or log_prior.shape[-1] != components:
        raise ValueError(
            f"log_prior must have shape (K,) or (batch, K) with K = {components}, "
            f"got {tuple(log_prior.shape)}"
        )
    if len(log_prior.shape) == 1:
        log_prior = ops.expand_dims(log_prior, 0)
    return ops.log_softmax(log_prior, axis=-1)


def _softmax(z: Tensor) -> Tensor:
    """Over the last axis; `ops.softmax` warns where that has one component."""
    return ops.exp(ops.log_softmax(z, axis=-1))


def _component_items(y: Tensor, z: Tensor, mask: Tensor, weights: Tensor) -> Tensor:
    """Cross-entropy of each item under each component, `(batch, list_size, K)`."""
    items = _binary_cross_entropy(ops.expand_dims(y, -1), z)
    items = items * ops.expand_dims(weights, -1)
    return ops.where(ops.expand_dims(mask, -1), items, 0.0)


def mixture_likelihood(
    y_true: Tensor,
    y_pred: Tensor,
    log_prior: Tensor | None = None,
    temperature: float = 1.0,
    weights: Tensor | None = None,
) -> Tensor:
    """Negative log-likelihood of a session under a mixture of K click models, in nats.

    L = -T logsumexp_m(log prior_m - L_m / T), with L_m the `click_cross_entropy` of the
    whole session under component m. At T = 1 this is exact maximum likelihood. Above 1
    it keeps the posterior soft on long lists; T is 1 / alpha of Yan et al. Its gradient
    weighs each L_m by `responsibilities`, as an E-step followed by one gradient step
    would. Lists without a click count like any other: to drop them would truncate the
    likelihood. Components that start alike stay alike: break the symmetry.

    Source: after Yan et al., Revisiting Two-tower Models for Unbiased Learning to Rank,
    SIGIR 2022; with a prior.

    Args:
        y_true: `(batch, list_size)` clicks, -1 at padding.
        y_pred: `(batch, list_size, K)` click logits of each component.
        log_prior: `(K,)`, or `(batch, K)` where it depends on context; any real
            numbers, normalised here by a softmax. None is the uniform prior.
        temperature: T > 0.
        weights: Of lists or of items, see the module; of items, they enter L_m.

    Returns:
        `(batch,)`.

    >>> loss = mixture_likelihood([[1, 0]], [[[0.6, 0.9], [0.8, 0.2]]])
    >>> round(float(loss[0]), 6)  # components of 1.608588 and 1.139294
    1.34666
    """
    _positive(temperature=temperature)
    y, z, mask = _prepared(y_true, y_pred)
    prior = _log_prior(log_prior, z)
    of_items, of_lists = _of_items_and_lists(weights, z)
    session = ops.sum(_component_items(y, z, mask, of_items), axis=1)
    loss = marginal_loss(session, prior, temperature)
    # The logsumexp of a prior is 0 only up to rounding: padding must add exactly 0.
    return ops.where(ops.any(mask, axis=1), loss, 0.0) * of_lists


def marginal_loss(losses: Tensor, log_prior: Tensor, temperature: Tensor) -> Tensor:
    """-T logsumexp_m(log prior_m - L_m / T), `(batch, K)` to `(batch,)`, in nats.

    Args:
        losses: L_m, -log P(session | type m), `(batch, K)`.
        log_prior: Log shares of the types, broadcast to `(batch, K)`.
        temperature: T > 0; at 1 the result is -log P(session).

    >>> loss = marginal_loss([[0.5, 0.25]], [[0.0, -80.0]], 1.0)
    >>> float(loss[0])
    0.5
    """
    losses = ops.convert_to_tensor(losses)
    return -temperature * ops.logsumexp(log_prior - losses / temperature, axis=-1)


def responsibilities(
    y_true: Tensor,
    y_pred: Tensor,
    log_prior: Tensor | None = None,
    temperature: float = 1.0,
) -> Tensor:
    """Posterior of the session's type given all its clicks, `(batch, K)`.

    p(m | c) = softmax_m(log prior_m - L_m / T); arguments as `mixture_likelihood`.
    Not for predicting a click of the same session, which it has seen:
    `conditional_logits` is.

    >>> p = responsibilities([[1, 0]], [[[0.6, 0.9], [0.8, 0.2]]])
    >>> [round(float(x), 4) for x in p[0]]
    [0.3848, 0.6152]
    """
    _positive(temperature=temperature)
    y, z, mask = _prepared(y_true, y_pred)
    prior = _log_prior(log_prior, z)
    items = _component_items(y, z, mask, _weights(None, z))
    return _softmax(prior - ops.sum(items, axis=1) / temperature)


def _log_prefix(y: Tensor, z: Tensor, mask: Tensor, prior: Tensor) -> Tensor:
    items = _component_items(y, z, mask, _weights(None, z))
    above = ops.cumsum(items[:, :-1], axis=1)
    above = ops.concatenate([ops.zeros_like(items[:, :1]), above], axis=1)
    return ops.log_softmax(ops.expand_dims(prior, 1) - above, axis=-1)


def prefix_responsibilities(
    y_true: Tensor, y_pred: Tensor, log_prior: Tensor | None = None
) -> Tensor:
    """Posterior of the session's type given the clicks above each item only.

    p(m | c_<k) = softmax_m(log prior_m - sum_{j<k} L_mj), `(batch, list_size, K)`: the
    prior at the first item. Columns must be in display order; arguments as
    `mixture_likelihood`.

    >>> p = prefix_responsibilities([[1, 0]], [[[0.0, 90.0], [0.0, 0.0]]])
    >>> [[round(float(x), 4) for x in row] for row in p[0]]
    [[0.5, 0.5], [0.3333, 0.6667]]
    """
    y, z, mask = _prepared(y_true, y_pred)
    return ops.exp(_log_prefix(y, z, mask, _log_prior(log_prior, z)))


def mixture_logits(log_weights: Tensor, y_pred: Tensor) -> Tensor:
    """Logit of sum_m w_m sigma(z_m) over the last axis, without leaving logs.

    logsumexp_m(log w_m + log sigma(z_m)) - logsumexp_m(log w_m + log sigma(-z_m)).

    Args:
        log_weights: Log weights, which broadcast to `y_pred`.
        y_pred: `(..., K)` logits.

    Returns:
        `(...)` logits.

    >>> import math
    >>> logit = mixture_logits([math.log(0.5), math.log(0.5)], [0.0, 99.0])
    >>> round(float(ops.sigmoid(logit)), 6)  # (1/2 + 1) / 2
    0.75
    """
    z = ops.convert_to_tensor(y_pred)
    log_weights = ops.cast(ops.convert_to_tensor(log_weights), z.dtype)
    clicked = ops.logsumexp(log_weights - ops.softplus(-z), axis=-1)
    return clicked - ops.logsumexp(log_weights - ops.softplus(z), axis=-1)


def conditional_logits(
    y_true: Tensor, y_pred: Tensor, log_prior: Tensor | None = None
) -> Tensor:
    """Logit of P(c_k | c_<k) under the mixture: what clicks above say, and no more.

    The prediction that a mixture may be scored on. By the chain rule the
    `click_cross_entropy` of these logits is the `mixture_likelihood` of the session.
    The first is the marginal P(c_1), for which there is no click above.

    Args:
        y_true: `(batch, list_size)` clicks in display order, -1 at padding.
        y_pred: `(batch, list_size, K)` click logits of each component.
        log_prior: As in `mixture_likelihood`.

    Returns:
        `(batch, list_size)` logits; padding has one too, of no meaning.

    >>> logits = conditional_logits([[1, 0]], [[[0.0, 99.0], [0.0, 99.0]]])
    >>> [round(float(p), 4) for p in ops.sigmoid(logits[0])]  # 3/4, then 1/3 1/2 + 2/3
    [0.75, 0.8333]
    """
    y, z, mask = _prepared(y_true, y_pred)
    return mixture_logits(_log_prefix(y, z, mask, _log_prior(log_prior, z)), z)


def mixture_em(
    y_true: Tensor,
    y_pred: Tensor,
    log_prior: Tensor | None = None,
    temperature: float = 1.0,
    drop_clickless: bool = True,
    weights: Tensor | None = None,
) -> Tensor:
    """The mixture by EM: sum_m p_m L_m, with the posterior p_m held fixed.

    Parity mode of `mixture_likelihood`: with the default arguments and weights it
    equals TF-Ranking's `MixtureEMLoss` (its alpha is 1 / temperature), in that a list
    without a click has loss 0. Except for those lists its gradient is that of
    `mixture_likelihood`, though its value is not a likelihood: it leaves out the
    prior and the entropy of p.

    Args:
        y_true, y_pred, log_prior, temperature, weights: As in `mixture_likelihood`. The
            prior, too, is held fixed.
        drop_clickless: bool. Whether a list without a click has loss 0.

    Returns:
        `(batch,)`.

    >>> loss = mixture_em([[1, 0]], [[[0.6, 0.9], [0.8, 0.2]]])
    >>> round(float(loss[0]), 6)
    1.31987
    """
    _positive(temperature=temperature)
    y, z, mask = _prepared(y_true, y_pred)
    prior = _log_prior(log_prior, z)
    of_items, of_lists = _of_items_and_lists(weights, z)
    session = ops.sum(_component_items(y, z, mask, of_items), axis=1)
    posterior = _softmax(prior - session / temperature)
    loss = ops.sum(ops.stop_gradient(posterior) * session, axis=-1)
    if drop_clickless:
        loss = ops.where(ops.any(y > 0, axis=1), loss, 0.0)
    return loss * of_lists


# Rankers: labels are grades, or clicks taken for them


def softmax_cross_entropy(
    y_true: Tensor,
    y_pred: Tensor,
    weights: Tensor | None = None,
    gain: bool = False,
    temperature: float = 1.0,
) -> Tensor:
    """Listwise softmax: -sum_i w_i y_i log softmax(z / T)_i over the valid items.

    A list without a positive label has loss 0. Not divided by the sum of labels, as
    TF-Ranking's `SoftmaxLoss`, which it equals. With `weights` of 1 / propensity it is
    the listwise inverse propensity estimator.

    Args:
        y_true: `(batch, list_size)` labels >= 0, -1 at padding.
        y_pred: `(batch, list_size)` scores.
        weights: Of lists or of items, see the module.
        gain: bool. Whether the label of grade y is 2^y - 1, the gain of NDCG.
        temperature: T > 0.

    Returns:
        `(batch,)`.

    >>> loss = softmax_cross_entropy([[2, 0, -1]], [[0.0, 0.0, 9.0]])
    >>> round(float(loss[0]), 6)  # 2 log 2
    1.386294
    """
    _positive(temperature=temperature)
    y, z, mask = _prepared(y_true, y_pred)
    _flat(z, "softmax_cross_entropy")
    z = ops.where(mask, z / temperature, _MASKED)
    labels = (2.0**y - 1.0 if gain else y) * _weights(weights, z)
    items = labels * (ops.logsumexp(z, axis=1, keepdims=True) - z)
    return ops.sum(ops.where(mask, items, 0.0), axis=1)


def pairwise_logistic(
    y_true: Tensor,
    y_pred: Tensor,
    weights: Tensor | None = None,
    temperature: float = 1.0,
) -> Tensor:
    """RankNet: sum over pairs y_i > y_j of w_i log(1 + exp(-(z_i - z_j) / T)).

    Source: Burges et al., Learning to Rank using Gradient Descent, ICML 2005. Equal to
    the sum over a list of TF-Ranking's `PairwiseLogisticLoss`. Memory grows with
    batch list_size^2.

    Args:
        y_true: `(batch, list_size)` labels >= 0, -1 at padding.
        y_pred: `(batch, list_size)` scores.
        weights: Of lists or of items, see the module; of the better item of a pair.
        temperature: T > 0.

    Returns:
        `(batch,)` sums over the pairs of each list, 0 where all labels are equal.

    >>> loss = pairwise_logistic([[1, 0, 0, -1]], [[1.0, 1.0, 1.0, 9.0]])
    >>> round(float(loss[0]), 6)  # two pairs, 2 log 2
    1.386294
    """
    _positive(temperature=temperature)
    y, z, mask = _prepared(y_true, y_pred)
    _flat(z, "pairwise_logistic")
    z = z / temperature
    pair = ops.expand_dims(y, 2) > ops.expand_dims(y, 1)
    pair = pair & ops.expand_dims(mask, 2) & ops.expand_dims(mask, 1)
    losses = ops.softplus(ops.expand_dims(z, 1) - ops.expand_dims(z, 2))
    losses = ops.sum(ops.where(pair, losses, 0.0), axis=2)
    return ops.sum(ops.where(mask, losses * _weights(weights, z), 0.0), axis=1)


def approx_ndcg(
    y_true: Tensor,
    y_pred: Tensor,
    weights: Tensor | None = None,
    temperature: float = 0.1,
) -> Tensor:
    """Minus NDCG with smooth ranks, rank_i = 1 + sum_{j != i} sigma((z_j - z_i) / T).

    Gain 2^y - 1, discount 1 / log2(1 + rank), divided by the ideal DCG of the list. A
    list without a positive label has loss 0.

    Source: Qin et al., A General Approximation Framework for Direct Optimization of
    Information Retrieval Measures, Information Retrieval 2010. Equal to TF-Ranking's
    `ApproxNDCGLoss`.

    Args:
        y_true: `(batch, list_size)` grades >= 0, -1 at padding.
        y_pred: `(batch, list_size)` scores.
        weights: Of lists or of items, see the module; items' are averaged over the list
            in proportion to the labels, as TF-Ranking does for all its listwise losses.
        temperature: T > 0; lower is closer to NDCG and steeper.

    Returns:
        `(batch,)` in [-1, 0].

    >>> loss = approx_ndcg([[0, 1]], [[0.0, 0.0]])  # both at rank 1.5
    >>> round(float(loss[0]), 6)  # -1 / log2(2.5)
    -0.756471
    """
    _positive(temperature=temperature)
    y, z, mask = _prepared(y_true, y_pred)
    _flat(z, "approx_ndcg")
    z = z / temperature
    ahead = ops.sigmoid(ops.expand_dims(z, 1) - ops.expand_dims(z, 2))
    ahead = ops.where(ops.expand_dims(mask, 1), ahead, 0.0)
    ranks = 0.5 + ops.sum(ahead, axis=2)  # the item itself counts one half
    gains = 2.0**y - 1.0  # 0 at padding
    ideal = ops.flip(ops.sort(gains, axis=1), axis=1)
    places = ops.cast(ops.arange(2, ops.shape(y)[1] + 2), z.dtype)
    best = ops.sum(ideal / ops.log2(places), axis=1)
    dcg = ops.sum(ops.where(mask, gains / ops.log2(1.0 + ranks), 0.0), axis=1)
    loss = -ops.where(best > 0, dcg / ops.where(best > 0, best, 1.0), 0.0)
    of_items, of_lists = _of_items_and_lists(weights, z)
    total = ops.sum(y, axis=1)
    of_items = ops.sum(y * of_items, axis=1) / ops.where(total > 0, total, 1.0)
    return loss * of_items * of_lists


# The Keras shells


class ListLoss(keras.losses.Loss):
    """Shell of a loss of lists: calls `function` with the arguments it was built with.

    `sample_weight` of shape `(batch,)` or `(batch, 1)` weighs lists, of shape
    `(batch, list_size)` items. Keras alone would multiply the latter into losses of
    shape `(batch,)` and, where batch and list size are equal, without a word.
    """

    function: Any

    def __init__(self, reduction: str, name: str | None, **arguments: Any):
        super().__init__(name=name, reduction=reduction)
        _positive(**{k: v for k, v in arguments.items() if k == "temperature"})
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


_registered = keras.saving.register_keras_serializable(package="debias")


@_registered
class ClickCrossEntropy(ListLoss):
    """`click_cross_entropy` as a Keras loss."""

    function = staticmethod(click_cross_entropy)

    def __init__(
        self,
        reduction: str = "sum_over_batch_size",
        name: str | None = "click_cross_entropy",
    ):
        super().__init__(reduction, name)


@_registered
class ClickEM(ListLoss):
    """`click_em` as a Keras loss."""

    function = staticmethod(click_em)

    def __init__(
        self,
        examination_weight: float = 1.0,
        relevance_weight: float = 1.0,
        reduction: str = "sum_over_batch_size",
        name: str | None = "click_em",
    ):
        super().__init__(
            reduction,
            name,
            examination_weight=examination_weight,
            relevance_weight=relevance_weight,
        )


@_registered
class MixtureLikelihood(ListLoss):
    """`mixture_likelihood` as a Keras loss, with one prior for all sessions."""

    function = staticmethod(mixture_likelihood)

    def __init__(
        self,
        log_prior: Sequence[float] | None = None,
        temperature: float = 1.0,
        reduction: str = "sum_over_batch_size",
        name: str | None = "mixture_likelihood",
    ):
        super().__init__(
            reduction, name, log_prior=_listed(log_prior), temperature=temperature
        )


@_registered
class MixtureEM(ListLoss):
    """`mixture_em` as a Keras loss: TF-Ranking's `MixtureEMLoss`."""

    function = staticmethod(mixture_em)

    def __init__(
        self,
        log_prior: Sequence[float] | None = None,
        temperature: float = 1.0,
        drop_clickless: bool = True,
        reduction: str = "sum_over_batch_size",
        name: str | None = "mixture_em",
    ):
        super().__init__(
            reduction,
            name,
            log_prior=_listed(log_prior),
            temperature=temperature,
            drop_clickless=drop_clickless,
        )


@_registered
class SoftmaxCrossEntropy(ListLoss):
    """`softmax_cross_entropy` as a Keras loss."""

    function = staticmethod(softmax_cross_entropy)

    def __init__(
        self,
        gain: bool = False,
        temperature: float = 1.0,
        reduction: str = "sum_over_batch_size",
        name: str | None = "softmax_cross_entropy",
    ):
        super().__init__(reduction, name, gain=gain, temperature=temperature)


@_registered
class PairwiseLogistic(ListLoss):
    """`pairwise_logistic` as a Keras loss."""

    function = staticmethod(pairwise_logistic)

    def __init__(
        self,
        temperature: float = 1.0,
        reduction: str = "sum_over_batch_size",
        name: str | None = "pairwise_logistic",
    ):
        super().__init__(reduction, name, temperature=temperature)


@_registered
class ApproxNDCG(ListLoss):
    """`approx_ndcg` as a Keras loss."""

    function = staticmethod(approx_ndcg)

    def __init__(
        self,
        temperature: float = 0.1,
        reduction: str = "sum_over_batch_size",
        name: str | None = "approx_ndcg",
    ):
        super().__init__(reduction, name, temperature=temperature)


def _listed(log_prior: Sequence[float] | None) -> list[float] | None:
    """Plain floats, which a configuration can hold."""
    return None if log_prior is None else [float(value) for value in log_prior]


LOSSES: dict[str, type[ListLoss]] = {
    "click_cross_entropy": ClickCrossEntropy,
    "click_em": ClickEM,
    "mixture_likelihood": MixtureLikelihood,
    "mixture_em": MixtureEM,
    "softmax_cross_entropy": SoftmaxCrossEntropy,
    "pairwise_logistic": PairwiseLogistic,
    "approx_ndcg": ApproxNDCG,
}
