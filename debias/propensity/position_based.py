"""Examination by the position-based model: EM as published, its maximum, regression-EM.

P(click at rank k on pair i) = theta_k gamma_i, with a free gamma for each pair, or
gamma_i = sigmoid(w . x_i + b) of the item's features (regression-EM, Wang et al.,
Position Bias Estimation for Unbiased Learning to Rank in Personal Search, WSDM 2018).
"""

import numpy as np
from scipy.special import expit

from debias.propensity.cells import Cells
from debias.propensity.examination import Fit
from debias.propensity.pbm_maximum import (
    TINY,
    Prior,
    accelerated,
    in_scale,
    pbm_maximum,
    pbm_step,
    profile_slopes,
)

CERTAIN = 1 - 1e-9


def pbm_em(
    counted: Cells, prior: Prior = (1.0, 2.0), iterations: int = 40
) -> tuple[np.ndarray, np.ndarray]:
    """EM from .5, stopped after `iterations` passes, with pseudo-counts.

    The usual published setting, and the reason why it claims no interval: smoothing
    pulls the attraction of pairs with few impressions towards a half, and theta with
    it, which no amount of sessions per pair seen once or twice averages out.

    Returns:
        (K,) log theta over rank 1, (P,) gamma times theta_1.
    """
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1, got {iterations}")
    gamma, theta = np.full(counted.pairs, 0.5), np.full(counted.ranks, 0.5)
    for _ in range(iterations):
        gamma, theta = pbm_step(counted, gamma, theta, prior)
    return in_scale(counted, gamma, theta)


def pbm_mle(counted: Cells, prior: Prior = (0.0, 0.0)) -> Fit:
    """The maximum of the likelihood, or of the posterior under a prior.

    Pairs that were shown at one rank only say nothing about examination. Where most
    others have few impressions the maximum is biased, as every model is whose
    parameters grow in number with the data: harvesting is then the safer choice.
    """
    log_theta, gamma = pbm_maximum(counted, prior=prior)
    return _fit(counted, log_theta, gamma)


def _fit(counted: Cells, log_theta: np.ndarray, gamma: np.ndarray) -> Fit:
    theta = np.exp(np.nan_to_num(log_theta, nan=-np.inf))
    p = np.minimum(theta[counted.rank] * gamma[counted.pair], CERTAIN)
    ties = counted.by_pair(np.ones(len(p)))[counted.pair] > 1
    told = ties & ~np.isnan(log_theta)[counted.rank]
    # gamma was fitted to its own clicks: what is left of one impression is smaller by
    # its share in the pair's information.
    weight = p / (1 - p)
    total = counted.by_pair(counted.shown * weight)[counted.pair]
    share = np.divide(weight, total, out=np.zeros_like(p), where=total > 0)
    inflation = 1 / np.maximum(1 - share, 0.5)
    n = counted.by_rank(counted.shown * told)
    return Fit(log_theta, profile_slopes(counted, log_theta, gamma), p, inflation, n)


def regression_em(
    counted: Cells,
    features: np.ndarray | None = None,
    tolerance: float = 1e-7,
    iterations: int = 3000,
) -> Fit:
    """EM whose attraction is a logistic regression on features, with theta_1 = 1.

    The E-step is that of the position-based model. The M-step sets theta to the
    expected share of examined impressions, and takes one Newton step of the logistic
    regression of expected attractions. Without features each pair has its own gamma,
    which is `pbm_mle`.

    Args:
        counted: The cells.
        features: (P, F) of each pair; an intercept is added.
        tolerance: Stops once a pass moves no parameter by more.
        iterations: Most passes.

    Raises:
        ValueError: The features do not fit the pairs, or are not finite.
    """
    if features is None:
        return pbm_mle(counted)
    x = design(features, counted.pairs)
    theta, beta = np.ones(counted.ranks), np.zeros(x.shape[1])
    theta[1:] = 0.5
    low = np.r_[np.zeros(counted.ranks), np.full(len(beta), -np.inf)]
    high = np.r_[np.ones(counted.ranks), np.full(len(beta), np.inf)]
    shown_pair = counted.by_pair(counted.shown)
    shown_rank = np.maximum(counted.by_rank(counted.shown), TINY)

    def step(state: np.ndarray) -> np.ndarray:
        theta, beta = state[: counted.ranks], state[counted.ranks :]
        gamma = expit(x @ beta)
        g, t = gamma[counted.pair], theta[counted.rank]
        rest = (counted.shown - counted.clicked) / np.maximum(1 - g * t, TINY)
        seen = counted.by_rank(counted.clicked + rest * t * (1 - g)) / shown_rank
        seen[0] = 1.0
        liked = counted.by_pair(counted.clicked + rest * g * (1 - t))
        slope = x.T @ (liked - shown_pair * gamma)
        curve = (x.T * (shown_pair * gamma * (1 - gamma))) @ x
        move = np.linalg.lstsq(curve, slope, rcond=1e-10)[0]
        # One Newton step may overshoot from afar: no logit moves by more than 2.
        reach = np.abs(x @ move).max(initial=0.0)
        return np.concatenate([seen, beta + move * min(1.0, 2.0 / max(reach, TINY))])

    state, _ = accelerated(
        step, np.concatenate([theta, beta]), tolerance, iterations, low, high
    )
    theta, beta = state[: counted.ranks], state[counted.ranks :]
    gamma = expit(x @ beta)
    known = counted.by_rank(counted.clicked) > 0
    log_theta = np.log(np.where(known, theta, np.nan))
    p = np.minimum(gamma[counted.pair] * theta[counted.rank], CERTAIN)
    # d log p: one for the own rank, (1 - gamma) x for the weights.
    pull = np.zeros((len(p), counted.ranks + len(beta)))
    pull[np.arange(len(p)), counted.rank] = 1.0
    pull[:, counted.ranks :] = (1 - gamma[counted.pair])[:, None] * x[counted.pair]
    pull[:, 0] = 0.0
    information = (pull.T * (counted.shown * p / (1 - p))) @ pull
    moves = np.linalg.pinv(information, hermitian=True)[: counted.ranks]
    influence = moves @ (pull.T / (1 - p))
    influence[~known] = 0.0
    ones = np.ones_like(p)
    return Fit(log_theta, influence, p, ones, counted.by_rank(counted.shown))


def design(features: np.ndarray, rows: int) -> np.ndarray:
    """(rows, F + 1) float64 features with an intercept, checked."""
    x = np.asarray(features, dtype=np.float64)
    if x.ndim != 2 or len(x) != rows:
        raise ValueError(f"features must have shape ({rows}, F), got {x.shape}")
    if not np.isfinite(x).all():
        row, column = np.argwhere(~np.isfinite(x))[0]
        raise ValueError(f"features must be finite, got {x[row, column]} at row {row}")
    return np.column_stack([x, np.ones(rows)])
