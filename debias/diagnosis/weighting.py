"""Effective sample size of clicks with weights of 1 / examination."""

from dataclasses import dataclass

import numpy as np

from debias.data import ClickLog
from debias.diagnosis.finding import Finding, Grade
from debias.diagnosis.identifiability import words
from debias.metrics import effective_sample_size
from debias.propensity.examination import Examination


@dataclass(frozen=True, eq=False)
class Weighting(Finding):
    """Effective sample size of clicks at K ranks with inverse examination weights.

    Attributes:
        position: (K,) int64 rank from 1.
        weight: (K,) float64 weight of a click at each rank, nan if examination is
            unknown.
        load: (K,) float64 share of each rank's clicks in the total weight.
        effective: Effective sample size of the weighted clicks, divided by the number
            of clicks.
        clicks: Number of clicks at ranks with known examination.
    """

    position: np.ndarray
    weight: np.ndarray
    load: np.ndarray
    effective: float
    clicks: int


def weighting(
    log: ClickLog, examination: Examination, clip: float = np.inf
) -> Weighting:
    """Weights each click by min(clip, 1 / examination of its rank).

    Args:
        log: The click log.
        examination: Estimate of examination from the log, as one curve.
        clip: The largest weight.

    Raises:
        ValueError: `clip` is below 1, the estimate and the log have different numbers
            of ranks, or no click is at a rank with known examination.

    >>> log = ClickLog([0, 0], [[1, 2], [2, 1]], [[1, 0], [0, 1]])
    >>> half = Examination(*np.array([[1, 2], [1, .5], *np.ones((4, 2))]), "by hand")
    >>> weighting(log, half).effective  # (1 + 2)^2 / (1 + 4) of 2 clicks
    0.9
    """
    if not clip >= 1:
        raise ValueError(f"clip must be at least 1, got {clip}")
    if len(examination) != log.list_size:
        raise ValueError(
            f"examination must have one curve of {log.list_size} ranks, "
            f"got {len(examination)} rows"
        )
    with np.errstate(divide="ignore"):
        weight = np.minimum(1 / examination.examination, clip)
    clicks = log.click.sum(axis=0)
    used = np.isfinite(weight) & (clicks > 0)
    every = np.repeat(weight[used], clicks[used])
    if not every.size:
        raise ValueError("log has no click at a rank whose examination is known")
    load = np.where(used, clicks * np.nan_to_num(weight), 0.0) / every.sum()
    effective = effective_sample_size(every) / every.size
    left_out = np.flatnonzero(~used & (clicks > 0)) + 1
    heaviest = int(np.argmax(np.where(used, weight, 0)))
    grade: Grade = "good" if effective > 0.5 else "caution"
    verdict = (
        f"With weights of 1 / examination, the effective sample is {effective:.0%} of "
        f"the clicks. The largest weight is {weight[heaviest]:.1f}, "
        f"at rank {heaviest + 1}."
    )
    step = "You can use weighted losses without clipping."
    if effective <= 0.5:
        step = "Clip the weights (10 is usual), or train a two-tower model."
    if left_out.size:
        grade = "bad"
        verdict += f" Clicks at rank {words(left_out)} cannot be weighted."
        step = "First connect these ranks; see the connectivity of the log."
    return Weighting(
        np.arange(1, log.list_size + 1),
        weight,
        load,
        effective,
        int(every.size),
        verdict=verdict,
        next_step=step,
        grade=grade,
    )
