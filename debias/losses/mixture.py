"""Losses of mixtures of click models: sessions are of one type or another."""

from keras import ops

from debias.losses.click import binary_cross_entropy
from debias.losses.lists import (
    Tensor,
    of_items_and_lists,
    prepared,
    require_positive,
    weights_like,
)


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
    items = binary_cross_entropy(ops.expand_dims(y, -1), z)
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
    require_positive(temperature=temperature)
    y, z, mask = prepared(y_true, y_pred)
    prior = _log_prior(log_prior, z)
    of_items, of_lists = of_items_and_lists(weights, z)
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
    require_positive(temperature=temperature)
    y, z, mask = prepared(y_true, y_pred)
    prior = _log_prior(log_prior, z)
    items = _component_items(y, z, mask, weights_like(None, z))
    return _softmax(prior - ops.sum(items, axis=1) / temperature)


def _log_prefix(y: Tensor, z: Tensor, mask: Tensor, prior: Tensor) -> Tensor:
    items = _component_items(y, z, mask, weights_like(None, z))
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
    y, z, mask = prepared(y_true, y_pred)
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
    y, z, mask = prepared(y_true, y_pred)
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
    require_positive(temperature=temperature)
    y, z, mask = prepared(y_true, y_pred)
    prior = _log_prior(log_prior, z)
    of_items, of_lists = of_items_and_lists(weights, z)
    session = ops.sum(_component_items(y, z, mask, of_items), axis=1)
    posterior = _softmax(prior - session / temperature)
    loss = ops.sum(ops.stop_gradient(posterior) * session, axis=-1)
    if drop_clickless:
        loss = ops.where(ops.any(y > 0, axis=1), loss, 0.0)
    return loss * of_lists


# Rankers: labels are grades, or clicks taken for them
