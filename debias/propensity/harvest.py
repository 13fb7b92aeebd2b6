"""Intervention harvesting: examination from the same item at different ranks.

A (query, item) pair has the same attraction at each rank. So if a pair is shown at
ranks k and l, the ratio of its click rates estimates the ratio of examination. Source:
Agarwal et al., Estimating Position Bias without Intrusive Interventions, WSDM 2019.

For two ranks k and l, the pairs shown at least `minimum` times at both ranks are
pooled. A pair has the weight min(n_k, n_l), where n_k is its number of impressions at
rank k. The pooled clicks c_k are the sum over pairs of weight times click rate at rank
k. The ratio of examination at l to examination at k is estimated by c_l / c_k.
"""

from collections.abc import Iterable

import numpy as np

from debias.propensity.cells import Cells
from debias.propensity.examination import Fit, relative
from debias.propensity.pbm_maximum import pbm_maximum, profile_slopes

MINIMUM = 5


def ctr(counted: Cells) -> Fit:
    """Click rate at each rank relative to rank 1; confounded with relevance."""
    shown, clicked = counted.by_rank(counted.shown), counted.by_rank(counted.clicked)
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = clicked / shown
        log_rate = np.log(np.where(clicked > 0, rate, np.nan))
        slope = np.where(clicked > 0, 1 / clicked, 0.0)
    own = np.zeros((counted.ranks, len(counted.rank)))
    own[counted.rank, np.arange(len(counted.rank))] = slope[counted.rank]
    expected = rate[counted.rank]
    return Fit(
        relative(log_rate), relative(own), expected, np.ones_like(expected), shown
    )


def pivot(counted: Cells, minimum: int = MINIMUM) -> Fit:
    """Compares each rank with rank 1 by pooled clicks of pairs shown at both ranks."""
    return _links(counted, [(0, k) for k in range(1, counted.ranks)], minimum)


def adjacent_chain(counted: Cells, minimum: int = MINIMUM) -> Fit:
    """Compares neighbouring ranks by pooled clicks, and multiplies their ratios."""
    return _links(counted, [(k, k + 1) for k in range(counted.ranks - 1)], minimum)


def all_pairs(counted: Cells, minimum: int = MINIMUM) -> Fit:
    """Compares all pairs of ranks jointly by maximum likelihood.

    For every two ranks k and l, the (query, item) pairs shown at both ranks are pooled;
    see the module `debias.propensity.harvest`. Each pool has the total weight w_kl and
    an unknown attraction r_kl. The estimate maximises the sum of c_k log(theta_k r_kl)
    + (w_kl - c_k) log(1 - theta_k r_kl) over both ranks of all pools. The sum is the
    log-likelihood of a position-based model whose items are the pools.
    """
    two = [(k, j) for k in range(counted.ranks) for j in range(k + 1, counted.ranks)]
    table = _Table(counted, minimum)
    pooled = [table.pool(k, j) for k, j in two]
    keep = [p for p in pooled if p is not None]
    if not keep:
        return _links(counted, (), minimum)  # nothing can be compared
    owner = [link for link, p in zip(two, pooled, strict=True) if p is not None]
    names = np.repeat(np.arange(len(keep)), 2)
    ranks = np.array(owner, dtype=np.int64).reshape(-1)
    total = np.repeat([p.weight.sum() for p in keep], 2)
    clicks = np.array([side for p in keep for side in (p.clicks)]).reshape(-1)
    small = Cells(names, ranks, total, clicks, len(keep), counted.ranks)
    log_theta, attraction = pbm_maximum(small)
    slopes = profile_slopes(small, log_theta, attraction)
    influence = np.zeros((counted.ranks, len(counted.rank)))
    for at, p in enumerate(keep):
        for side in (0, 1):
            cell = p.cells[side]
            move = slopes[:, 2 * at + side, None] * (p.weight / counted.shown[cell])
            influence[:, cell] += move
    used = np.unique(np.concatenate([np.concatenate(p.cells) for p in keep]))
    return _fit(counted, log_theta, influence, used)


class _Pool:
    """The pairs shown at two ranks, with their weights, cells and weighted clicks."""

    def __init__(self, counted: Cells, one: np.ndarray, other: np.ndarray) -> None:
        self.weight = np.minimum(counted.shown[one], counted.shown[other])
        self.cells = (one, other)
        self.clicks = tuple(
            float((self.weight * counted.clicked[c] / counted.shown[c]).sum())
            for c in self.cells
        )


class _Table:
    """Finds the pairs that two ranks share."""

    def __init__(self, counted: Cells, minimum: int) -> None:
        if minimum < 1:
            raise ValueError(f"minimum must be at least 1, got {minimum}")
        self.counted = counted
        enough = counted.shown >= minimum
        self.at = [
            np.flatnonzero(enough & (counted.rank == k)) for k in range(counted.ranks)
        ]
        self.place = np.full(counted.pairs, -1)

    def pool(self, k: int, j: int) -> _Pool | None:
        """Pools the pairs shown at ranks k and j; None if a rank has no clicks."""
        pair = self.counted.pair
        self.place[pair[self.at[k]]] = self.at[k]
        one = self.place[pair[self.at[j]]]
        self.place[pair[self.at[k]]] = -1
        found = _Pool(self.counted, one[one >= 0], self.at[j][one >= 0])
        return found if min(found.clicks) > 0 else None


def _links(counted: Cells, links: Iterable[tuple[int, int]], minimum: int) -> Fit:
    """Adds up log ratios along links; each link leads to a new rank."""
    table = _Table(counted, minimum)
    log_theta = np.full(counted.ranks, np.nan)
    log_theta[0] = 0.0
    influence = np.zeros((counted.ranks, len(counted.rank)))
    used = []
    for k, j in links:
        p = table.pool(k, j)
        if p is None:
            continue
        (one, other), (c_k, c_j) = p.cells, p.clicks
        log_theta[j] = log_theta[k] + np.log(c_j / c_k)
        influence[j] = influence[k]
        influence[j, other] += p.weight / counted.shown[other] / c_j
        influence[j, one] -= p.weight / counted.shown[one] / c_k
        used += [one, other]
    cells = np.unique(np.concatenate(used)) if used else np.empty(0, dtype=int)
    return _fit(counted, log_theta, influence, cells)


def _fit(
    counted: Cells, log_theta: np.ndarray, influence: np.ndarray, used: np.ndarray
) -> Fit:
    """Builds the fit; the expected clicks of a cell are its own click rate."""
    shown = np.zeros(len(counted.rank))
    shown[used] = counted.shown[used]
    inflation = counted.shown / np.maximum(counted.shown - 1, 1)
    expected = counted.clicked / np.maximum(counted.shown, 1e-300)
    influence[np.isnan(log_theta)] = 0.0
    return Fit(log_theta, influence, expected, inflation, counted.by_rank(shown))
