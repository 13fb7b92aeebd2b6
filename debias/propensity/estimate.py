"""Estimates of examination from a click log: one signature, one tidy result.

Entering an estimator in `ESTIMATORS` brings it to the commands, the report and the
tests.
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
SETTLED = 0.05  # what one more pass may move its log examination by
UNCLICKED = "log has no click at rank 1, to which examination is relative"


class Estimator(NamedTuple):
    """How an estimator is run.

    Attributes:
        fit: Cells and options to a `Fit`; None for one that reads whole lists.
        intervals: What it offers; the first is used unless another is asked for.
        confounded: Whether it mixes up relevance and examination.
        features: Whether it reads features: "no", "may", "must". One that may claims an
            interval only where it does.
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
    """Examination at each rank relative to rank 1.

    Args:
        log: The click log; a rank is a column, counted from the left.
        method: A name in `ESTIMATORS`:
            "ctr", click rate by rank, confounded where better items are shown higher;
            "pivot", "adjacent_chain", "all_pairs", from items seen at several ranks;
            "pbm_em", position-based model by EM as published: 40 passes from .5, each
            ratio smoothed by prior (1, 2); biased by both, hence without an interval;
            "pbm_mle", the maximum that EM would reach without smoothing; biased where
            pairs have few impressions, hence without an interval;
            "pbm_conditional", the same model given the clicks of each pair, which
            leaves no attraction to estimate and has an interval that holds;
            "regression_em", attraction a logistic regression on `features`; without
            them it is "pbm_mle";
            "dla", the dual learning algorithm, tabular or linear in `features`; the
            tabular form weighs clicks by ratios of noisy scores, which biases it where
            items have few clicks, hence without an interval, and is degenerate where
            they have hardly any;
            "bias_tower", click probabilities of a click model, fitted or not: option
            `model`, see `debias.propensity.bias_tower`.
        interval: "delta" (first order, robust to dependence within a session),
            "bootstrap" (Poisson resamples of sessions) or "none"; the first that the
            method offers unless given.
        level: Chance that an interval is to cover.
        replicates, seed: Of the bootstrap.
        source: "all" rank changes, or "swap" for marked interventions alone.
        features: (items, F) of the ranking data, for the methods that read them.
        by: One curve for each context: a column of the log with one integer a session,
            such as "device", or an array (S,) of labels; or a presentation column, with
            one a session or a cell, such as a badge. Contexts share nothing, attraction
            least of all, and each curve is relative to rank 1 of its own context;
            `propensities` compares the labels of cells with each other.
        **options: What else the method takes, such as `minimum` of harvesting or
            `prior` and `iterations` of EM.

    Raises:
        ValueError: An unknown method, interval, source or context; features where the
            method reads none, that it lacks, or that do not cover the log's items; a
            log, or a context, without a click at rank 1, to which all else is relative.

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
        raise ValueError(f"features are not read by {method}")
    if method == "bias_tower":
        if features is None:
            raise ValueError(f"{method} needs features, (items, F) of the ranking data")
        from debias.propensity.bias_tower import bias_tower  # Keras

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
    """`estimate` of a log of which only counts are at hand, such as a sum over shards.

    The very numbers that `estimate` finds of the whole log, without intervals: these
    need the sessions.

    Args:
        counted: Of `debias.propensity.count_cells`.
        method: A name in `ESTIMATORS` whose `fit` reads counts: all but "dla" and
            "bias_tower".
        **options: What else the method takes.

    Raises:
        ValueError: The method is unknown or reads whole lists; there is no click at
            rank 1.

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
    """`estimate` of a log on disk, which two passes read file by file.

    The first counts; the second adds up the variance. Both are sums over sessions, so
    that the result is that of `estimate` of the whole log, the interval to rounding.

    Args:
        log: All of its sessions.
        method, options: As for `estimate_counts`.
        interval: "delta" or "none"; the first that the method offers unless given.
        level: Chance that an interval is to cover.
        over: Reads the files, such as on a cluster.

    Raises:
        ValueError: As for `estimate_counts`; or the interval needs sessions in memory.
    """
    counted = count_cells(log, over)
    fit, estimator = _fit(counted, method, options), ESTIMATORS[method]
    interval = estimator.intervals[0] if interval is None else interval
    if interval not in {"delta", "none"} & set(estimator.intervals):
        raise ValueError(
            f"interval of {method} of a log on disk cannot be {interval!r}: delta, "
            "where the method has it, or none"
        )
    variance = None
    if interval == "delta":
        variance = reduce(add, log.over(partial(_variance, fit, counted), over))
    return result(fit, variance, method, interval, level, estimator.confounded)


def _variance(fit: Fit, counted: Cells, log: Stream) -> np.ndarray:
    """(K,) what the sessions of a file add to the variances of `delta_variance`."""
    found = (
        delta_variance(fit, located(counted, piece), piece.click)
        for piece in even_pieces(log.pieces(), PIECE)
    )
    return reduce(add, found)


def _contexts(log: ClickLog, by: str | np.ndarray) -> tuple[np.ndarray, bool]:
    """(S,) labels of the sessions' contexts, or (S, L) of cells; whether of cells."""
    value = log.columns().get(by) if isinstance(by, str) else np.asarray(by)
    if value is None:
        raise ValueError(f"this log has no column {by}")
    if value.ndim == 2 and value.shape[1] == 1:
        value = value[:, 0]
    cells = isinstance(by, str) and by in (log.presentation or ()) and value.ndim == 2
    if not cells and value.shape != (log.sessions,):
        raise ValueError(
            f"by must be one label a session, ({log.sessions},), got {value.shape}"
        )
    if len(np.unique(value)) > MOST_CONTEXTS:
        raise ValueError(
            f"by has {len(np.unique(value))} values, at most {MOST_CONTEXTS} contexts: "
            "cut it into groups and pass their labels, (S,)"
        )
    return value, cells


def _parts(log: ClickLog, contexts: np.ndarray, cells: bool) -> dict[Any, ClickLog]:
    """The sessions, or the cells, of each context."""
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
    """The log with all other cells as padding, without lists that show nothing then."""
    here = here & log.mask
    columns = {"item": np.where(here, log.item, -1), "click": log.click & here}
    some = ClickLog.trusted(query=log.query, swap=log.swap, **columns)
    return some.take(np.flatnonzero(here.any(axis=1)))


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
    solution = dla(page, **options)
    state, ranks = solution.state, counted.ranks
    if "features" not in options:  # ranks without a shared pair have no scale
        tie = components(counted)
        state[:ranks][tie != tie[0]] = np.nan

    # A resample need not be solved finer than it scatters.
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
    """Why a solution of dual learning is not to be used, or ""."""
    if tabular and solution.clicks < FEW:
        return (
            f"half of the clicks are on items with at most {solution.clicks:.0f} "
            f"clicks, and dual learning without features needs {FEW}"
        )
    if solution.move > SETTLED:
        return f"not settled: one more pass moves it by {solution.move:.0%}"
    return ""
