"""Losses for mixtures of click models, where each session has a hidden type.

Each type m has its own click model, and L_m is the negative log-likelihood of a session
under this model. The model `Mixture` passes the losses L_m of its components to
`mixture_likelihood`. The Keras loss `MixtureLikelihood` computes the losses L_m from
click logits with `component_losses`.

Source: after Yan et al., Revisiting Two-tower Models for Unbiased Learning to Rank,
SIGIR 2022, with a prior added.
"""

from keras import ops

from debias.losses.click import binary_cross_entropy
from debias.losses.lists import (
    exact,
    of_items_and_lists,
    prepared,
    require_positive,
    serializable,
    weights_like,
)
from debias.types import Tensor


def mixture_likelihood(
    losses: Tensor, log_prior: Tensor, temperature: Tensor | float = 1.0
) -> Tensor:
    """Negative log-likelihood of a mixture in nats, `(batch, K)` to `(batch,)`.

    The loss is -T logsumexp_m(log prior_m - L_m / T), with temperature T. With T = 1,
    the loss is exactly -log P(session). With T > 1, the posterior of the types stays
    soft on long lists. Yan et al. write 1 / alpha for T.

    The gradient weights each L_m by the posterior of type m, like an E-step followed by
    a gradient step. Keep sessions without a click, because the likelihood is not
    conditioned on a click in the session. Give the components different initial
    weights, because identical components stay identical.

    Args:
        losses: Losses L_m = -log P(session | type m), `(batch, K)`.
        log_prior: Log probabilities of the types, which broadcast to `(batch, K)`.
        temperature: Temperature T > 0.

    >>> loss = mixture_likelihood([[0.5, 0.25]], [[0.0, -80.0]])
    >>> float(loss[0])
    0.5
    """
    require_positive(temperature=temperature)
    losses = ops.convert_to_tensor(losses)
    return -temperature * ops.logsumexp(log_prior - losses / temperature, axis=-1)


def responsibilities(losses: Tensor, log_prior: Tensor) -> Tensor:
    """Posterior of a session's type given all clicks of the session, `(batch, K)`.

    The posterior of type m is p(m | c) = softmax_m(log prior_m - L_m). The arguments
    are those of `mixture_likelihood`. The posterior depends on all clicks of the
    session, so do not predict the same clicks from the posterior. Predict clicks by
    `conditional_logits` instead.

    >>> p = responsibilities([[0.0, 0.0]], ops.log([[0.25, 0.75]]))
    >>> [round(float(x), 4) for x in p[0]]
    [0.25, 0.75]
    """
    # `ops.softmax` warns if the last axis has one component.
    return ops.exp(ops.log_softmax(log_prior - losses, axis=-1))


def normalized(log_prior: Tensor | None, components: int, dtype: str) -> Tensor:
    """Normalised log prior that broadcasts to `(batch, K)`; None means uniform."""
    if log_prior is None:
        return ops.log_softmax(ops.zeros((1, components), dtype=dtype), axis=-1)
    log_prior = ops.cast(ops.convert_to_tensor(log_prior), dtype)
    if len(log_prior.shape) not in (1, 2) or log_prior.shape[-1] != components:
        raise ValueError(
            f"log_prior must have shape (K,) or (batch, K) with K = {components}, "
            f"got {tuple(log_prior.shape)}"
        )
    if len(log_prior.shape) == 1:
        log_prior = ops.expand_dims(log_prior, 0)
    return ops.log_softmax(log_prior, axis=-1)


def _component_items(y: Tensor, z: Tensor, mask: Tensor, weights: Tensor) -> Tensor:
    """Cross-entropy of each item under each component, `(batch, list_size, K)`."""
    if len(z.shape) != 3 or z.shape[-1] == 0:
        raise ValueError(
            "a mixture needs y_pred of shape (batch, list_size, K) with K >= 1, "
            f"got {tuple(z.shape)}"
        )
    items = binary_cross_entropy(ops.expand_dims(y, -1), z)
    items = items * ops.expand_dims(weights, -1)
    return ops.where(ops.expand_dims(mask, -1), items, 0.0)


def component_losses(
    y_true: Tensor, y_pred: Tensor, weights: Tensor | None = None
) -> Tensor:
    """The `click_cross_entropy` of a session under each component, `(batch, K)`.

    Args:
        y_true: `(batch, list_size)` clicks, -1 at padding.
        y_pred: `(batch, list_size, K)` click logits of each component.
        weights: Weights of items, `(batch, list_size)`, or None.

    >>> losses = component_losses([[1, 0]], [[[0.6, 0.9], [0.8, 0.2]]])
    >>> [round(float(x), 4) for x in losses[0]]
    [1.6086, 1.1393]
    """
    y, z, mask = prepared(y_true, y_pred)
    items = _component_items(y, z, mask, weights_like(weights, z))
    return ops.sum(items, axis=1)


@serializable
def mixture_of_logits(
    y_true: Tensor,
    y_pred: Tensor,
    log_prior: Tensor | None = None,
    temperature: float = 1.0,
    weights: Tensor | None = None,
) -> Tensor:
    """The `mixture_likelihood` of click logits; 0 for a list of only padding.

    Args:
        y_true, y_pred: See `component_losses`.
        log_prior: Logits of the prior, `(K,)`, or `(batch, K)` if the prior depends on
            context. None means a uniform prior.
        temperature: Temperature T > 0.
        weights: Weights of lists or of items; `debias.losses` explains the shapes. An
            item weight multiplies the term of the item in each L_m.

    Returns:
        `(batch,)`.

    >>> loss = mixture_of_logits([[1, 0]], [[[0.6, 0.9], [0.8, 0.2]]])
    >>> round(float(loss[0]), 6)  # components of 1.608588 and 1.139294
    1.34666
    """
    _, z, mask = prepared(y_true, y_pred)
    of_items, of_lists = of_items_and_lists(weights, z)
    losses = component_losses(y_true, z, of_items)
    prior = normalized(log_prior, z.shape[-1], z.dtype)
    loss = mixture_likelihood(losses, prior, temperature)
    # The logsumexp of a prior is 0 only up to rounding, but padding must add exactly 0.
    return ops.where(ops.any(mask, axis=1), loss, 0.0) * of_lists


def mixture_logits(log_weights: Tensor, y_pred: Tensor) -> Tensor:
    """Logit of sum_m w_m sigma(z_m) over the last axis, computed in log space.

    The logit is the difference of logsumexp_m(log w_m + log sigma(z_m)) and
    logsumexp_m(log w_m + log sigma(-z_m)).

    Args:
        log_weights: Log weights that broadcast to `y_pred`.
        y_pred: `(..., K)` logits.

    Returns:
        `(...)` logits.

    >>> import math
    >>> logit = mixture_logits([math.log(0.5), math.log(0.5)], [0.0, 99.0])
    >>> round(float(ops.sigmoid(logit)), 6)  # (1/2 + 1) / 2
    0.75
    """
    z = exact(y_pred)
    log_weights = ops.cast(ops.convert_to_tensor(log_weights), z.dtype)
    clicked = ops.logsumexp(log_weights - ops.softplus(-z), axis=-1)
    return clicked - ops.logsumexp(log_weights - ops.softplus(z), axis=-1)


def conditional_logits(
    y_true: Tensor, y_pred: Tensor, log_prior: Tensor | None = None
) -> Tensor:
    """Logit of each click given the clicks above it, P(c_k | c_<k), in a mixture.

    Evaluate mixtures by these conditional logits. By the chain rule, the
    `click_cross_entropy` of the conditional logits equals the `mixture_of_logits` of
    the session. The first conditional logit is the logit of the marginal P(c_1).

    Args:
        y_true: `(batch, list_size)` clicks in display order, -1 at padding.
        y_pred: `(batch, list_size, K)` click logits of each component.
        log_prior: See `mixture_of_logits`.

    Returns:
        `(batch, list_size)` logits; values at padding have no meaning.

    >>> logits = conditional_logits([[1, 0]], [[[0.0, 99.0], [0.0, 99.0]]])
    >>> [round(float(p), 4) for p in ops.sigmoid(logits[0])]  # 3/4, then 1/3 1/2 + 2/3
    [0.75, 0.8333]
    """
    y, z, mask = prepared(y_true, y_pred)
    items = _component_items(y, z, mask, weights_like(None, z))
    # P(type | clicks above the item); at the first item, it is the prior.
    above = ops.cumsum(items[:, :-1], axis=1)
    above = ops.concatenate([ops.zeros_like(items[:, :1]), above], axis=1)
    prior = ops.expand_dims(normalized(log_prior, z.shape[-1], z.dtype), 1)
    return mixture_logits(ops.log_softmax(prior - above, axis=-1), z)
