"""Calibration of predicted click probabilities by rank."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy.stats import t as student

from debias.data import ClickLog
from debias.diagnosis.finding import POWER, Finding
from debias.diagnosis.identifiability import words
from debias.diagnosis.mixtures import chances, fit_one, happened_cells, tally
from debias.propensity.cells import Cells, cells
from debias.propensity.pbm_maximum import TINY

OFTEN = 30  # impressions of a pair from which its attraction is known
FINE = 0.01  # one click per hundred impressions is too small an error to matter
# An error as a share of the click rate at its rank. Published examination falls by at
# least a tenth, mostly by a quarter or more, from one rank to the next. So predictions
# that are off by a quarter confuse a rank with the next.
MATTERS = 0.25
COVERED = 0.5  # share of the impressions that a verdict on the log needs
CLICKS = 10  # clicks of a rank in the fitted half, below which chance is unknown
DRAWS = 30  # simulated logs, which show the errors that chance explains


@dataclass(frozen=True, eq=False)
class Calibration(Finding):
    """Expected calibration error (ECE) at each of K ranks, on held-out sessions.

    Attributes:
        position: (K,) int64 rank from 1.
        error: (K,) float64 ECE: the mean of |click rate - mean prediction| over the
            bins of a rank, weighted by impressions. NaN at ranks without impressions.
        lower, upper: (K,) float64 confidence limits of the ECE, at least 0. The limits
            are corrected for chance, which makes the ECE too large.
        chance: (K,) float64 upper bounds on the ECE of a perfectly calibrated model.
            With probability `level`, its ECE is below the bound at all ranks. NaN at
            ranks with fewer than 10 clicks in the fitted half.
        detectable: (K,) float64 smallest miscalibration, equal in all bins, that raises
            the ECE above `chance` with a probability of 80%.
        rate: (K,) float64 click rate of the impressions in the bins.
        predicted, observed: (K, B) float64 mean prediction and click rate of each bin;
            nan for empty bins.
        impressions: (K, B) int64 number of impressions in each bin.
        covered: Share of the held-out impressions that are used: their (query, item)
            pair has at least 30 impressions in the fitted half.
    """

    position: np.ndarray
    error: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    chance: np.ndarray
    detectable: np.ndarray
    rate: np.ndarray
    predicted: np.ndarray
    observed: np.ndarray
    impressions: np.ndarray
    covered: float


def calibration(
    log: ClickLog,
    bins: int = 10,
    level: float = 0.95,
    replicates: int = 400,
    seed: int = 0,
) -> Calibration:
    """Calibration by rank of a position-based model fitted to half of the sessions.

    The expected calibration error (ECE) of rank k is computed on the other half:

        ECE_k = sum_b n_b / n |click rate of bin b - mean prediction of bin b|,

    where n is the number of impressions at the rank, and n_b of these impressions are
    in bin b. The bins of a rank have about the same number of impressions. Chance makes
    the ECE positive even if predictions are correct. `chance` comes from simulations:
    the clicks of both halves are drawn from the model, and the model is fitted again.
    The interval is a basic bootstrap: 2 ECE minus quantiles of the ECE with resampled
    noise. Pairs with fewer than 30 impressions in the fitted half are left out, because
    scarce data, not the behaviour of users, cause their errors.

    Args:
        log: The click log.
        bins: Number of bins per rank.
        level: Confidence level of each interval, and of `chance` for all ranks
            together.
        replicates, seed: Number of resamples, and random seed of the split, resamples
            and simulations.

    >>> rng = np.random.default_rng(0)
    >>> item = rng.permuted(np.tile([0, 1], (4000, 1)), axis=1)
    >>> click = rng.random(item.shape) < np.array([0.5, 0.3])[item] * [1, 0.5]
    >>> calibration(ClickLog(np.zeros(4000, int), item, click), bins=2).grade
    'good'
    """
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}")
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1), got {level}")
    if log.sessions < 2:
        raise ValueError("log must hold at least two sessions")
    rng = np.random.default_rng(seed)
    counted, order = cells(log), rng.permutation(log.sessions)
    happened = happened_cells(counted, log.click)
    fitted, other = (
        tally(counted, happened[half]) for half in np.array_split(order, 2)
    )
    impressions = other.shown.sum()
    # Rare pairs would be fitted by the prior alone, and would bias examination.
    often = (fitted.by_pair(fitted.shown) >= OFTEN)[counted.pair]
    fitted, other = fitted.only(often), other.only(often)
    table = _binned(fitted, other, bins)
    weight, gap = table.weight, table.gap
    noise = rng.normal(size=(replicates, *gap.shape)) * np.nan_to_num(table.error)
    found = (weight * np.abs(gap)).sum(axis=-1)
    again = (weight * np.abs(gap + noise)).sum(axis=-1)
    tail = (1 - level) / 2
    low, high = np.quantile(again, [tail, 1 - tail], axis=0)
    chance, detectable = _chance(fitted, other, bins, level, rng)
    few = fitted.by_rank(fitted.clicked) < CLICKS
    chance, detectable = (np.where(few, np.nan, each) for each in (chance, detectable))
    covered = float(table.impressions.sum() / impressions)
    rate = (weight * np.nan_to_num(table.observed)).sum(axis=1)
    return Calibration(
        np.arange(1, log.list_size + 1),
        found,
        np.maximum(2 * found - high, 0),
        np.maximum(2 * found - low, 0),
        chance,
        detectable,
        rate,
        table.predicted,
        table.observed,
        table.impressions,
        covered,
        **vars(_judge(found, chance, detectable, rate, covered)),
    )


class _Bins(NamedTuple):
    """(K, B) impressions, mean prediction, click rate and its standard error."""

    impressions: np.ndarray
    predicted: np.ndarray
    observed: np.ndarray
    error: np.ndarray

    @property
    def weight(self) -> np.ndarray:
        """(K, B) share of the impressions of a rank; nan if it has none."""
        with np.errstate(invalid="ignore"):
            return self.impressions / self.impressions.sum(axis=1, keepdims=True)

    @property
    def gap(self) -> np.ndarray:
        """(K, B) click rate minus prediction, 0 in empty bins."""
        return np.nan_to_num(self.observed - self.predicted)


def _binned(fitted: Cells, other: Cells, bins: int) -> _Bins:
    """Fits one position-based model to half of the counts, and bins the other half.

    The cells of a rank are sorted by prediction, and divided into bins of about equally
    many impressions.
    """
    p = chances(fitted, fit_one(fitted))[0]
    order = np.lexsort((p, other.rank))
    rank, n = other.rank[order], other.shown[order]
    # Impressions of the rank before the middle of each cell, as a share of its total.
    total = np.bincount(rank, n, minlength=other.ranks)
    before = np.cumsum(n) - n / 2 - (np.cumsum(total) - total)[rank]
    share = before / np.maximum(total[rank], 1)
    cell = rank * bins + np.minimum((share * bins).astype(int), bins - 1)
    kept = n > 0
    cell, n, p, clicked = cell[kept], n[kept], p[order][kept], other.clicked[order]

    def summed(value: np.ndarray) -> np.ndarray:
        size = other.ranks * bins
        return np.bincount(cell, value, minlength=size).reshape(-1, bins)

    size = summed(n)
    with np.errstate(invalid="ignore"):
        return _Bins(
            size.astype(np.int64),
            summed(n * p) / size,
            summed(clicked[kept]) / size,
            np.sqrt(summed(n * p * (1 - p))) / size,
        )


def _chance(
    fitted: Cells, other: Cells, bins: int, level: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(K,) errors that chance explains, and (K,) errors detected with 80% power.

    Both halves are simulated from the model of the first half, so its predictions are
    the truth. At each rank, the logarithm of the error is about normal. The bound is
    its mean plus a number of standard deviations, such that, with probability `level`,
    no rank exceeds its bound.
    """
    truth = chances(fitted, fit_one(fitted))[0]
    drawn = []
    for _ in range(DRAWS):
        one, two = (
            replace(half, clicked=rng.binomial(half.shown.astype(int), truth) + 0.0)
            for half in (fitted, other)
        )
        drawn.append(_binned(one, two, bins))
    weight, gap = (np.stack([getattr(d, n) for d in drawn]) for n in ("weight", "gap"))

    def error(moved: np.ndarray) -> np.ndarray:
        return (weight * np.abs(gap + moved[:, None])).sum(axis=-1)

    none = np.log(np.maximum(error(np.zeros(fitted.ranks)), TINY))
    reach = student.ppf(level ** (1 / fitted.ranks), DRAWS - 1)
    chance = np.exp(none.mean(axis=0) + reach * none.std(axis=0, ddof=1))
    # The smallest error, equal in all bins, with that power, by bisection.
    below, above = np.zeros_like(chance), np.ones_like(chance)
    for _ in range(20):
        middle = (below + above) / 2
        enough = (error(middle) > chance).mean(axis=0) >= POWER
        below, above = np.where(enough, below, middle), np.where(enough, middle, above)
    return chance, np.where(np.isnan(chance), np.nan, above)


def _judge(
    error: np.ndarray,
    chance: np.ndarray,
    detectable: np.ndarray,
    rate: np.ndarray,
    covered: float,
) -> Finding:
    longer = "Log for longer, or log more sessions of fewer queries."
    shown = ~np.isnan(error)
    if not shown.any():
        verdict = "Unknown: no item was shown often enough to check predictions."
        return Finding(verdict=verdict, next_step=longer, grade="unknown")
    wrong = np.nan_to_num(error) > np.nan_to_num(chance, nan=np.inf)
    # At a click rate of .004, an error of .01 is large.
    large = wrong & (np.nan_to_num(error) > np.minimum(FINE, MATTERS * rate))
    worst = int(np.nanargmax(np.where(large, error, -1)))
    if large.any():
        verdict = (
            f"Miscalibrated: at rank {worst + 1}, a position-based model is off by "
            f"{error[worst]:.3f} on average, and chance explains {chance[worst]:.3f}."
        )
        step = "Users do not follow this model: see populations and neighbours."
        return Finding(verdict=verdict, next_step=step, grade="caution")
    if covered < COVERED:
        verdict = (
            f"Unknown: only {covered:.0%} of the impressions are of items shown often "
            f"enough ({OFTEN} times) to check predictions."
        )
        return Finding(verdict=verdict, next_step=longer, grade="unknown")
    return _judge_no_error(error, wrong, detectable, rate)


def _judge_no_error(
    error: np.ndarray, wrong: np.ndarray, detectable: np.ndarray, rate: np.ndarray
) -> Finding:
    """The verdict if no rank has an error that is both significant and relevant."""
    shown = ~np.isnan(error)
    powered = shown & (np.nan_to_num(detectable, nan=np.inf) <= MATTERS * rate)
    blind = words(np.flatnonzero(shown & ~powered) + 1)
    if not powered.any():
        verdict = (
            "Unknown: this log is too small to show, at any rank, predictions that are "
            f"off by {MATTERS:.0%} of the click rate."
        )
        step = "Log for longer, or log more sessions of fewer queries."
        return Finding(verdict=verdict, next_step=step, grade="unknown")
    reach = (detectable[powered] / rate[powered]).max()
    found = f"an error of {reach:.0%} of the click rate would have been found"
    if wrong.any():
        verdict = (
            f"Nearly calibrated: the model is off by at most {error[wrong].max():.3f}, "
            f"which is more than chance but too little to matter; {found}"
        )
    else:
        verdict = (
            f"Calibrated: at no rank is the model off by more than chance; {found}"
        )
    step = "You can use its click probabilities."
    if blind:
        known = words(np.flatnonzero(powered) + 1)
        verdict += f" at rank {known}. Unknown at rank {blind}."
        step = f"You can use its click probabilities, but not at rank {blind}."
        return Finding(verdict=verdict, next_step=step, grade="caution")
    return Finding(verdict=verdict + " at each.", next_step=step, grade="good")
