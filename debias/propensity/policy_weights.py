"""Propensity weights for logs whose policy shows better items higher.

A well-specified click model is unbiased even if the policy shows good items high. In a
misspecified model, the bias tower learns a part of the relevance; the part is larger if
the policy is more deterministic. Weights 1 / pi, where pi is the policy's probability
of the rank given query and item, make rank and relevance independent. Weights add
variance, and they help only if items moved at random.
"""

import warnings
from typing import NamedTuple

import numpy as np

from debias.data import ClickLog
from debias.metrics import effective_sample_size
from debias.propensity.cells import cells


class PolicyWeights(NamedTuple):
    """Weights of the impressions.

    Attributes:
        weight: (S, L) float32 weights, with mean 1 over the shown cells and 0 at
            padding. Pass the weights to `debias.models.batches.batches` as `weight`.
        effective: Effective number of impressions, (sum w)^2 / sum w^2.
    """

    weight: np.ndarray
    effective: float


def policy_weights(log: ClickLog, clip: float = 100.0) -> PolicyWeights:
    """Weights each impression by w = min(clip, 1 / pi(rank | query, item)).

    Here pi is the share of the query's sessions that showed the item at the rank. This
    share differs from the column `logging_propensity`, which is conditional on the
    items above. The weights are divided by their mean.

    Args:
        log: The shown lists.
        clip: Largest weight before division by the mean, at least 1. A smaller clip
            reduces variance and removes less of the policy's effect. An item that is
            shown equally often at each of L ranks has the weight L. So a clip near L
            removes most differences between weights.

    Raises:
        ValueError: `clip` is below 1, or the log has no session.

    Warns:
        UserWarning: No item was shown at more than one rank for the same query. In this
            case, weights have no effect, and only randomised logging helps.

    Source: after Hager et al., Unidentified and Confounded? Understanding Two-Tower
    Models for Unbiased Learning to Rank, ICTIR 2025.

    >>> log = ClickLog([0] * 5, [[1, 2]] * 4 + [[2, 1]], np.zeros((5, 2), bool))
    >>> found = policy_weights(log)
    >>> found.weight[[0, 4]].tolist()  # 5/4 and 5 over their mean, 2
    [[0.625, 0.625], [2.5, 2.5]]
    >>> found.effective  # (8 * .625 + 2 * 2.5)^2 / (8 * .625^2 + 2 * 2.5^2)
    6.4
    """
    if not clip >= 1:
        raise ValueError(f"clip must be at least 1, got {clip}")
    counted = cells(log)
    if counted.by_pair(np.ones(len(counted.pair))).max() == 1:
        warnings.warn(
            "every item of a query was shown at one rank only: without randomisation, "
            "weights cannot separate rank and relevance. Exchange items in a small "
            "share of sessions",
            UserWarning,
            stacklevel=2,
        )
    sessions = np.bincount(log.query)[log.query]
    # The entry after the last cell is for padding.
    shown = np.append(counted.shown, np.inf)[counted.index]
    weight = np.where(log.mask, np.minimum(sessions[:, None] / shown, clip), 0.0)
    mean = weight.sum() / log.mask.sum()
    return PolicyWeights(
        (weight / mean).astype(np.float32), effective_sample_size(weight[log.mask])
    )
