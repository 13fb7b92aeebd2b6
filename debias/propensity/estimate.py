"""Estimators of examination from a click log, with a common interface.

An estimator in `ESTIMATORS` is available to the commands, the report and the tests.
"""

from collections.abc import Callable, Mapping
from functools import partial, reduce
from operator import add
from typing import Any, NamedTuple

import numpy as np

from debias.data import ClickLog, Stream
from debias.data.stream import even_pieces
from debias.data.text import one_of
from debias.propensity import harvest
from debias.propensity.cells import (
    PIECE,
    Cells,
    cells,
    components,
    count_cells,
    located,
    pairs,
)
from debias.propensity.dla import FEW, Solution, dla, dla_variance, pages
from debias.propensity.examination import (
    Examination,
    Fit,
    bootstrap_variance,
    delta_variance,
    recount,
    result,
)
from debias.propensity.position_based import (
    pbm_conditional,
    pbm_em,
    pbm_mle,
    point,
    regression_em,
)
from debias.types import Over

MOST_CONTEXTS = 50
SETTLED = 0.05  # largest change of log examination in one more pass
UNCLICKED = "log has no click at rank 1, to which examination is relative"


class Estimator(NamedTuple):
    """The properties of an estimator.

    Attributes:
        fit: Function that computes a `Fit` from counts and options; None if the
            estimator needs whole lists.
        intervals: Supported kinds of intervals; the first is the default.
        confounded: Whether the estimate confounds relevance and examination.
        features: Whether the estimator reads features of items: "no", "may" (optional)
            or "must" (required). An estimator for which features are optional has an
            interval only if features are given.
    """

    fit: Callable[..., Fit] | None
    intervals: tuple[str, ...] = ("delta", "bootstrap", "none")
    confounded: bool = False
    features: str = "no"


ESTIMATORS: Mapping[str, Estimator] = {
    "ctr": Estimator(harvest.ctr, confounded=True),
    "pivot": Estimator(harvest.pivot),
    "adjacent_chain": Estimator(harvest.adjacent_chain),
    "all_pairs": Estimator(harvest.all_pairs),
    "pbm_em": Estimator(pbm_em, ("none",)),
    "pbm_mle": Estimator(pbm_mle, ("none",)),
    "pbm_conditional": Estimator(pbm_conditional),
    "regression_em": Estimator(regression_em, features="may"),
    "dla": Estimator(None, features="may"),
    "bias_tower": Estimator(None, ("none",), features="must"),
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
    by: str | np.ndarray | None = None,
    **options: Any,
) -> Examination:
    """Estimates examination at each rank relative to rank 1.

    The methods are:

    - "ctr": click rate by rank, confounded if better items are shown higher.
    - "pivot", "adjacent_chain" and "all_pairs": click rates of items that were shown at
      several ranks; see `debias.propensity.harvest`.
    - "pbm_em": position-based model by EM with the usual settings: 40 passes from
      parameters of .5, and smoothing by the prior (1, 2). Early stopping and smoothing
      bias the estimate, so it has no interval.
    - "pbm_mle": maximum likelihood estimate of the position-based model, to which EM
      without smoothing converges. The estimate is biased if pairs have few impressions,
      so it has no interval.
    - "pbm_conditional": position-based model, conditional on the number of clicks of
      each pair. This method does not estimate attraction, and its interval is valid.
    - "regression_em": position-based model in which attraction is a logistic regression
      on `features`. Without features, the method equals "pbm_mle".
    - "dla": dual learning algorithm, linear in `features`, or tabular without features.
      The tabular form weights clicks by ratios of noisy scores. The tabular estimate is
      biased if items have few clicks, so it has no interval. The tabular estimate is
      marked as degenerate if at least half of the clicks are on items with fewer than
      50 clicks.
    - "bias_tower": examination in a neural click model, given by the option `model`;
      see `debias.propensity.bias_tower`.

    Args:
        log: The click log; the first column of its lists is rank 1.
        method: Name of an estimator in `ESTIMATORS`.
        interval: "delta" (delta method, robust to dependence within a session),
            "bootstrap" (Poisson resamples of sessions) or "none". The default is the
            first interval that the method supports.
        level: Confidence level of the interval.
        replicates, seed: Number of bootstrap replicates, and random seed of the
            bootstrap and of "bias_tower".
        source: "all" uses all changes of an item's rank; "swap" uses only swaps that
            the log marks.
        features: (items, F) features of the log's items, for methods that read
            features.
        by: Contexts, each of which gets a separate curve: an array (S,) of labels, or
            the name of a column of the log. A column holds one integer per session,
            such as "device". A presentation column, such as a badge, may instead hold
            one value per impression. Contexts share no parameters, and each curve is
            relative to rank 1 of its own context. To compare labels of impressions with
            each other, use `propensities`, which gives all labels the same reference.
        **options: Options of the method, such as `minimum` of harvesting, or `prior`
            and `iterations` of EM.

    Raises:
        ValueError: The method, interval, source or context is unknown. Features are
            missing, not supported, or do not cover the log's items. The log, or one of
            its contexts, has no click at rank 1.

    >>> log = ClickLog(
    ...     np.zeros(40, int), np.tile([[0, 1], [1, 0]], (20, 1)),
    ...     np.tile([[1, 0], [0, 0], [1, 1], [0, 0]], (10, 1)),
    ... )
    >>> found = estimate(log)
    >>> found.examination.tolist(), found.records()[1]["n"]
    ([1.0, 0.5], 40)
    >>> estimate(log, by=np.arange(40) // 20).context.tolist()
    [0, 0, 1, 1]
    """
    if by is not None:
        given: dict[str, Any] = {"interval": interval, "level": level}
        given |= {"replicates": replicates, "seed": seed, "source": source}
        given |= {"features": features, **options}
        parts = _parts(log, *_contexts(log, by))
        return Examination.stack(
            {value: estimate(part, method, **given) for value, part in parts.items()}
        )
    if method not in ESTIMATORS:
        raise ValueError(one_of("method", ESTIMATORS, method))
    estimator = ESTIMATORS[method]
    if features is None and estimator.features == "may":
        estimator = estimator._replace(intervals=("none",))
    interval = estimator.intervals[0] if interval is None else interval
    if interval not in estimator.intervals:
        raise ValueError(one_of(f"interval of {method}", estimator.intervals, interval))
    if not log.click[:, 0].any():
        raise ValueError(UNCLICKED)
    if features is not None and estimator.features == "no":
        raise ValueError(f"{method} does not read features")
    if method == "bias_tower":
        if features is None:
            raise ValueError(f"{method} needs features, (items, F) of the ranking data")
        from debias.propensity.bias_tower import bias_tower  # loads Keras

        log_theta = bias_tower(log, features, seed=seed, **options)
        return result(point(cells(log), log_theta), None, method, interval, level)
    if features is not None:
        options["features"] = _of_pairs(log, features, source)
    counted = cells(log, source)
    if estimator.fit is None:
        return _dla(log, counted, interval, level, replicates, seed, options)
    fit = estimator.fit(counted, **options)
    variance = None
    if interval == "delta":
        variance = delta_variance(fit, counted, log.click)
    elif interval == "bootstrap":
        again = estimator.fit
        refit = recount(
            lambda drawn: again(drawn, **options).log_examination, counted, log.click
        )
        variance = bootstrap_variance(refit, log.sessions, replicates, seed)
    return result(fit, variance, method, interval, level, estimator.confounded)


def estimate_counts(
    counted: Cells, method: str = "adjacent_chain", **options: Any
) -> Examination:
    """Estimates examination from counts alone, such as counts added up over shards.

    The estimates equal those of `estimate` on the whole log. There are no intervals,
    because intervals need the sessions.

    Args:
        counted: Counts from `debias.propensity.count_cells`.
        method: Name of an estimator in `ESTIMATORS`, except "dla" and "bias_tower",
            which need more than counts.
        **options: Options of the method.

    Raises:
        ValueError: The method is unknown or needs whole lists; or rank 1 has no click.

    >>> from debias.propensity import count_cells
    >>> log = ClickLog(
    ...     np.zeros(40, int), np.tile([[0, 1], [1, 0]], (20, 1)),
    ...     np.tile([[1, 0], [0, 0], [1, 1], [0, 0]], (10, 1)),
    ... )
    >>> first, second = log.take(slice(0, 15)), log.take(slice(15, 40))
    >>> estimate_counts(count_cells(first) + count_cells(second)).examination.tolist()
    [1.0, 0.5]
    """
    fit = _fit(counted, method, options)
    return result(fit, None, method, "none", 0.95, ESTIMATORS[method].confounded)


def _fit(counted: Cells, method: str, options: Mapping[str, Any]) -> Fit:
    fits = {name: each.fit for name, each in ESTIMATORS.items() if each.fit is not None}
    if method not in fits:
        raise ValueError(one_of("method", fits, method))
    if not counted.by_rank(counted.clicked)[0]:
        raise ValueError(UNCLICKED)
    return fits[method](counted, **options)


def estimate_stream(
    log: Stream,
    method: str = "pbm_conditional",
    *,
    interval: str | None = None,
    level: float = 0.95,
    over: Over = map,
    **options: Any,
) -> Examination:
    """Estimates examination from a log on disk, in two passes over its files.

    The first pass adds up counts, and the second pass adds up the variance. The
    estimates equal those of `estimate` on the whole log. The interval is equal up to
    rounding.

    Args:
        log: The log on disk.
        method, options: See `estimate_counts`.
        interval: "delta" or "none". The default is the first interval that the method
            supports.
        level: Confidence level of the interval.
        over: Function that processes the files of the log: `map`, or a parallel
            function with the arguments and results of `map`.

    Raises:
        ValueError: The method is unknown or needs whole lists, rank 1 has no click, or
            `interval` is not supported for a log on disk.
    """
    counted = count_cells(log, over)
    fit, estimator = _fit(counted, method, options), ESTIMATORS[method]
    interval = estimator.intervals[0] if interval is None else interval
    if interval not in {"delta", "none"} & set(estimator.intervals):
        raise ValueError(
            f"interval of {method} cannot be {interval!r} for a log on disk: give "
            "delta, if the method has it, or none"
        )
    variance = None
    if interval == "delta":
        variance = reduce(add, log.over(partial(_variance, fit, counted), over))
    return result(fit, variance, method, interval, level, estimator.confounded)


def _variance(fit: Fit, counted: Cells, log: Stream) -> np.ndarray:
    """(K,) contribution of a file's sessions to the variances of `delta_variance`."""
    found = (
        delta_variance(fit, located(counted, piece), piece.click)
        for piece in even_pieces(log.pieces(), PIECE)
    )
    return reduce(add, found)


def _contexts(log: ClickLog, by: str | np.ndarray) -> tuple[np.ndarray, bool]:
    """Context labels (S,) of sessions or (S, L) of cells, and whether of cells."""
    value = log.columns().get(by) if isinstance(by, str) else np.asarray(by)
    if value is None:
        raise ValueError(f"this log has no column {by}")
    if value.ndim == 2 and value.shape[1] == 1:
        value = value[:, 0]
    cells = isinstance(by, str) and by in (log.presentation or ()) and value.ndim == 2
    if not cells and value.shape != (log.sessions,):
        raise ValueError(
            f"by must have one label per session, shape ({log.sessions},), got "
            f"{value.shape}"
        )
    if len(np.unique(value)) > MOST_CONTEXTS:
        raise ValueError(
            f"by must have at most {MOST_CONTEXTS} values, got "
            f"{len(np.unique(value))}: group them and pass the labels of the groups"
        )
    return value, cells


def _parts(log: ClickLog, contexts: np.ndarray, cells: bool) -> dict[Any, ClickLog]:
    """The log of each context: its sessions or its cells."""
    values = np.unique(contexts[log.mask] if cells else contexts).tolist()
    parts = {}
    for value in values:
        here = contexts == value
        part = _cells_of(log, here) if cells else log.take(here)
        if not part.click[:, 0].any():
            raise ValueError(f"log has no click at rank 1 in context {value}")
        parts[value] = part
    return parts


def _cells_of(log: ClickLog, here: np.ndarray) -> ClickLog:
    """Replaces all other cells by padding, and drops lists that become empty."""
    here = here & log.mask
    columns = {"item": np.where(here, log.item, -1), "click": log.click & here}
    some = ClickLog.trusted(query=log.query, swap=log.swap, **columns)
    return some.take(np.flatnonzero(here.any(axis=1)))


def _of_pairs(log: ClickLog, features: np.ndarray, source: str) -> np.ndarray:
    if source != "all":
        raise ValueError("features need source='all'")
    log.check(len(features))
    item, features = pairs(log).item, np.asarray(features)
    every = np.array_equal(item, np.arange(len(features)))
    return features if every else features[item]


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
    solution = dla(page, **options)
    state, ranks = solution.state, counted.ranks
    if "features" not in options:  # ranks without a shared pair have no common scale
        tie = components(counted)
        state[:ranks][tie != tie[0]] = np.nan

    # Resamples need less precision than their own scatter.
    rough = {"tolerance": 1e-4, "iterations": 100, **options}

    def refit(weight: np.ndarray) -> np.ndarray:
        again = (dla(page, column, start=state, **rough) for column in weight.T)
        return np.array([each.state[:ranks] for each in again])

    variance = None
    if interval == "delta":
        variance = dla_variance(page, state, options["features"])
    elif interval == "bootstrap":
        variance = bootstrap_variance(refit, log.sessions, replicates, seed)
    fit = point(counted, state[:ranks], _doubt(solution, "features" not in options))
    return result(fit, variance, "dla", interval, level)


def _doubt(solution: Solution, tabular: bool) -> str:
    """The reason not to use a solution of dual learning, or ""."""
    if tabular and solution.clicks < FEW:
        return (
            f"half of the clicks are on items with at most {solution.clicks:.0f} "
            f"clicks, and dual learning without features needs {FEW}"
        )
    if solution.move > SETTLED:
        return f"not settled: one more pass moves it by {solution.move:.0%}"
    return ""
