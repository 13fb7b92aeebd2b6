"""Estimates of examination from a click log: one signature, one tidy result.

Entering an estimator in `ESTIMATORS` brings it to the commands, the report and the
tests.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from debias.data import ClickLog
from debias.propensity import harvest
from debias.propensity.cells import Cells, cells, pairs
from debias.propensity.dla import dla, dla_variance, pages
from debias.propensity.examination import (
    Examination,
    Fit,
    bootstrap_variance,
    delta_variance,
    recount,
    result,
)
from debias.propensity.position_based import pbm_em, pbm_mle, regression_em


class Estimator(NamedTuple):
    """How an estimator is run.

    Attributes:
        fit: Cells and options to a `Fit`; None for one that reads whole lists.
        intervals: What it offers; the first is used unless another is asked for.
        confounded: Whether it mixes up relevance and examination.
    """

    fit: Callable[..., Fit] | None
    intervals: tuple[str, ...] = ("delta", "bootstrap", "none")
    confounded: bool = False


def _published(counted: Cells, **options: Any) -> Fit:
    log_theta, _ = pbm_em(counted, **options)
    nothing = np.zeros(0)
    shown = counted.by_rank(counted.shown)
    return Fit(log_theta, nothing, nothing, nothing, shown)


ESTIMATORS: Mapping[str, Estimator] = {
    "ctr": Estimator(harvest.ctr, confounded=True),
    "pivot": Estimator(harvest.pivot),
    "adjacent_chain": Estimator(harvest.adjacent_chain),
    "all_pairs": Estimator(harvest.all_pairs),
    "pbm_em": Estimator(_published, ("none",)),
    "pbm_mle": Estimator(pbm_mle),
    "regression_em": Estimator(regression_em),
    "dla": Estimator(None),
}


def estimate(
    log: ClickLog,
    method: str = "adjacent_chain",
    *,
    interval: str | None = None,
    level: float = 0.95,
    replicates: int = 200,
    seed: int = 0,
    source: str = "all",
    features: np.ndarray | None = None,
    **options: Any,
) -> Examination:
    """Examination at each rank relative to rank 1.

    Args:
        log: The click log; a rank is a column, counted from the left.
        method: A name in `ESTIMATORS`:
            "ctr", click rate by rank, confounded where better items are shown higher;
            "pivot", "adjacent_chain", "all_pairs", from items seen at several ranks;
            "pbm_em", position-based model by EM as published: 40 passes from .5, each
            ratio smoothed by prior (1, 2); biased by both, hence without an interval;
            "pbm_mle", the maximum that EM would reach without smoothing;
            "regression_em", attraction a logistic regression on `features`;
            "dla", the dual learning algorithm, tabular or linear in `features`; the
            tabular form weighs clicks by ratios of noisy scores, which biases it where
            items have few clicks, hence without an interval.
        interval: "delta" (first order, robust to dependence within a session),
            "bootstrap" (Poisson resamples of sessions) or "none"; the first that the
            method offers unless given.
        level: Chance that an interval is to cover.
        replicates, seed: Of the bootstrap.
        source: "all" rank changes, or "swap" for marked interventions alone.
        features: (items, F) of the ranking data, for the methods that read them.
        **options: What else the method takes, such as `minimum` of harvesting or
            `prior` and `iterations` of EM.

    Raises:
        ValueError: An unknown method, interval or source; features where the method
            reads none, or that do not cover the log's items; a log without a click at
            rank 1, to which all else is relative.

    >>> log = ClickLog(
    ...     np.zeros(40, int), np.tile([[0, 1], [1, 0]], (20, 1)),
    ...     np.tile([[1, 0], [0, 0], [1, 1], [0, 0]], (10, 1)),
    ... )
    >>> found = estimate(log)
    >>> found.examination.tolist(), found.records()[1]["n"]
    ([1.0, 0.5], 40)
    """
    if method not in ESTIMATORS:
        raise ValueError(f"method must be one of {list(ESTIMATORS)}, got {method!r}")
    estimator = ESTIMATORS[method]
    if method == "dla" and features is None:
        estimator = estimator._replace(intervals=("none",))
    interval = estimator.intervals[0] if interval is None else interval
    if interval not in estimator.intervals:
        raise ValueError(
            f"interval of {method} must be one of {list(estimator.intervals)}, "
            f"got {interval!r}"
        )
    if not log.click[:, 0].any():
        raise ValueError("log has no click at rank 1, to which examination is relative")
    if features is not None:
        if method not in ("regression_em", "dla"):
            raise ValueError(f"features are not read by {method}")
        options["features"] = _of_pairs(log, features, source)
    counted = cells(log, source)
    if estimator.fit is None:
        return _dla(log, counted, interval, level, replicates, seed, options)
    fit = estimator.fit(counted, **options)
    variance = None
    if interval == "delta":
        variance = delta_variance(fit, counted, log.click)
    elif interval == "bootstrap":
        point = estimator.fit
        refit = recount(
            lambda again: point(again, **options).log_examination, counted, log.click
        )
        variance = bootstrap_variance(refit, log.sessions, replicates, seed)
    return result(fit, variance, method, interval, level, estimator.confounded)


def _of_pairs(log: ClickLog, features: np.ndarray, source: str) -> np.ndarray:
    if source != "all":
        raise ValueError("features go with source='all' only")
    log.check(len(features))
    return np.asarray(features)[pairs(log).item]


def _dla(
    log: ClickLog,
    counted: Cells,
    interval: str,
    level: float,
    replicates: int,
    seed: int,
    options: dict[str, Any],
) -> Examination:
    page = pages(log)
    state = dla(page, **options)
    ranks = counted.ranks

    # A resample need not be solved finer than it scatters.
    rough = {"tolerance": 1e-4, "iterations": 100, **options}

    def refit(weight: np.ndarray) -> np.ndarray:
        again = (dla(page, column, start=state, **rough) for column in weight.T)
        return np.array([each[:ranks] for each in again])

    variance = None
    if interval == "delta":
        variance = dla_variance(page, state, options.get("features"))
    elif interval == "bootstrap":
        variance = bootstrap_variance(refit, log.sessions, replicates, seed)
    nothing = np.zeros(0)
    shown = counted.by_rank(counted.shown)
    fit = Fit(state[:ranks], nothing, nothing, nothing, shown)
    return result(fit, variance, "dla", interval, level)
