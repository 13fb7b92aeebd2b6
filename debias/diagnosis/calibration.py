"""Do predicted click probabilities come true, rank by rank?"""

from dataclasses import dataclass

import numpy as np

from debias.data import ClickLog
from debias.diagnosis.crowd import chances, fit_mixture, happened_cells
from debias.diagnosis.finding import Finding, Grade
from debias.propensity.cells import cells

OFTEN = 30  # impressions of a pair that make its attraction known
FINE = 0.01  # an error of one click in a hundred impressions moves no decision


@dataclass(frozen=True, eq=False)
class Calibration(Finding):
    """Expected calibration error at each rank, on sessions not fitted. K ranks.

    Attributes:
        position: (K,) int64 rank from 1.
        error: (K,) float64, mean over impressions of |click rate - mean prediction| of
            their bin; nan where a rank shows nothing.
        lower, upper: (K,) float64 ends of its interval, freed of the part that chance
            adds, at least 0.
        chance: (K,) float64 what a perfectly calibrated model exceeds at no rank with
            chance `level`.
        predicted, observed: (K, B) float64 means of the bins, nan where one is empty.
        impressions: (K, B) int64.
        covered: Share of the impressions that are of pairs shown often enough.
    """

    position: np.ndarray
    error: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    chance: np.ndarray
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
    """Calibration by rank of the position-based model fitted to half of the sessions.

    ECE_k = sum_b n_b / n |click rate of bin b - mean prediction of b|, with bins of
    about equally many impressions of the other half. Chance makes it positive even
    where predictions are right: `chance` is drawn from the model's own probabilities,
    with the scatter of both halves; the interval is 2 ECE less the quantiles of
    resampled ones, the basic bootstrap. Pairs that the fitted half shows fewer than 30
    times are left out: what they are off by says how little is known of them, not how
    users read.

    Args:
        log: The click log.
        bins: How many a rank.
        level: Of the intervals, and of `chance` for all ranks together.
        replicates, seed: Of the resamples; halves come from the seed as well.

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
    rng = np.random.default_rng(seed)
    if log.sessions < 2:
        raise ValueError("log must hold at least two sessions")
    counted, order = cells(log), rng.permutation(log.sessions)
    assert counted.index is not None
    fitted, other = np.array_split(order, 2)
    happened = happened_cells(counted, log.click)
    model = fit_mixture(counted, happened[fitted], None, 1, rng)
    held, ranks = log.take(other), log.list_size
    p = np.append(chances(counted, model)[:, 0], 0.0)[counted.index[other]]
    often = np.asarray(happened[fitted].sum(axis=0)).reshape(2, -1).sum(axis=0)
    often = np.append(counted.by_pair(often) >= OFTEN, False)
    known = np.append(often[counted.pair], False)[counted.index[other]]
    impressions = np.zeros((ranks, bins), np.int64)
    predicted, observed, scatter = np.full((3, ranks, bins), np.nan)
    for k in range(ranks):
        shown = known[:, k]
        own, click = p[shown, k], held.click[shown, k]
        edges = np.quantile(own, np.linspace(0, 1, bins + 1)[1:-1]) if own.size else []
        at = np.searchsorted(edges, own, side="left")
        n = np.bincount(at, minlength=bins)
        impressions[k] = n
        with np.errstate(invalid="ignore"):
            predicted[k] = np.bincount(at, own, minlength=bins) / n
            observed[k] = np.bincount(at, click, minlength=bins) / n
            scatter[k] = np.sqrt(np.bincount(at, own * (1 - own), minlength=bins)) / n
    with np.errstate(invalid="ignore"):
        weight = impressions / impressions.sum(axis=1, keepdims=True)
    gap = np.nan_to_num(observed - predicted)
    noise = rng.normal(size=(replicates, ranks, bins)) * np.nan_to_num(scatter)

    def error(gap: np.ndarray) -> np.ndarray:
        return (weight * np.abs(gap)).sum(axis=-1)

    found, again = error(gap), error(gap + noise)
    # Predictions come from a half as large: they scatter as much as rates, at most.
    null = error(np.sqrt(2) * noise)
    tail = (1 - level) / 2
    low, high = np.quantile(again, [tail, 1 - tail], axis=0)
    chance = np.quantile(null, level ** (1 / ranks), axis=0)
    return Calibration(
        np.arange(1, ranks + 1),
        found,
        np.maximum(2 * found - high, 0),
        np.maximum(2 * found - low, 0),
        chance,
        predicted,
        observed,
        impressions,
        float(known.sum() / held.mask.sum()),
        **vars(_judge(found, chance)),
    )


def _judge(error: np.ndarray, chance: np.ndarray) -> Finding:
    grade: Grade = "good"
    if np.isnan(error).all():
        verdict = "Unknown: no item was shown often enough to hold predictions against."
        step = "Log longer, or more sessions of fewer queries."
        return Finding(verdict=verdict, next_step=step, grade="caution")
    wrong = np.nan_to_num(error) > np.nan_to_num(chance)
    worst = int(np.nanargmax(np.where(wrong, error, -1))) if wrong.any() else 0
    if wrong.any() and error[worst] > FINE:
        grade = "caution"
        verdict = (
            f"Miscalibrated: at rank {worst + 1} one position-based model is off by "
            f"{error[worst]:.3f} on average, where chance explains {chance[worst]:.3f}."
        )
        step = "Readers do not follow this model: see populations and neighbours."
    elif wrong.any():
        verdict = (
            f"Nearly calibrated: the model is off by at most {error[worst]:.3f}, more "
            "than chance but too little to matter."
        )
        step = "Its click probabilities may be used."
    else:
        verdict = "Calibrated: at no rank is the model off by more than chance."
        step = "Its click probabilities may be used."
    return Finding(verdict=verdict, next_step=step, grade=grade)
