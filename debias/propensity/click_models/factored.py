"""Click models whose click probability is a product or a rate: PBM, UBM, CTRs."""

from typing import Self

import numpy as np
from scipy import sparse

from debias.data import ClickLog
from debias.propensity.cells import Cells, Pairs, cells, distinct, pairs
from debias.propensity.click_models.base import (
    ClickModel,
    Parameter,
    check,
    logit_error,
)
from debias.propensity.pbm_maximum import Prior, pbm_step

PRIOR = (1.0, 2.0)
ROWS = 100_000  # pairs whose errors are computed at once


def smoothed(clicked: np.ndarray, shown: np.ndarray, prior: Prior) -> Parameter:
    """Smoothed rates. The prior holds pseudo-counts of clicks and impressions."""
    with np.errstate(invalid="ignore"):
        value = np.nan_to_num((clicked + prior[0]) / (shown + prior[1]), nan=0.5)
    return Parameter(value, logit_error((shown + prior[1]) * value * (1 - value)))


class _Rate(ClickModel):
    """Base of models whose clicks are independent."""

    def conditional(self, log: ClickLog) -> np.ndarray:
        return self.marginal(log)


class GlobalCTR(_Rate):
    """One click rate for all impressions: P = rate.

    >>> log = ClickLog([0, 1], [[4, 2], [5, -1]], [[0, 1], [0, 0]])
    >>> float(GlobalCTR.fit(log).value("rate"))  # (1 + 1) / (3 + 2)
    0.4
    """

    name = "global_ctr"
    of_pairs = ()

    @classmethod
    def fit(cls, log: ClickLog, prior: Prior = PRIOR) -> Self:
        check(1, prior)
        shown, clicked = np.array(log.mask.sum()), np.array(log.click.sum())
        return cls(pairs(log), {"rate": smoothed(clicked, shown, prior)})

    def marginal(self, log: ClickLog) -> np.ndarray:
        return log.mask * self.value("rate")


class RankCTR(_Rate):
    """A click rate for each rank: P = rate_k.

    >>> log = ClickLog([0, 1], [[4, 2], [5, -1]], [[0, 1], [0, 0]])
    >>> RankCTR.fit(log).value("rate").round(3).tolist()
    [0.25, 0.667]
    """

    name = "rank_ctr"
    of_pairs = ()

    @classmethod
    def fit(cls, log: ClickLog, prior: Prior = PRIOR) -> Self:
        check(1, prior)
        shown, clicked = log.mask.sum(axis=0), log.click.sum(axis=0)
        return cls(pairs(log), {"rate": smoothed(clicked, shown, prior)})

    def marginal(self, log: ClickLog) -> np.ndarray:
        return log.mask * at_ranks(self.value("rate"), log.list_size)


class DocumentCTR(_Rate):
    """A click rate for each (query, item) pair: P = rate_i; .5 for an unknown pair.

    >>> log = ClickLog([0, 0], [[4, 2], [4, -1]], [[0, 1], [0, 0]])
    >>> DocumentCTR.fit(log).marginal(log).round(3).tolist()
    [[0.25, 0.667], [0.25, 0.0]]
    """

    name = "document_ctr"
    of_pairs = ("rate",)

    @classmethod
    def fit(cls, log: ClickLog, prior: Prior = PRIOR) -> Self:
        check(1, prior)
        counted = cells(log)
        shown = counted.by_pair(counted.shown)
        clicked = counted.by_pair(counted.clicked)
        return cls(pairs(log), {"rate": smoothed(clicked, shown, prior)})

    def marginal(self, log: ClickLog) -> np.ndarray:
        return self.gather("rate", log) * log.mask


def at_ranks(value: np.ndarray, list_size: int) -> np.ndarray:
    """(list_size,) values by rank; .5 for ranks without training data."""
    more = max(0, list_size - len(value))
    return np.append(value, np.full(more, 0.5))[:list_size]


def product_errors(
    counted: Cells, gamma: np.ndarray, theta: np.ndarray, prior: Prior
) -> tuple[np.ndarray, np.ndarray]:
    """Standard errors of logit gamma (P,) and logit theta (T,) for p = theta gamma.

    The errors come from the inverse of the information. The information is the joint
    expected information plus the information of the prior. Only products theta gamma
    are observed. So the first theta is held fixed with error 0, and the other errors
    are relative to the first theta.
    """
    p = np.minimum(theta[counted.rank] * gamma[counted.pair], 1 - 1e-9)
    weight = counted.shown * p / (1 - p)  # information on the log scale
    with np.errstate(divide="ignore", invalid="ignore"):
        own = np.nan_to_num(prior[1] * gamma / (1 - gamma), posinf=1e300)
        top = np.nan_to_num(prior[1] * theta / (1 - theta), posinf=1e300)
    # Eliminating gamma from the joint information leaves that of theta.
    total = np.maximum(counted.by_pair(weight) + own, 1e-300)
    place = (counted.pair, counted.rank)
    size = (counted.pairs, counted.ranks)
    table = sparse.csr_array((weight, place), size)
    share = sparse.csr_array((weight / total[counted.pair], place), size)
    information = np.diag(counted.by_rank(weight) + top) - (table.T @ share).toarray()
    covariance = np.zeros_like(information)
    covariance[1:, 1:] = np.linalg.pinv(information[1:, 1:], hermitian=True)
    # The contribution of the errors of theta to those of gamma, by pair.
    from_theta = np.empty(counted.pairs)
    for at in range(0, counted.pairs, ROWS):
        block = share[at : at + ROWS].toarray()
        from_theta[at : at + ROWS] = np.einsum("pt,pt->p", block @ covariance, block)
    gamma_error = np.sqrt(1 / total + np.maximum(from_theta, 0))
    theta_error = np.sqrt(np.maximum(np.diag(covariance), 0))
    with np.errstate(divide="ignore", invalid="ignore"):
        return gamma_error / (1 - gamma), theta_error / (1 - theta)


def _parameters(
    counted: Cells, iterations: int, prior: Prior, with_errors: bool = True
) -> tuple[Parameter, Parameter]:
    gamma, theta = np.full(counted.pairs, 0.5), np.full(counted.ranks, 0.5)
    for _ in range(iterations):
        gamma, theta = pbm_step(counted, gamma, theta, prior)
    errors = np.full_like(gamma, np.nan), np.full_like(theta, np.nan)
    if with_errors:
        errors = product_errors(counted, gamma, theta, prior)
    return Parameter(gamma, errors[0]), Parameter(theta, errors[1])


class PositionBased(_Rate):
    """Position-based model (PBM): P(click) = theta_k gamma_i.

    EM uses `debias.propensity.pbm_maximum.pbm_step`. EM starts at .5 and updates all
    parameters at once. EM reads only counts by (pair, rank), so repeated sessions take
    no extra time.

    >>> log = ClickLog([0, 0], [[4, 2], [2, 4]], [[0, 1], [1, 0]])
    >>> model = PositionBased.fit(log, iterations=1)  # gamma_2 = (2 + 1) / (2 + 2)
    >>> model.value("attraction").round(4).tolist()
    [0.75, 0.4167]
    """

    name = "pbm"

    @classmethod
    def fit(cls, log: ClickLog, iterations: int = 40, prior: Prior = PRIOR) -> Self:
        check(iterations, prior)
        gamma, theta = _parameters(cells(log), iterations, prior)
        return cls(pairs(log), {"attraction": gamma, "examination": theta})

    def marginal(self, log: ClickLog) -> np.ndarray:
        theta = at_ranks(self.value("examination"), log.list_size)
        return self.gather("attraction", log) * theta * log.mask


def last_click(log: ClickLog) -> np.ndarray:
    """(S, L) int64 rank, from 1, of the last click above each cell, or 0.

    >>> last_click(ClickLog([0], [[1, 2, 3, 4]], [[0, 1, 0, 1]])).tolist()
    [[0, 0, 2, 2]]
    """
    rank = np.arange(1, log.list_size + 1)
    last = np.zeros((log.sessions, log.list_size), dtype=np.int64)
    np.maximum.accumulate((rank * log.click)[:, :-1], axis=1, out=last[:, 1:])
    return last


def ubm_cells(log: ClickLog, known: Pairs) -> Cells:
    """Counts by (pair, rank, last click above).

    The field `rank` of the result holds the index k (k + 1) / 2 + k' of a combination.
    A combination is a rank k, from 0, and the result k' <= k of `last_click`. There are
    L (L + 1) / 2 combinations.
    """
    size = log.list_size
    combinations = size * (size + 1) // 2
    rank = np.arange(size)
    key = known.index(log) * combinations
    key += rank * (rank + 1) // 2 + last_click(log)
    mask = log.mask
    value, number = distinct(key[mask], len(known) * combinations)
    return Cells(
        value // combinations,
        value % combinations,
        np.bincount(number, minlength=len(value)).astype(float),
        np.bincount(number[log.click[mask]], minlength=len(value)).astype(float),
        len(known),
        combinations,
    )


class UserBrowsing(ClickModel):
    """User browsing model (UBM): P(click at k | clicks above) = theta_{k,k'} gamma_i.

    Here k' is the rank of the last click above rank k, or 0 without a click. Source:
    Dupret and Piwowarski, A User Browsing Model to Predict Search Engine Click Data
    from Past Observations, SIGIR 2008. EM is the same as for the position-based model,
    with (k, k') instead of k.

    The parameter "examination" has shape (L, L). The entry [k - 1, k'] of "examination"
    is theta_{k,k'}, or nan if k' >= k.

    >>> log = ClickLog([0, 0], [[4, 2], [2, 4]], [[0, 1], [1, 0]])
    >>> UserBrowsing.fit(log).conditional(log).shape
    (2, 2)
    """

    name = "ubm"

    @classmethod
    def fit(
        cls,
        log: ClickLog,
        iterations: int = 40,
        prior: Prior = PRIOR,
        with_errors: bool = True,
    ) -> Self:
        """Estimates the model. Standard errors take time of order (L (L + 1) / 2)^3."""
        check(iterations, prior)
        known = pairs(log)
        counted = ubm_cells(log, known)
        gamma, theta = _parameters(counted, iterations, prior, with_errors)
        lower = np.tril_indices(log.list_size)
        square = (log.list_size, log.list_size)
        value, error = np.full(square, np.nan), np.full(square, np.nan)
        value[lower], error[lower] = theta.value, theta.error
        examination = Parameter(value, error)
        return cls(known, {"attraction": gamma, "examination": examination})

    def _theta(self, list_size: int) -> np.ndarray:
        known = self.value("examination")
        theta = np.full((max(list_size, len(known)),) * 2, 0.5)
        theta[: len(known), : len(known)] = known
        return theta

    def conditional(self, log: ClickLog) -> np.ndarray:
        theta = self._theta(log.list_size)
        seen = theta[np.arange(log.list_size), last_click(log)]
        return self.gather("attraction", log) * seen * log.mask

    def marginal(self, log: ClickLog) -> np.ndarray:
        gamma = self.gather("attraction", log) * log.mask
        theta = self._theta(log.list_size)
        click = np.empty_like(gamma)
        # chance[:, k']: the last click so far was at k'
        chance = np.zeros((log.sessions, log.list_size + 1))
        chance[:, 0] = 1.0
        for k in range(log.list_size):
            each = chance[:, : k + 1] * theta[k, : k + 1] * gamma[:, k, None]
            chance[:, : k + 1] -= each
            click[:, k] = chance[:, k + 1] = each.sum(axis=1)
        return click
