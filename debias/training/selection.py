"""The choice of a model by held-out clicks."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np


class Choice(NamedTuple):
    """Which candidate was chosen.

    Attributes:
        name: The candidate.
        why: In words.
        table: Of each candidate, its mean held-out log-likelihood a session, how far
            that lies below the best, and the standard error of that difference.
    """

    name: str
    why: str
    table: list[dict[str, Any]]


def choose(likelihoods: Mapping[str, np.ndarray], query: np.ndarray) -> Choice:
    """The simplest candidate within one standard error of the most likely.

    The difference d_s of two candidates' log-likelihoods of session s is paired; its
    mean has the standard error sqrt(G / (G - 1) sum_g e_g^2) / S, with e_g the sum of
    d_s - mean over the sessions of query g of G, for these depend on each other; where
    there is one query, over single sessions. The rule of one standard error: Breiman et
    al., Classification and Regression Trees, 1984, section 3.4.3.

    Args:
        likelihoods: (S,) held-out log-likelihoods by candidate, the simplest first.
        query: (S,) query of each session.

    >>> same = np.array([0.0, 0.1, -0.1, 0.0])
    >>> likelihoods = {"plain": -2 + same, "rich": -2 - same, "poor": same - 5}
    >>> choose(likelihoods, np.arange(4)).name
    'plain'
    """
    means = {name: float(value.mean()) for name, value in likelihoods.items()}
    best = max(means, key=lambda name: means[name])
    _, group = np.unique(query, return_inverse=True)
    group = group if group.max() > 0 else np.arange(len(query))
    table: list[dict[str, Any]] = []
    for name, value in likelihoods.items():
        apart = np.asarray(likelihoods[best] - value, dtype=float)
        sums = np.bincount(group, apart - apart.mean())
        error = np.sqrt(len(sums) / (len(sums) - 1) * np.sum(sums**2)) / len(apart)
        below = float(apart.mean())
        row = {"model": name, "log_likelihood": means[name]}
        table.append({**row, "below_best": below, "standard_error": float(error)})
    near = [row for row in table if row["below_best"] <= row["standard_error"]]
    name = near[0]["model"]
    if name == best:
        why = f"{name} makes held-out clicks most likely"
        if len(near) == 1:
            why += " and no simpler model comes within one standard error"
    else:
        row = near[0]
        why = (
            f"{name} is the simplest within one standard error of {best}: "
            f"{row['below_best']:.5f} nats a session below, error "
            f"{row['standard_error']:.5f}"
        )
    return Choice(name, why, table)
