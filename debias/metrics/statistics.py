"""Means, confidence intervals and significance tests of metrics."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtr, stdtrit


class Estimate(NamedTuple):
    """A mean, its two-sided t-interval, and the numbers of used and unused values."""

    mean: float
    low: float
    high: float
    n: int
    left_out: int


class Difference(NamedTuple):
    """A mean of paired differences, with its t-interval and the p-value of a t-test."""

    mean: float
    low: float
    high: float
    p_value: float
    n: int
    left_out: int


def estimate(values: ArrayLike, confidence: float = 0.95) -> Estimate:
    """Mean of the values that are not nan, with its t-interval.

    The interval is mean -+ t_{n-1} s / sqrt(n), for n values with standard deviation s.
    The interval is nan for fewer than two values. The mean is nan without values.

    >>> estimate([1.0, 2.0, 3.0, float("nan")])._asdict()["left_out"]
    1
    >>> [round(x, 4) for x in estimate([1.0, 2.0, 3.0])[:3]]  # 2 -+ 4.3027 / sqrt(3)
    [2.0, -0.4841, 4.4841]
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence}")
    values = np.asarray(values, dtype=float).ravel()
    kept = values[~np.isnan(values)]
    count = len(kept)
    mean = float(kept.mean()) if count else float("nan")
    reach = float("nan")
    if count > 1:
        t = stdtrit(count - 1, (1 + confidence) / 2)
        reach = float(t * kept.std(ddof=1) / np.sqrt(count))
    return Estimate(mean, mean - reach, mean + reach, count, len(values) - count)


def paired_difference(
    values: ArrayLike,
    baseline: ArrayLike,
    confidence: float = 0.95,
    relative: bool = False,
) -> Difference:
    """Mean of the paired differences `values - baseline`, with t-interval and t-test.

    Pairs with a nan in `values` or in `baseline` are left out, and `left_out` counts
    these pairs. The p-value is two-sided. If all differences are 0, the p-value is 1.
    If all differences are equal but not 0, the p-value is 0.

    Args:
        values: `(n,)` values, such as a metric for n seeds.
        baseline: `(n,)` values of the baseline, such as the metric of another model for
            the same seeds.
        confidence: Confidence level of the interval.
        relative: bool. Whether to divide each difference by its baseline.

    >>> [round(x, 4) for x in paired_difference([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])[:4]]
    [2.0, -0.4841, 4.4841, 0.0742]
    """
    values, baseline = np.asarray(values, float), np.asarray(baseline, float)
    if values.shape != baseline.shape or values.ndim != 1:
        raise ValueError(
            "values and baseline must be pairs of shape (n,), got "
            f"{values.shape} and {baseline.shape}"
        )
    difference = (values - baseline) / (baseline if relative else 1.0)
    mean, low, high, count, left_out = estimate(difference, confidence)
    p_value = float("nan")
    if count > 1:
        error = (high - low) / 2 / stdtrit(count - 1, (1 + confidence) / 2)
        if error > 0:
            p_value = float(2 * stdtr(count - 1, -abs(mean) / error))
        else:
            p_value = float(mean == 0)
    return Difference(mean, low, high, p_value, count, left_out)


def holm(p_values: ArrayLike) -> np.ndarray:
    """P-values adjusted for multiple tests by Holm's method.

    The p-values are sorted in ascending order, p_(1) <= ... <= p_(m). The adjusted
    value of p_(i) is the largest of min(1, (m - j + 1) p_(j)) over j <= i. Reject the
    hypotheses with an adjusted value below a. The probability of any false rejection is
    then at most a, for any dependence between the tests. A p-value of nan stays nan and
    does not count in m, the number of tests.

    Args:
        p_values: `(n,)`, each between 0 and 1, or nan.

    Returns:
        `(n,)` adjusted p-values, in the order of `p_values`.

    Raises:
        ValueError: A value is outside [0, 1], or `p_values` is not one-dimensional.

    Source: Holm, "A simple sequentially rejective multiple test procedure", 1979.

    >>> holm([0.01, 0.04, 0.03]).tolist()  # 3 x .01, then 2 x .03, then no less
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, float)
    if p.ndim != 1 or ((p < 0) | (p > 1)).any():
        raise ValueError(f"p_values must be (n,) from 0 to 1, got {p_values!r}")
    adjusted = np.full(p.shape, np.nan)
    order = np.argsort(p, kind="stable")[: np.isfinite(p).sum()]  # nan comes last
    factors = np.arange(len(order), 0, -1)
    steps = np.minimum(factors * p[order], 1.0)
    adjusted[order] = np.maximum.accumulate(steps)
    return adjusted


def grouped_standard_error(values: ArrayLike, group: ArrayLike) -> float:
    """Standard error of the mean of values that are correlated within groups.

    For n values in G groups, SE = sqrt(G / (G - 1) sum_g e_g^2) / n. The term e_g is
    the sum of (value - mean) over the members of group g. SE is 0 for a single group.

    Args:
        values: `(n,)`.
        group: `(n,)` group of each value, such as the query of a session.

    Source: the cluster-robust variance of Liang and Zeger, Longitudinal Data Analysis
    Using Generalized Linear Models, Biometrika 1986, for a mean.

    >>> round(grouped_standard_error([0.0, 0.0, 1.0, 1.0], [0, 0, 1, 1]), 4)
    0.5
    """
    each = np.asarray(values, dtype=float)
    _, number = np.unique(group, return_inverse=True)
    sums = np.bincount(number, each - each.mean())
    share = len(sums) / max(len(sums) - 1, 1)
    return float(np.sqrt(share * np.sum(sums**2)) / len(each))


def effective_sample_size(weights: ArrayLike) -> float:
    """Kish's effective sample size: (sum w)^2 / sum w^2.

    Args:
        weights: Weights of any shape. All weights are at least 0, and at least one
            weight is above 0.

    Raises:
        ValueError: A weight is negative, or no weight is above 0.

    Source: Kish, Survey Sampling, 1965.

    >>> effective_sample_size(np.array([1.0, 1.0, 2.0]))
    2.6666666666666665
    """
    weights = np.asarray(weights, float)
    if weights.size == 0 or not (weights >= 0).all() or not weights.any():
        raise ValueError("weights must be at least 0, and some must be above 0")
    return float(weights.sum() ** 2 / np.square(weights).sum())
