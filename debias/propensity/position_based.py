"""Estimators of the position-based model: EM, MLE, conditional, regression-EM.

P(click at rank k on pair i) = theta_k gamma_i. Each pair has a free gamma. In
regression-EM, gamma_i = sigmoid(w . x_i + b) is a function of the item's features x_i
instead. Source of regression-EM: Wang et al., Position Bias Estimation for Unbiased
Learning to Rank in Personal Search, WSDM 2018.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph
from scipy.special import expit

from debias.propensity.cells import Cells, by_pair_and_rank, products, typical
from debias.propensity.examination import Fit
from debias.propensity.pbm_maximum import (
    TINY,
    Prior,
    accelerated,
    in_scale,
    pbm_maximum,
    pbm_step,
)

CERTAIN = 1 - 1e-9
ROWS = 1 << 13  # rows of features whose products fit into a cache
SCORINGS, HALVINGS = 50, 12
NEAR = 1e-2  # step length below which scoring keeps its information matrix
SETTLED = 1e-8  # largest move of a parameter in the last step of scoring
EDGE = 1e-3  # smaller log ratios count as 0
FEW = 50  # impressions of the median impression's pair, below which it may be wrong


def point(counted: Cells, log_theta: np.ndarray, degenerate: str = "") -> Fit:
    """Makes a fit without an interval."""
    nothing, shown = np.zeros(0), counted.by_rank(counted.shown)
    return Fit(log_theta, nothing, nothing, nothing, shown, degenerate)


def pbm_em(counted: Cells, prior: Prior = (1.0, 2.0), iterations: int = 40) -> Fit:
    """Runs `iterations` passes of EM from parameters of .5, with pseudo-counts.

    The default settings are usual in publications. The estimate has no interval,
    because it is biased. Smoothing pulls the attraction of pairs with few impressions
    towards a half, and this changes theta. More pairs with one or two impressions do
    not remove the bias.
    """
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1, got {iterations}")
    gamma, theta = np.full(counted.pairs, 0.5), np.full(counted.ranks, 0.5)
    for _ in range(iterations):
        gamma, theta = pbm_step(counted, gamma, theta, prior)
    return point(counted, in_scale(counted, gamma, theta)[0])


def pbm_mle(counted: Cells, prior: Prior = (0.0, 0.0)) -> Fit:
    """Maximises the likelihood, or the posterior under a prior.

    If pairs have few impressions, the estimate is biased, as in every model whose
    number of parameters grows with the data. With twenty sessions per query, the bias
    is several standard errors, so there is no interval. `pbm_conditional` avoids the
    bias, because it has no parameters of pairs.

    In extreme cases, the maximum is at the boundary of the model, where most ranks have
    the same examination as rank 1. Such a fit is marked as degenerate if at least half
    of the impressions are of pairs with fewer than 50 impressions.
    """
    log_theta = pbm_maximum(counted, prior=prior)[0]
    below = log_theta[1:][~np.isnan(log_theta[1:])]
    at_edge = int((np.abs(below) < EDGE).sum())
    wrong = ""
    if 2 * at_edge > len(below) and typical(counted.by_pair(counted.shown)) < FEW:
        wrong = (
            f"the likelihood is largest where {at_edge} of {len(below)} ranks are "
            "examined like rank 1: items with few impressions explain the clicks"
        )
    return point(counted, log_theta, wrong)


def pbm_conditional(counted: Cells, iterations: int = 50) -> Fit:
    """Estimates examination conditional on the number of clicks of each pair.

    Let pair i have n_ik impressions and c_ik clicks at rank k. A share s_ik = n_ik
    theta_k / sum_l n_il theta_l of the clicks of pair i is expected at rank k, for any
    attraction gamma_i. The theta that maximises sum_ik c_ik log s_ik is therefore
    consistent even if pairs have few impressions. The estimator is the Poisson case of
    Wooldridge, Distribution-Free Estimation of Some Nonlinear Panel Data Models,
    Journal of Econometrics 1999. The likelihood is concave and is maximised by Newton's
    method.

    A pair links a rank where it is shown to a rank where it is clicked. A rank is
    identified if chains of these links lead from the rank to rank 1 and back.
    """
    known = _compared(counted)
    kept = known[counted.rank]
    clicked = counted.clicked * kept
    clicks = counted.by_pair(clicked)
    root = np.sqrt(clicks)[counted.pair]
    free = known.copy()
    free[0] = False  # theta_1 = 1 sets the scale
    inner = np.ix_(free, free)

    def parts(log_theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """s / n and P(click) of each cell, and the inverse information (K, K)."""
        theta = np.exp(log_theta)[counted.rank] * kept
        total = np.maximum(counted.by_pair(counted.shown * theta), TINY)
        share, p = theta / total[counted.pair], theta * (clicks / total)[counted.pair]
        both = products(counted, counted.shown * share * root)
        information = np.diag(counted.by_rank(counted.shown * p)) - both
        inverse = np.zeros_like(information)
        inverse[inner] = np.linalg.pinv(information[inner], hermitian=True)
        return share, p, inverse

    log_theta = np.zeros(counted.ranks)
    for _ in range(iterations):
        _, p, inverse = parts(log_theta)
        move = inverse @ counted.by_rank(clicked - counted.shown * p)
        # Far from the maximum, a full step overshoots.
        log_theta += move * min(1.0, 2.0 / max(np.abs(move).max(), TINY))
        if np.abs(move).max() < 1e-10:
            break
    share, p, inverse = parts(log_theta)
    # One more click raises its own rank, and lowers all ranks by their shares.
    pull = by_pair_and_rank(counted, counted.shown * share) @ inverse
    influence = inverse[:, counted.rank]
    influence -= pull[counted.pair].T
    influence *= kept
    ties = counted.by_pair(kept)[counted.pair] > 1
    return Fit(
        np.where(known, log_theta, np.nan),
        influence,
        p,
        # gamma takes its share of the clicks that it explains, so less remains.
        1 / np.maximum(1 - share, 0.5),
        counted.by_rank(counted.shown * (ties & kept)),
    )


def _compared(counted: Cells) -> np.ndarray:
    """(K,) bool, whether examination relative to rank 1 has a finite maximum.

    In a directed graph, each rank leads to its shown pairs, and each pair to the ranks
    where it was clicked. Ranks in the same strongly connected component are compared in
    both directions.
    """
    shows = (counted.rank, counted.ranks + counted.pair)
    hit = counted.clicked > 0
    tail = np.concatenate([shows[0], shows[1][hit]])
    head = np.concatenate([shows[1], shows[0][hit]])
    nodes = counted.ranks + counted.pairs
    graph = sparse.coo_array((np.ones(len(tail)), (tail, head)), (nodes, nodes))
    label = csgraph.connected_components(graph, connection="strong")[1]
    return label[: counted.ranks] == label[0]


def regression_em(
    counted: Cells,
    features: np.ndarray | None = None,
    tolerance: float = 1e-7,
    iterations: int = 3000,
) -> Fit:
    """EM with attraction as a logistic regression on features, and theta_1 = 1.

    The E-step is the same as for the position-based model. The M-step sets theta to the
    expected share of examined impressions, and takes one Newton step of the logistic
    regression of expected attractions. Fisher scoring of the same likelihood runs
    first, because it needs a tenth of the passes that EM needs. EM then checks
    convergence. Without features, each pair has a free gamma, and the estimator is
    `pbm_mle`. The interval is valid if the regression is well specified. In a
    misspecified regression, the part of attraction that the features do not explain
    biases examination.

    Args:
        counted: The cells.
        features: (P, F) features of the pairs; an intercept is added.
        tolerance: EM stops when a pass changes no parameter by more than this.
        iterations: Largest number of passes.

    Raises:
        ValueError: The features have a wrong shape, or are not finite.
    """
    if features is None:
        return pbm_mle(counted)
    x = Design(checked(features, counted.pairs))
    theta, beta = np.ones(counted.ranks), np.zeros(x.width)
    theta[1:] = 0.5
    low = np.r_[np.zeros(counted.ranks), np.full(len(beta), -np.inf)]
    high = np.r_[np.ones(counted.ranks), np.full(len(beta), np.inf)]
    shown_pair = counted.by_pair(counted.shown)
    shown_rank = np.maximum(counted.by_rank(counted.shown), TINY)

    def bend(gamma: np.ndarray) -> np.ndarray:
        return x.squared(shown_pair * gamma * (1 - gamma))

    def step(state: np.ndarray, curve: np.ndarray | None = None) -> np.ndarray:
        theta, beta = state[: counted.ranks], state[counted.ranks :]
        gamma = expit(x.dot(beta))
        g, t = gamma[counted.pair], theta[counted.rank]
        rest = (counted.shown - counted.clicked) / np.maximum(1 - g * t, TINY)
        seen = counted.by_rank(counted.clicked + rest * t * (1 - g)) / shown_rank
        seen[0] = 1.0
        liked = counted.by_pair(counted.clicked + rest * g * (1 - t))
        slope = x.summed(liked - shown_pair * gamma)
        curve = bend(gamma) if curve is None else curve
        move = np.linalg.lstsq(curve, slope, rcond=1e-10)[0]
        # A Newton step may overshoot far from the maximum, so no logit moves by more
        # than 2.
        reach = np.abs(x.dot(move)).max(initial=0.0)
        return np.concatenate([seen, beta + move * min(1.0, 2.0 / max(reach, TINY))])

    start = _scored(counted, x, step(step(np.concatenate([theta, beta]))))
    # Near the end, one curvature is enough: it affects the path, not the limit.
    last = partial(step, curve=bend(expit(x.dot(start[counted.ranks :]))))
    state, _ = accelerated(last, start, tolerance, iterations, low, high)
    theta, beta = state[: counted.ranks], state[counted.ranks :]
    gamma = expit(x.dot(beta))
    known = counted.by_rank(counted.clicked) > 0
    log_theta = np.log(np.where(known, theta, np.nan))
    p = np.minimum(gamma[counted.pair] * theta[counted.rank], CERTAIN)
    information = _information(counted, x, gamma, p)
    moves = np.linalg.pinv(information, hermitian=True)[: counted.ranks]
    # d log p: 1 for the own rank, and (1 - gamma) x for the weights.
    towards = x.dot(moves[:, counted.ranks :].T).T
    influence = (towards * (1 - gamma))[:, counted.pair]
    influence += np.where(counted.rank, moves[:, counted.rank], 0.0)
    influence /= 1 - p
    influence[~known] = 0.0
    ones = np.ones_like(p)
    return Fit(log_theta, influence, p, ones, counted.by_rank(counted.shown))


def squared(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """X' diag(weight) X for X (P, F) and weight >= 0, in cache-sized blocks of rows."""
    total = np.zeros((x.shape[1], x.shape[1]))
    for start in range(0, len(x), ROWS):
        part = slice(start, start + ROWS)
        rows = x[part] * np.sqrt(weight[part])[:, None]
        total += rows.T @ rows
    return total


class Design(NamedTuple):
    """Features (P, F) with an intercept column, read as float64 in blocks of rows.

    >>> x = Design(np.array([[2.0], [3.0]], "float32"))
    >>> x.dot(np.array([10.0, 1.0])).tolist(), x.summed(np.ones(2)).tolist()
    ([21.0, 31.0], [5.0, 2.0])
    """

    features: np.ndarray

    @property
    def width(self) -> int:
        """F + 1."""
        return self.features.shape[1] + 1

    def blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Yields blocks of rows that fit into a cache, with their slices.

        All blocks share their memory: a block is valid until the next one is read.
        """
        block = np.ones((ROWS, self.width))
        for start in range(0, len(self.features), ROWS):
            part = slice(start, start + ROWS)
            features = self.features[part]
            rows = block[: len(features)]
            rows[:, :-1] = features
            yield part, rows

    def dot(self, weight: np.ndarray) -> np.ndarray:
        """The product X weight, for weights (F + 1,) or (F + 1, K)."""
        return np.concatenate([rows @ weight for _, rows in self.blocks()])

    def summed(self, value: Any) -> np.ndarray:
        """The product value' X, for values (P,) or (P, K), which may be sparse."""
        parts = [value[part].T @ rows for part, rows in self.blocks()]
        return np.sum(parts, axis=0)

    def squared(self, weight: np.ndarray) -> np.ndarray:
        """X' diag(weight) X; weight >= 0."""
        parts = [squared(rows, weight[part]) for part, rows in self.blocks()]
        return np.sum(parts, axis=0)


def _information(
    counted: Cells, x: Design, gamma: np.ndarray, p: np.ndarray
) -> np.ndarray:
    """(K + F, K + F) expected information of log theta and weights; 0 for rank 1."""
    weight = counted.shown * p / (1 - p)
    slope = 1 - gamma
    both = x.summed(by_pair_and_rank(counted, weight * slope[counted.pair]))
    ranks = np.diag(counted.by_rank(weight))
    ranks[0] = both[0] = 0.0
    pairs = x.squared(counted.by_pair(weight) * slope**2)
    return np.block([[ranks, both], [both.T, pairs]])


def _scored(counted: Cells, x: Design, state: np.ndarray) -> np.ndarray:
    """Fits theta and weights by Fisher scoring; the likelihood never decreases.

    A step is halved until the likelihood grows. Theta moves at most nine tenths of the
    way to 1, because EM could never leave 1.
    """

    def at(state: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        gamma = expit(x.dot(state[counted.ranks :]))
        p = gamma[counted.pair] * state[counted.rank]
        p = np.clip(p, TINY, CERTAIN)
        rest = counted.shown - counted.clicked
        return gamma, p, float(counted.clicked @ np.log(p) + rest @ np.log1p(-p))

    theta = state[: counted.ranks]
    theta[counted.by_rank(counted.clicked) == 0] = TINY
    gamma, p, likelihood = at(state)
    change, information = np.inf, np.zeros(0)
    for _ in range(SCORINGS):
        pull = (counted.clicked - counted.shown * p) / (1 - p)
        slope = np.append(
            counted.by_rank(pull), x.summed(counted.by_pair(pull) * (1 - gamma))
        )
        slope[0] = 0.0
        if change > NEAR:
            information = _information(counted, x, gamma, p)
        move = np.linalg.lstsq(information, slope, rcond=1e-10)[0]
        reach = np.abs(x.dot(move[counted.ranks :])).max(initial=0.0)
        move *= min(1.0, 2.0 / max(reach, np.abs(move[: counted.ranks]).max(), TINY))
        for _ in range(HALVINGS):
            theta = state[: counted.ranks]
            grown = np.minimum(
                theta * np.exp(move[: counted.ranks]), theta + 0.9 * (1 - theta)
            )
            tried = np.append(grown, state[counted.ranks :] + move[counted.ranks :])
            found = at(tried)
            if found[2] >= likelihood:
                break
            move *= 0.5
        else:
            return state
        change = np.abs(tried - state).max()
        state, (gamma, p, likelihood) = tried, found
        if change < SETTLED:
            break
    return state


def checked(features: np.ndarray, rows: int) -> np.ndarray:
    """Returns the features if they are finite and have the shape (rows, F).

    Raises:
        ValueError: The features are not finite, or have a wrong shape.
    """
    x = np.asarray(features)
    if x.ndim != 2 or len(x) != rows:
        raise ValueError(f"features must have shape ({rows}, F), got {x.shape}")
    if not np.isfinite(x).all():
        row, column = np.argwhere(~np.isfinite(x))[0]
        raise ValueError(f"features must be finite, got {x[row, column]} at row {row}")
    return x
