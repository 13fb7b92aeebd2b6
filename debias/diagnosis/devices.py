"""Comparison of examination between devices."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.stats import norm

from debias.diagnosis.finding import Finding, detectable
from debias.propensity.examination import Examination

# Relevant ratio between the examination of two devices. If one curve served both, the
# weights 1 / examination of one device would be off by half.
MATTERS = 1.5


def label(code: int, names: Mapping[int, str], column: str = "device") -> str:
    """Name of a device, or of another context.

    >>> label(2, {2: "phone"}), label(3, {}), label(0, {}), label(0, {}, "badge")
    ('phone', 'device 3', 'device unknown', 'no badge')
    """
    if not code and column != "device":
        return f"no {column}"
    return names.get(code, f"{column} {code}" if code else "device unknown")


@dataclass(frozen=True, eq=False)
class Devices(Finding):
    """Comparison of examination between all N pairs of devices, at K ranks.

    Attributes:
        pair: (N, 2) int64 codes of the two devices of each pair.
        log_ratio: (N, K) float64 log(examination on the second device / examination on
            the first device).
        error: (N, K) float64 standard error of the log ratio; NaN if either curve has
            no interval at the rank.
        differ: (N, K) bool, whether examination differs significantly, after correction
            for multiple tests.
        detectable: Smallest ratio of examination that the test detects with 80% power
            at every rank and for every pair. Infinite if no pair can be compared.
    """

    pair: np.ndarray
    log_ratio: np.ndarray
    error: np.ndarray
    differ: np.ndarray
    detectable: float


def devices(
    by_device: Examination,
    names: Mapping[int, str] | None = None,
    level: float = 0.95,
    column: str = "device",
) -> Devices:
    """Compares the examination curves of the devices rank by rank.

    The test statistic is z = (log e_1 - log e_2) / sqrt(s_1^2 + s_2^2), where e is the
    examination on a device, and s the standard error of log e. Critical values are
    corrected for all ranks and pairs of devices (Bonferroni).

    Args:
        by_device: Examination curves with intervals, from `estimate(log, method,
            by="device")`.
        names: Names of devices by code.
        level: Confidence level. The probability of any false positive is at most 1 -
            `level`.
        column: Name of the column whose values are compared, for the verdict.

    Raises:
        ValueError: There are fewer than two devices, or `level` is not in (0, 1).

    >>> ranks, n = np.array([1, 2]), np.array([100, 100])
    >>> def curve(second, error):
    ...     ends = [np.array([1.0, second * np.exp(s * error)]) for s in (-2, 2)]
    ...     e = np.array([1.0, second])
    ...     return Examination(ranks, e, e * [0.0, error], *ends, n, "pivot")
    >>> both = Examination.stack({1: curve(0.8, 0.05), 2: curve(0.4, 0.05)})
    >>> devices(both, {1: "phone", 2: "laptop"}).verdict
    'Devices differ: at rank 2, items are examined 2.00 times as often with phone as \
with laptop.'
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1), got {level}")
    curves = by_device.curves()
    if len(curves) < 2:
        raise ValueError(f"by_device must have at least two devices, got {len(curves)}")
    logs, errors = [], []
    with np.errstate(divide="ignore", invalid="ignore"):
        for each in curves.values():
            logs.append(np.log(each.examination))
            errors.append(each.standard_error / each.examination)
    pair = np.array(list(combinations(range(len(curves)), 2)))
    one, other = pair.T
    log_ratio = np.array(logs)[other] - np.array(logs)[one]
    error = np.hypot(np.array(errors)[other], np.array(errors)[one])
    compared = np.isfinite(log_ratio) & (error > 0)  # rank 1 is 1 for all
    critical = float(norm.ppf(1 - (1 - level) / 2 / max(1, compared.sum())))
    differ = compared & (np.abs(log_ratio) > critical * np.where(compared, error, 1))
    reach = np.inf
    if compared.any():
        reach = float(np.exp(detectable(error[compared].max(), critical)))
    codes = np.array(list(curves))
    labels = [label(int(code), names or {}, column) for code in codes]
    return Devices(
        codes[pair],
        log_ratio,
        error,
        differ,
        reach,
        **vars(_judge(pair, np.where(differ, log_ratio, 0.0), labels, reach, column)),
    )


def _judge(
    pair: np.ndarray,
    log_ratio: np.ndarray,
    labels: list[str],
    reach: float,
    column: str,
) -> Finding:
    """The verdict on log ratios; a ratio that is not significant must be 0."""
    if log_ratio.any():
        at, k = np.unravel_index(np.argmax(np.abs(log_ratio)), log_ratio.shape)
        more, less = pair[at] if log_ratio[at, k] < 0 else pair[at][::-1]
        verdict = (
            f"{column.capitalize()}s differ: at rank {k + 1}, items are examined "
            f"{np.exp(np.abs(log_ratio[at, k])):.2f} times as often with "
            f"{labels[more]} as with {labels[less]}."
        )
        step = f"Train with the column of {column}s: the bias tower reads it."
        return Finding(verdict=verdict, next_step=step, grade="caution")
    if not reach <= MATTERS:
        size = f"below {reach:.1f}" if np.isfinite(reach) else "of any size"
        verdict = (
            f"Unknown: this log cannot show a ratio {size} between the examination of "
            f"two {column}s, and a ratio of {MATTERS} matters."
        )
        step = f"Log for longer. Until then, let the bias tower read the {column}."
        return Finding(verdict=verdict, next_step=step, grade="unknown")
    verdict = (
        f"{column.capitalize()}s do not differ: their curves agree at every rank, and "
        f"a ratio of {reach:.2f} would have been found (80% power)."
    )
    step = f"One curve is enough for all {column}s."
    return Finding(verdict=verdict, next_step=step, grade="good")
