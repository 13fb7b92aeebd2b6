"""Tests whether a presentation column, such as a badge, changes examination."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from debias.data import ClickLog
from debias.diagnosis.devices import MATTERS, devices
from debias.diagnosis.finding import Finding, detectable
from debias.propensity import Propensities, estimate, propensities
from debias.propensity.examination import Examination
from debias.propensity.places import absent_label

BEST = "pbm_conditional"


@dataclass(frozen=True, eq=False)
class Presented(Finding):
    """Comparison of V labels of a column with its most frequent label.

    Attributes:
        labels: (V,) all labels except the most frequent label.
        usual: The most frequent label.
        ratio: (V,) float64 examination with each label, divided by examination with the
            most frequent label at the same rank. The ratio is exp of the mean log ratio
            over ranks, weighted by precision.
        error: (V,) float64 standard error of the log of `ratio`.
        curves: Examination by rank for each label, relative to rank 1 with the most
            frequent label.
    """

    labels: tuple[str, ...]
    usual: str
    ratio: np.ndarray
    error: np.ndarray
    curves: dict[str, Examination]


def presented(
    log: ClickLog, name: str, labels: Sequence[str] = (), level: float = 0.95
) -> Finding:
    """Estimates the effect of a presentation column on examination.

    If the column has one value per cell, a position-based model has a separate
    examination for each combination of rank and label. All labels share the attraction
    of the items. The test statistic is the mean log ratio divided by its standard
    error. Critical values are Bonferroni-corrected for the number of labels. If the
    column has one value per session, `debias.diagnosis.devices.devices` compares the
    curves of the labels.

    Args:
        log: A log whose `presentation` has the column.
        name: Name of the column.
        labels: Labels of the codes 1, 2 and so on.
        level: Confidence level; a false positive has a probability of at most 1 -
            `level`.

    Raises:
        KeyError: The log has no presentation column `name`.
        ValueError: The column has only one label. Or the column has one value per
            session, and a label has no click at rank 1.
    """
    codes = (log.presentation or {})[name]
    words = {code: text for code, text in enumerate(labels, start=1)}
    if codes.ndim == 1:
        return devices(estimate(log, BEST, by=name), words, level, name)
    found = propensities(log, BEST, by=[name], names={name: labels} if labels else None)
    curves = _curves(found, name, level)
    absent = absent_label(name, labels) if labels else "0"
    curves = {f"no {name}" if n == absent else n: each for n, each in curves.items()}
    usual, others = next(iter(curves)), list(curves)[1:]
    if not others:
        raise ValueError(
            f"{name} has only the label {usual}: there is nothing to compare"
        )
    pooled = [_pooled(curves[usual], curves[other]) for other in others]
    log_ratio, error = np.array(pooled).T
    return Presented(
        labels=tuple(others),
        usual=usual,
        ratio=np.exp(log_ratio),
        error=error,
        curves=curves,
        **vars(_judge(name, usual, others, log_ratio, error, level)),
    )


def _curves(found: Propensities, name: str, level: float) -> dict[str, Examination]:
    """One curve per label over ranks 1 to K; the most frequent label is first."""
    label = found.by[name]
    usual = label[found.verdict == "reference"]
    order = sorted(np.unique(label).tolist(), key=lambda v: (v not in usual, v))
    size = int(found.rank.max())
    curves = {}
    for each in order:
        here = label == each
        at = found.rank[here] - 1
        columns = [np.full(size, np.nan) for _ in range(4)] + [np.zeros(size, int)]
        fields = ("examination", "standard_error", "low", "high", "n")
        for column, field in zip(columns, fields, strict=True):
            column[at] = getattr(found, field)[here]
        theta, error, low, high, n = columns
        rank = np.arange(1, size + 1)
        curves[each] = Examination(rank, theta, error, low, high, n, BEST, level=level)
    return curves


def _pooled(usual: Examination, other: Examination) -> tuple[float, float]:
    """Mean log ratio over ranks, weighted by precision, and its standard error."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.log(other.examination) - np.log(usual.examination)
        errors = [each.standard_error / each.examination for each in (usual, other)]
    error = np.hypot(*errors)
    known = np.isfinite(ratio) & np.isfinite(error) & (error > 0)
    if not known.any():
        return np.nan, np.inf
    weight = error[known] ** -2
    return float(ratio[known] @ weight / weight.sum()), float(weight.sum() ** -0.5)


def _judge(
    name: str,
    usual: str,
    others: Sequence[str],
    log_ratio: np.ndarray,
    error: np.ndarray,
    level: float,
) -> Finding:
    critical = float(norm.ppf(1 - (1 - level) / 2 / len(others)))
    size = np.where(np.isfinite(log_ratio), np.abs(log_ratio), 0.0)
    differ = size > critical * error
    if differ.any():
        at = int(np.argmax(np.where(differ, size, -1)))
        verdict = (
            f"{name} matters: at the same rank, an item with {others[at]} is examined "
            f"{np.exp(log_ratio[at]):.2f} times as often as with {usual}."
        )
        step = f"Use it: train with -c presentation={name}, which bias towers read."
        return Finding(verdict=verdict, next_step=step, grade="caution")
    reach = float(np.exp(detectable(error.max(), critical)))
    if not reach <= MATTERS:
        much = f"below {reach:.1f}" if np.isfinite(reach) else "of any size"
        verdict = (
            f"Unknown: this log cannot show a ratio {much} between the examination of "
            f"two labels of {name}, and a ratio of {MATTERS} matters."
        )
        step = "Show the same items with and without it, or log for longer."
        return Finding(verdict=verdict, next_step=step, grade="unknown")
    verdict = (
        f"{name} does not matter: examination is the same for all its labels, and a "
        f"ratio of {reach:.2f} would have been found (80% power)."
    )
    return Finding(
        verdict=verdict, next_step="It can be left out of training.", grade="good"
    )
