"""Plans of randomisation: which ranks to exchange to identify examination.

If the items of ranks a and b are exchanged in some sessions, the log shows the same
items at both ranks. The clicks on these items then compare the ranks. Let c_a and c_b
be the clicks per session at ranks a and b, and r = theta_b / theta_a. The information
of one changed session about log r, in clicks, is

    i = c_a r + c_b / r >= 2 sqrt(c_a c_b).

A changed session costs c_a + c_b - i clicks, which is at most (sqrt c_a - sqrt c_b)^2.
These bounds hold for any examination, so a plan needs only click rates, which any log
has.
"""

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.stats import norm

from debias.data import ClickLog
from debias.propensity.cells import Cells, cells
from debias.propensity.choice import WEAK, propensities
from debias.propensity.places import Propensities

SURE = 0.9  # probability that every rank reaches the promised error
MINIMUM = 20  # sessions of a query in the log, below which it has no exchanges
PRICE = 0.02  # least cost of a changed session, as a share of its clicks
NORM = 16  # norm that approximates the maximum over ranks
ROUNDS = 20  # iterations of sessions and their worth, which depend on each other
REACHED = 1e-9


@dataclass(frozen=True, eq=False)
class Exchange:
    """Two ranks whose items are exchanged.

    Attributes:
        ranks: The two ranks, counted from 1. The rank nearer to the top is first.
        share: Share of the experiment's sessions that get this exchange.
        sessions: Number of sessions with this exchange.
        cost: Expected lost clicks; an upper bound if examination is unknown.
    """

    ranks: tuple[int, int]
    share: float
    sessions: int
    cost: float


@dataclass(frozen=True, eq=False)
class Plan:
    """An experiment that identifies examination at K ranks.

    Attributes:
        exchanges: Exchanges of ranks; empty if the log identifies every rank well
            enough.
        sessions: Length of the experiment: number of sessions of the participating
            queries, including unchanged sessions.
        queries: (Q,) indices of the participating queries.
        traffic: Share of the log's sessions that belong to the participating queries.
        standard_error: (K,) expected standard error of log examination relative to rank
            1.
        promised: Requested standard error.
        cost: Expected total of lost clicks; an upper bound if examination is unknown.
        cost_share: `cost` as a share of the clicks of the experiment.
        known: Whether the plan uses known or estimated examination instead of bounds.
        why: Explanation in words.
    """

    exchanges: tuple[Exchange, ...]
    sessions: int
    queries: np.ndarray
    traffic: float
    standard_error: np.ndarray
    promised: float
    cost: float
    cost_share: float
    known: bool
    why: str

    def record(self) -> dict[str, Any]:
        """The plan as JSON values, for the team that serves the lists."""
        return {
            "promised_standard_error": self.promised,
            "sessions": self.sessions,
            "share_of_traffic": self.traffic,
            "queries": len(self.queries),
            "exchanges": [
                {
                    "ranks": list(each.ranks),
                    "share_of_sessions": each.share,
                    "sessions": each.sessions,
                    "clicks_lost": each.cost,
                }
                for each in self.exchanges
            ],
            "clicks_lost": self.cost,
            "share_of_clicks_lost": self.cost_share,
            "expected_standard_error": self.standard_error.tolist(),
            "why": self.why,
            "how": HOW,
        }


BOUNDS = (
    "The log does not identify examination at every rank. So errors and lost clicks "
    "are bounds, which hold for any examination."
)
COMPUTED = "Errors and lost clicks are computed from the examination in this log."
ENOUGH = (
    "The log already identifies every rank with an error of {:.3f} or less: nothing "
    "needs to be randomised."
)
HOW = (
    "For each session of the listed queries, compute a number u in [0, 1) by a hash of "
    "the session. Find the first exchange whose cumulative share_of_sessions is above "
    "u. Swap the items at its two ranks, and log the items as shown. If there is no "
    "such exchange, or if the list is too short, do not change the list. Do not choose "
    "by user or query. Then run: debias propensities LOG"
)


def plan(
    log: ClickLog,
    se: float = 0.1,
    *,
    share: float = 0.2,
    minimum: int = MINIMUM,
    known: Propensities | None = None,
) -> Plan:
    """Finds the cheapest exchanges that give every rank a requested standard error.

    The ranks are treated as an electrical network, in which the conductance of an
    exchange is its information. The variance of log theta_k - log theta_1 is the
    resistance between ranks k and 1. One rank is the hub: rank 1 is exchanged with all
    ranks down to the hub, and the hub with all ranks below it. The worst rank must have
    the requested standard error. Under this condition, the plan chooses the hub and the
    shares of the exchanges that lose the fewest clicks. A changed session counts as a
    loss of at least 2% of its clicks. The number of sessions is chosen so that all
    ranks reach the standard error with a probability of 90%, although clicks vary at
    random.

    Args:
        log: A log of the current policy. The log needs no randomisation.
        se: Requested standard error of log examination, which is roughly the relative
            error of an inverse propensity weight.
        share: Largest share of changed sessions. A smaller share makes the experiment
            longer.
        minimum: Smallest number of sessions in the log with which a query participates.
            An item that is shown only once cannot be compared with itself.
        known: Known examination, with one row per rank. None estimates examination from
            the log. If the log does not identify every rank, the plan uses bounds that
            hold for any examination.

    Raises:
        ValueError: An argument is out of range, no query has enough sessions, a rank
            has no click, or `known` lacks a rank.

    >>> log = ClickLog([0] * 100, [[1, 2]] * 100, [[1, 0], [0, 0], [1, 1], [0, 0]] * 25)
    >>> found = plan(log)
    >>> [each.ranks for each in found.exchanges], bool(found.standard_error[1] <= 0.1)
    ([(1, 2)], True)
    """
    chosen = _taking_part(log, se, share, minimum)
    some = log.take(np.isin(log.query, chosen))
    counted = cells(some)
    rate = counted.by_rank(counted.clicked) / some.sessions
    if not (rate > 0).all():
        raise ValueError(
            f"rank {int(np.argmin(rate > 0)) + 1} has no click: log longer, or keep "
            "fewer ranks (--list-size)"
        )
    if known is None:
        known = propensities(log)
    theta, error = _usable(known, log.list_size)
    traffic, why = len(some) / len(log), BOUNDS
    if theta is not None:
        why = COMPUTED
        # Given propensities have no error.
        if error[-1] > 0 and (np.nan_to_num(error) <= se).all():
            why = ENOUGH.format(error.max())
            return Plan((), 0, chosen, traffic, error, se, 0.0, 0.0, True, why)
    pairs = np.array(list(combinations(range(log.list_size), 2)))
    worth, loss = _worth(rate, pairs, theta)
    wanted = se / (1 + _margin(se, log.list_size))
    shares = _cheapest(worth, np.maximum(loss, PRICE * rate.sum()), pairs)
    shares, sessions, error = _sized(
        shares, worth, pairs, wanted, share, some.sessions, counted
    )
    lost = shares * loss * sessions
    exchanges = tuple(
        Exchange((int(a) + 1, int(b) + 1), float(x), int(np.ceil(x * sessions)), cost)
        for (a, b), x, cost in zip(pairs, shares, lost.tolist(), strict=True)
        if x > 0
    )
    cost, cost_share = float(lost.sum()), float(lost.sum() / (rate.sum() * sessions))
    known_by_log = theta is not None
    return Plan(
        *(exchanges, sessions, chosen, traffic, error, se),
        *(cost, cost_share, known_by_log, why),
    )


def _taking_part(log: ClickLog, se: float, share: float, minimum: int) -> np.ndarray:
    """Checks the arguments of `plan`; returns the queries with enough sessions."""
    if not 0 < se < 1:
        raise ValueError(f"se must be in (0, 1), got {se}")
    if not 0 < share <= 0.5:
        raise ValueError(f"share must be in (0, .5], got {share}")
    if log.list_size < 2:
        raise ValueError("the lists have one rank: there is nothing to exchange")
    count = np.bincount(log.query)
    chosen = np.flatnonzero(count >= minimum)
    if not chosen.size:
        raise ValueError(
            f"no query has {minimum} sessions, the maximum is {count.max()}: log "
            "longer, or lower the minimum"
        )
    return chosen


def _usable(known: Propensities, ranks: int) -> tuple[np.ndarray | None, np.ndarray]:
    """(K,) examination, or None if a rank has no estimate or a weak one; (K,) errors.

    The errors are those of log examination.
    """
    theta, error = (value[:ranks] for value in known.by_rank())
    if len(theta) < ranks:
        raise ValueError(
            f"propensities end at rank {len(theta)}, but the log has {ranks} ranks: "
            "estimate them from lists of this length"
        )
    error = error / theta
    usable = np.isfinite(theta).all() and (np.nan_to_num(error) <= WEAK).all()
    return (theta if usable else None), error


def _worth(
    rate: np.ndarray, pairs: np.ndarray, theta: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Information and lost clicks (E,) per session of each exchange."""
    a, b = rate[pairs].T
    if theta is None:
        worth = 2 * np.sqrt(a * b)
    else:
        ratio = theta[pairs[:, 1]] / theta[pairs[:, 0]]
        worth = a * ratio + b / ratio
    return worth, np.maximum(a + b - worth, 0.0)


def _margin(se: float, ranks: int) -> float:
    """The relative margin by which to aim below the promised error.

    The error of log theta from N = 1 / se^2 clicks itself varies by se / (2 sqrt N).
    With this margin, all ranks keep the promise with probability `SURE`.
    """
    return float(norm.ppf(SURE ** (1 / (ranks - 1))) * se / 2)


def _inverse(conductance: np.ndarray, pairs: np.ndarray, ranks: int) -> np.ndarray:
    """(K, K) covariance of log theta relative to rank 1, given (E,) information."""
    laplacian = np.zeros((ranks, ranks))
    a, b = pairs.T
    np.add.at(laplacian, (a, a), conductance)
    np.add.at(laplacian, (b, b), conductance)
    np.add.at(laplacian, (a, b), -conductance)
    np.add.at(laplacian, (b, a), -conductance)
    found = np.zeros((ranks, ranks))
    found[1:, 1:] = np.linalg.inv(laplacian[1:, 1:])
    return found


def _cheapest(worth: np.ndarray, loss: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """(E,) shares, with sum 1, that lose the fewest clicks at a given worst variance.

    Only plans with one hub are compared: rank 1 is exchanged with the ranks down to the
    hub, and the hub with the ranks below it. No plan that ties all ranks has fewer
    exchanges. On usual curves, the best plan with one hub costs 1.1 to 1.6 times as
    much as the best of all plans; exchanges of neighbours cost 6 to 10 times as much.
    """
    best = (np.inf, np.zeros(len(pairs)))
    for hub in range(int(pairs.max())):
        upper, lower = pairs.T
        kept = (upper == 0) & (lower <= hub) | (upper == hub) & (lower > hub)
        x, price = _optimal(worth[kept], loss[kept], pairs[kept], int(pairs.max()) + 1)
        if price < best[0]:
            found = np.zeros(len(pairs))
            found[kept] = x
            best = (price, found)
    return best[1]


def _optimal(
    worth: np.ndarray, loss: np.ndarray, pairs: np.ndarray, ranks: int
) -> tuple[np.ndarray, float]:
    """(E,) optimal shares of these exchanges, with sum 1, and the log of their price.

    The price loss(x) max_k V_k(x) does not depend on the scale of x. A norm of 16
    smooths the maximum. d V_k / d g_e = -(G_ka - G_kb)^2, where G is the covariance.
    """

    def price(log_x: np.ndarray) -> tuple[float, np.ndarray]:
        x = np.exp(log_x)
        covariance = _inverse(x * worth, pairs, ranks)
        variance = covariance.diagonal()[1:]
        power = np.power(variance / variance.max(), NORM)
        value = np.log(x @ loss) + np.log(variance.max()) + np.log(power.sum()) / NORM
        apart = np.square(covariance[1:, pairs[:, 0]] - covariance[1:, pairs[:, 1]])
        slope = -(power / variance / power.sum()) @ apart * worth * x
        return float(value), slope + loss * x / (x @ loss)

    start, bounds = np.zeros(len(pairs)), [(-9.0, 9.0)] * len(pairs)
    best = minimize(price, start, jac=True, method="L-BFGS-B", bounds=bounds)
    x = np.exp(best.x)
    return x / x.sum(), float(best.fun)


def _sized(
    shares: np.ndarray,
    worth: np.ndarray,
    pairs: np.ndarray,
    wanted: float,
    share: float,
    logged: int,
    counted: Cells,
) -> tuple[np.ndarray, int, np.ndarray]:
    """Shares of all sessions, the number of sessions, and the resulting error (K,).

    A click of an exchanged item is compared with the same item at its usual rank. With
    n usual and m exchanged impressions, such a click counts as n / (n + m) of a click.
    """
    part = shares * share
    sessions = 1.0
    ranks = counted.ranks
    frequency = counted.shown / logged  # impressions per session, by pair and rank
    weight = counted.clicked
    for _ in range(ROUNDS):
        moved = np.zeros(ranks)
        np.add.at(moved, pairs.ravel(), np.repeat(part, 2))
        stay = frequency * sessions * (1 - moved[counted.rank])
        go = np.maximum(frequency * sessions * moved[counted.rank], 1.0)
        kept = counted.by_rank(weight * stay / (stay + go)) / counted.by_rank(weight)
        factor = np.minimum(*kept[pairs].T)
        informed = part * worth * np.maximum(factor, REACHED)
        used = part > 0
        variance = _inverse(informed[used], pairs[used], ranks).diagonal()
        needed = variance.max() / wanted**2
        if abs(needed / sessions - 1) < 1e-6:
            break
        sessions = needed
    return part, int(np.ceil(sessions)), np.sqrt(variance / sessions)
