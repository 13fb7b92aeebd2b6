"""The position-based model on cell counts: EM, maximum likelihood, information.

P(click at rank k on pair i) = theta_k gamma_i, with examination theta_k and attraction
gamma_i. Sources: Richardson et al., Predicting Clicks, WWW 2007; Craswell et al., An
Experimental Comparison of Click Position-Bias Models, WSDM 2008.
"""

from collections.abc import Callable

import numpy as np
from scipy import sparse

from debias.propensity.cells import Cells, components, products

TINY = 1e-12
NEWTON, HALVINGS = 50, 20
SETTLED = 1e-9  # largest move of a parameter in the last Newton step
Prior = tuple[float, float]


def pbm_step(
    counted: Cells, attraction: np.ndarray, examination: np.ndarray, prior: Prior
) -> tuple[np.ndarray, np.ndarray]:
    """One EM pass, which updates attraction and examination at once.

    Given an impression without a click, the item is attractive with probability gamma
    (1 - theta) / (1 - gamma theta), and examined with probability theta (1 - gamma) /
    (1 - gamma theta). Each parameter becomes (expected count + prior[0]) / (impressions
    + prior[1]).

    Args:
        counted: Counts of M cells, for P pairs and K ranks.
        attraction: (P,) gamma.
        examination: (K,) theta.
        prior: Pseudo-counts of successes and of trials.
    """
    gamma, theta = attraction[counted.pair], examination[counted.rank]
    both = gamma * theta
    rest = (counted.shown - counted.clicked) / np.maximum(1 - both, TINY)
    liked = counted.by_pair(counted.clicked + rest * (gamma - both)) + prior[0]
    seen = counted.by_rank(counted.clicked + rest * (theta - both)) + prior[0]
    with np.errstate(invalid="ignore"):
        return (
            np.nan_to_num(liked / (counted.by_pair(counted.shown) + prior[1]), nan=0.5),
            np.nan_to_num(seen / (counted.by_rank(counted.shown) + prior[1]), nan=0.5),
        )


def accelerated(
    step: Callable[[np.ndarray], np.ndarray],
    start: np.ndarray,
    tolerance: float,
    iterations: int,
    low: float = 0.0,
    high: float = 1.0,
    watch: int | None = None,
) -> tuple[np.ndarray, bool]:
    """Fixed point of EM by squared extrapolation (SQUAREM).

    Source: Varadhan and Roland, Simple and Globally Convergent Methods for Accelerating
    the Convergence of Any EM Algorithm, 2008. Two passes from a point x change it first
    by r and then by r + v. The next point is x - 2 a r + a^2 v with a = -|r| / |v|,
    followed by another pass.

    Args:
        step: One pass on a flat vector of parameters.
        start: Initial parameters.
        tolerance: EM stops when a pass changes no parameter by more than this.
        iterations: Largest number of passes.
        low, high: Limits of the parameters.
        watch: Number of leading parameters that must converge; None means all.

    Returns:
        The last point, and whether EM converged within `iterations` passes.

    >>> half_way = lambda x: 0.5 * (x + 0.3)
    >>> point, reached = accelerated(half_way, np.array([0.9]), 1e-12, 30)
    >>> round(float(point[0]), 9), reached
    (0.3, True)
    """
    x = start
    for _ in range(max(1, iterations // 3)):
        one = step(x)
        first = one - x
        if np.abs(first[:watch]).max() <= tolerance:
            return one, True
        two = step(one)
        bend = two - one - first
        size = np.linalg.norm(bend)
        if size < TINY:
            x = two
            continue
        a = min(-1.0, -float(np.linalg.norm(first) / size))
        # EM never leaves a bound, so a step goes at most nine tenths of the way.
        floor, roof = two - 0.9 * (two - low), two + 0.9 * (high - two)
        x = step(np.clip(x - 2 * a * first + a * a * bend, floor, roof))
    return x, False


def pbm_maximum(
    counted: Cells, prior: Prior = (0.0, 0.0)
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the limit of EM: (K,) log theta relative to rank 1, and (P,) gamma.

    Only products theta gamma are identified, so theta_1 = 1 fixes the scale, and gamma
    is multiplied by the fitted theta_1. A rank gets nan if it has no click, or if no
    chain of shared pairs links it to rank 1. A rank without a chain to rank 1 has no
    common scale with rank 1. Without a prior, Newton's method runs first, because it
    needs a hundredth of the passes that EM needs. EM then checks convergence.

    >>> cell = Cells(np.array([0, 0]), np.array([0, 1]), np.array([100.0, 100.0]),
    ...     np.array([40.0, 20.0]), 1, 2)
    >>> np.exp(pbm_maximum(cell)[0]).round(6).tolist()
    [1.0, 0.5]
    """
    gamma, theta = np.full(counted.pairs, 0.5), np.full(counted.ranks, 0.5)
    if prior == (0.0, 0.0):
        gamma, theta = _scored(counted, gamma, theta)

    def step(x: np.ndarray) -> np.ndarray:
        renewed = pbm_step(counted, x[: counted.pairs], x[counted.pairs :], prior)
        return np.concatenate(renewed)

    x, _ = accelerated(step, np.concatenate([gamma, theta]), 1e-8, 3000)
    return in_scale(counted, x[: counted.pairs], x[counted.pairs :])


def _scored(
    counted: Cells, gamma: np.ndarray, theta: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Maximises over gamma and theta by Newton's method on log theta.

    The likelihood never decreases, and is concave in log gamma and log theta, which are
    at most 0. At each theta, every gamma is at its own maximum. Gammas below 1 are
    eliminated, which leaves K equations. A theta at 1 that would grow stays at 1.
    """
    clicked, asked = counted.by_pair(counted.clicked), counted.by_rank(counted.clicked)
    gamma, theta = np.where(clicked > 0, gamma, 0.0), np.where(asked > 0, theta, 0.0)
    some = (clicked[counted.pair] > 0) & (asked[counted.rank] > 0)
    pair, counted = np.unique(counted.pair[some]), counted.only(some)
    own, value = _best_attraction(counted, gamma[pair], theta)
    for _ in range(NEWTON):
        q = own[counted.pair] * theta[counted.rank]
        odds = (counted.shown - counted.clicked) / np.maximum(1 - q, TINY) * q
        slope = counted.by_rank(counted.clicked - odds)
        free = (theta > 0) & ((theta < 1) | (slope < 0))
        bend = odds / np.maximum(1 - q, TINY)
        part = bend * (own < 1)[counted.pair]
        part /= np.sqrt(np.maximum(counted.by_pair(part), TINY))[counted.pair]
        curve = np.diag(counted.by_rank(bend)) - products(counted, part)
        inner = np.ix_(free, free)
        move = np.zeros(counted.ranks)
        move[free] = np.linalg.lstsq(curve[inner], slope[free], rcond=1e-12)[0]
        move *= min(1.0, 2.0 / max(np.abs(move).max(), TINY))
        for _ in range(HALVINGS):
            tried = np.minimum(theta * np.exp(move), 1.0)
            found = _best_attraction(counted, own, tried)
            if found[1] >= value * (1 + TINY):  # the value is negative
                break
            move *= 0.5
        else:
            break
        change = np.abs(tried - theta).max()
        theta, (own, value) = tried, found
        if change < SETTLED:
            break
    gamma[pair] = own
    return gamma, theta


def _best_attraction(
    counted: Cells, gamma: np.ndarray, theta: np.ndarray
) -> tuple[np.ndarray, float]:
    """(P,) the most likely gamma in (0, 1] of each pair, and the likelihood.

    Every pair and rank has a click. With m impressions without a click, the slope in
    log gamma is c - sum of m q / (1 - q), where q = gamma theta. The slope decreases in
    gamma. A step of Newton's method goes at most nine tenths of the way to 1. If the
    slope is not negative at 1, the result is 1.
    """
    of_rank, clicked = theta[counted.rank], counted.by_pair(counted.clicked)
    rest = counted.shown - counted.clicked
    with np.errstate(divide="ignore", invalid="ignore"):
        odds = np.where(rest > 0, rest * of_rank / (1 - of_rank), 0.0)
    edge = counted.by_pair(odds) <= clicked
    gamma = np.where(edge, 1.0, np.minimum(gamma, 1 - 1e-3))
    for _ in range(NEWTON):
        q = gamma[counted.pair] * of_rank
        odds = rest * q / np.maximum(1 - q, TINY)
        slope = clicked - counted.by_pair(odds)
        bend = counted.by_pair(odds / np.maximum(1 - q, TINY))
        move = np.exp(np.clip(slope / np.maximum(bend, TINY), -2.0, 2.0))
        moved = np.minimum(gamma * move, gamma + 0.9 * (1 - gamma))
        moved[edge] = 1.0
        change = np.abs(moved - gamma).max()
        gamma = moved
        if change < SETTLED:
            break
    q = np.maximum(gamma[counted.pair] * of_rank, TINY)
    skipped = rest @ np.log1p(-np.minimum(q, 1 - TINY))
    return gamma, float(counted.clicked @ np.log(q) + skipped)


def in_scale(
    counted: Cells, attraction: np.ndarray, examination: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Rescales to theta_1 = 1; log theta is nan for ranks without a link to rank 1."""
    tie = components(counted)
    known = (tie == tie[0]) & (counted.by_rank(counted.clicked) > 0)
    with np.errstate(divide="ignore"):
        log_theta = np.log(examination) - np.log(examination[0])
    return np.where(known, log_theta, np.nan), attraction * examination[0]


def profile_slopes(
    counted: Cells, log_theta: np.ndarray, attraction: np.ndarray
) -> np.ndarray:
    """(K, M) change of the estimated log theta per unexpected click in each cell.

    With p = theta gamma and weight v = shown p / (1 - p), the expected information of
    (log theta, log gamma) is [[D, V'], [V, diag(sum of v)]]. Eliminating gamma leaves
    the profile information H = D - V' diag^-1 V. An unexpected click has the score
    (e_rank - share of each rank in the pair's v) / (1 - p), where e_rank is a unit
    vector. The click changes the estimate by H^-1 times this score.
    """
    kept = ~np.isnan(log_theta)
    theta = np.exp(np.where(kept, log_theta, -np.inf))
    p = np.minimum(theta[counted.rank] * attraction[counted.pair], 1 - 1e-6)
    weight = counted.shown * p / (1 - p)
    total = np.maximum(counted.by_pair(weight), TINY)
    share = sparse.csr_array(
        (weight / total[counted.pair], (counted.pair, counted.rank)),
        (counted.pairs, counted.ranks),
    )
    both = products(counted, weight / np.sqrt(total)[counted.pair])
    information = np.diag(counted.by_rank(weight)) - both
    free = kept.copy()
    free[0] = False  # theta_1 = 1 sets the scale
    pull = -share[counted.pair].toarray().T
    pull[counted.rank, np.arange(len(counted.rank))] += 1.0
    slopes = np.zeros((counted.ranks, len(counted.rank)))
    inverse = np.linalg.pinv(information[np.ix_(free, free)], hermitian=True)
    slopes[free] = inverse @ pull[free] / (1 - p)
    return slopes
