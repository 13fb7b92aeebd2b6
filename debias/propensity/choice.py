"""Estimates the propensities of a log with a suitable estimator, and judges them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np

from debias.data import ClickLog, Stream
from debias.data.text import one_of
from debias.propensity.cells import cells
from debias.propensity.estimate import (
    ESTIMATORS,
    MOST_CONTEXTS,
    UNCLICKED,
    estimate,
    estimate_stream,
)
from debias.propensity.examination import Examination, delta_variance, result
from debias.propensity.places import NUMBERS, Labels, Propensities, labels_of
from debias.propensity.position_based import pbm_conditional
from debias.types import Over

BEST = "pbm_conditional"  # uses all clicks of shared items, and has an interval
WEAK = 0.25  # standard error of a log ratio: its 95% interval is a factor of 1.6 wide
FEW = 100  # impressions of a context, below which an estimate is unreliable
NOTHING = "not identified"
NO_MOVE = (
    "no item was shown at two ranks, so this log cannot separate examination from "
    "relevance. `debias plan` says what to exchange"
)
NO_CLICKS = "no rank has clicks for a comparison"
WHY = (
    f"{BEST}: of the estimators with a valid interval, it uses the most clicks on "
    "items that moved"
)


def propensities(
    log: ClickLog | Stream,
    method: str = "auto",
    *,
    by: Sequence[str] = (),
    names: Labels | None = None,
    features: np.ndarray | None = None,
    level: float = 0.95,
    seed: int = 0,
    over: Over = map,
) -> Propensities:
    """Estimates examination at each place of a log, with a verdict for each place.

    The method "auto" is "pbm_conditional", the position-based model conditional on the
    number of clicks of each pair. This model uses every click on an item that moved
    between ranks, and its interval is valid. "auto" uses only the random swaps that the
    log marks if the swaps give every rank a relative standard error of at most 25%. An
    item that never moved gives no information to any estimator.

    Args:
        log: The click log. A log on disk is read in two passes, file by file, and does
            not support `by`.
        method: "auto", or the name of an estimator in `debias.propensity.ESTIMATORS`.
        by: Columns of the log on which examination at a rank depends. If a column has
            one label per session, such as "device", each label has a separate curve,
            which is 1 at rank 1. If a column has one label per cell, such as a badge,
            all labels share the attraction of the items. Examination is then relative
            to rank 1 with the most frequent label there.
        names: For each column of `by`, the labels of the codes 1, 2 and so on.
        features: (items, F) features of the log's items, for methods that read
            features.
        level: Confidence level of the intervals.
        seed: Random seed of the method "bias_tower".
        over: Function that processes the files of a log on disk: `map`, or a parallel
            function with the arguments and results of `map`.

    Raises:
        ValueError: The method is unknown, or does not support columns with one label
            per cell. Or a column is missing, or has more than 50 labels.

    >>> log = ClickLog(
    ...     np.zeros(400, int), np.tile([[0, 1], [1, 0]], (200, 1)),
    ...     np.tile([[1, 0], [0, 0], [1, 1], [0, 0]], (100, 1)),
    ... )
    >>> found = propensities(log)
    >>> found.examination.round(3).tolist(), found.verdict.tolist()
    ([1.0, 0.5], ['reference', 'identified'])
    >>> propensities(log.take([0, 2])).verdict.tolist()
    ['not identified', 'not identified']
    """
    if method != "auto" and method not in ESTIMATORS:
        raise ValueError(one_of("method", ["auto", *ESTIMATORS], method))
    if isinstance(log, Stream):
        return _of_stream(log, method, by, level, over)
    sessions, within = _split_columns(log, by, names)
    if within and method not in ("auto", BEST):
        raise ValueError(
            f"{' '.join(within)} differs within a list, so {method} cannot use it: "
            f"method must be auto or {BEST}"
        )
    asked: dict[str, Any] = {"level": level, "seed": seed}
    if ESTIMATORS.get(method, ESTIMATORS[BEST]).features != "no":
        asked["features"] = features
    source, why = "all", f"{method} was requested"
    if method == "auto":
        method, source, why = _supported(log)
    parts: list[Propensities] = []
    notes: list[str] = []
    for labels, chosen in _contexts(sessions, log.sessions):
        part = log.take(chosen)
        own = {name: v[chosen] for name, v in within.items()}
        try:
            found = _curve(part, method, source, own, asked)
        except ValueError as error:
            if UNCLICKED not in str(error) and "at least one session" not in str(error):
                raise
            found = _nothing(part, own, method, str(error))
        where = " ".join(f"{n}={v}" for n, v in zip(sessions, labels, strict=True))
        shown = int(part.mask.sum())
        if where and shown < FEW:
            notes.append(f"{where} has {shown} impressions, too few to estimate from")
        if where:
            repeated = {
                n: np.full(len(found), v) for n, v in zip(sessions, labels, strict=True)
            }
            found = replace(found, by={**repeated, **found.by})
        parts.append(found)
    joined = _joined(parts, [*sessions, *within])
    if not joined.identified:
        notes.append(NO_MOVE if not _moved(log) else NO_CLICKS)
    return replace(joined, why=why, notes=tuple(notes))


def _of_stream(
    log: Stream, method: str, by: Sequence[str], level: float, over: Over
) -> Propensities:
    """Propensities by rank of a log on disk."""
    if by:
        raise ValueError(
            f"places by {' '.join(by)} need a log in memory; leave out --cluster, or "
            "leave out by"
        )
    why = f"{method} was requested"
    if method == "auto":
        method, why = BEST, WHY
    found = _judged(estimate_stream(log, method, level=level, over=over))
    notes = []
    if not found.identified:
        notes.append(f"{NO_MOVE}; or {NO_CLICKS}")
    if "swap" in log.groups[0][0].schema.names and why == WHY:
        notes.append("marked swaps are used like all other lists")
    return replace(found, why=why, notes=tuple(notes))


def _supported(log: ClickLog) -> tuple[str, str, str]:
    """The estimator that "auto" chooses for a log, its source, and the reason."""
    if log.swap is not None and log.swap.any() and log.click[:, 0].any():
        found = estimate(log, BEST, source="swap")
        if np.isfinite(found.examination).all() and (_log_error(found) <= WEAK).all():
            return BEST, "swap", f"{BEST} on the marked swaps only, which are random"
    return BEST, "all", WHY


def _log_error(found: Examination) -> np.ndarray:
    return found.standard_error / found.examination


def _split_columns(
    log: ClickLog, by: Sequence[str], names: Labels | None
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Labels of columns with one value per session (S,), or one per cell (S, L)."""
    found = {name: labels_of(log, name, names) for name in by}
    sessions, within = {}, {}
    for name, label in found.items():
        if label.shape[1] == 1 and log.list_size > 1:
            sessions[name] = label[:, 0]
        else:
            within[name] = label
        count = len(np.unique(label[log.mask] if label.shape[1] > 1 else label))
        if count > MOST_CONTEXTS:
            raise ValueError(
                f"column {name} has {count} labels, at most {MOST_CONTEXTS}: cut it "
                "into groups first"
            )
    return sessions, within


def _contexts(
    columns: Mapping[str, np.ndarray], sessions: int
) -> list[tuple[tuple[str, ...], np.ndarray]]:
    """Labels of each context that occurs, and its sessions (S,) bool."""
    if not columns:
        return [((), np.ones(sessions, bool))]
    every = np.stack(list(columns.values()), axis=1)
    values, number = np.unique(every, axis=0, return_inverse=True)
    return [
        (tuple(value.tolist()), number.ravel() == at) for at, value in enumerate(values)
    ]


def _curve(
    log: ClickLog,
    method: str,
    source: str,
    within: Mapping[str, np.ndarray],
    asked: dict[str, Any],
) -> Propensities:
    """Propensities of one context."""
    if not within:
        return _judged(estimate(log, method, source=source, **asked))
    if not log.click[:, 0].any():
        raise ValueError(UNCLICKED)
    rank, labels, place = _places(log, within)
    counted = cells(log, source, place)
    fit = pbm_conditional(counted)
    variance = delta_variance(fit, counted, log.click)
    found = result(fit, variance, method, "delta", asked["level"])
    judged = _judged(found)
    order = np.lexsort((*reversed([labels[name] for name in within]), rank))
    table: dict[str, Any] = {name: getattr(judged, name)[order] for name in _ROWS}
    table["rank"] = rank[order]
    return Propensities(**table, by={n: v[order] for n, v in labels.items()})


_ROWS = ("rank", *NUMBERS, "method", "verdict")


def _places(
    log: ClickLog, within: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
    """Rank (R,) and labels of each place, and the place of each cell (S, L).

    The first place is rank 1 with its most frequent labels.
    """
    codes = [np.unique(v, return_inverse=True) for v in within.values()]
    code = np.zeros(log.item.shape, np.int64)
    for values, number in codes:
        code = code * len(values) + number.reshape(log.item.shape)
    every = list(product(*(values.tolist() for values, _ in codes)))
    key = np.where(log.mask, np.arange(log.list_size) * len(every) + code, -1)
    top = key[:, 0][key[:, 0] >= 0]
    known = np.unique(key[key >= 0])
    first = np.bincount(top).argmax()
    known = np.concatenate([[first], known[known != first]])
    number = np.full(log.list_size * len(every), -1)
    number[known] = np.arange(len(known))
    labels = {
        name: np.array([every[k % len(every)][at] for k in known])
        for at, name in enumerate(within)
    }
    return known // len(every) + 1, labels, np.where(key >= 0, number[key], -1)


def _judged(found: Examination) -> Propensities:
    """Adds a verdict at each place to an estimate."""
    known = np.isfinite(found.examination)
    error = _log_error(found)
    verdict = np.full(len(found), NOTHING, dtype=object)
    compared = known[1:].any()
    for k in np.flatnonzero(known & compared).tolist():
        verdict[k] = _verdict(found, k, float(error[k]))
    theta = found.examination if compared else np.full(len(found), np.nan)
    error = np.where(compared, found.standard_error, np.nan)
    return Propensities(
        found.position,
        theta,
        np.where(compared, found.lower, np.nan),
        np.where(compared, found.upper, np.nan),
        error,
        found.n,
        np.full(len(found), found.method),
        verdict.astype(str),
    )


def _verdict(found: Examination, k: int, error: float) -> str:
    if k == 0:
        return "reference"
    if found.degenerate:
        return f"not to be used: {found.degenerate}"
    if found.confounded:
        return "confounded with relevance"
    if np.isnan(error):
        return "without an interval"
    if error > WEAK:
        return f"weak: standard error of {error:.0%}"
    return "identified"


def _nothing(
    log: ClickLog, within: Mapping[str, np.ndarray], method: str, why: str
) -> Propensities:
    """Propensities, all NaN, of a context that cannot be estimated."""
    labels: dict[str, np.ndarray] = {}
    rank = np.arange(1, log.list_size + 1)
    if within:
        rank, labels, _ = _places(log, within)
    nan, size = np.full(len(rank), np.nan), len(rank)
    words = np.full(size, f"{NOTHING}: {why}")
    count = np.zeros(size, np.int64)
    return Propensities(
        rank, nan, nan, nan, nan, count, np.full(size, method), words, by=labels
    )


def _joined(parts: Sequence[Propensities], by: Sequence[str]) -> Propensities:
    table: dict[str, Any] = {
        n: np.concatenate([getattr(p, n) for p in parts]) for n in _ROWS
    }
    labels = {name: np.concatenate([p.by[name] for p in parts]) for name in by}
    return Propensities(**table, by=labels)


def _moved(log: ClickLog) -> bool:
    """Whether any pair was shown at two ranks."""
    counted = cells(log)
    return bool(counted.by_pair(np.ones(len(counted.pair))).max() > 1)
