"""Tests whether clicks on an item depend on its neighbours.

In a position-based model, clicks depend only on the item and its rank. There are two
tests. The first test needs no features: it compares the clicks on an item at one rank
between lists with more and with less attractive neighbours. The second test needs
features: it compares the held-out likelihood of models with and without attention
between positions (Zhuang et al., Cross-Positional Attention for Debiasing Clicks, WWW
2021).
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.stats import f as f_distribution
from scipy.stats import ncf

from debias.data import ClickLog, RankingData
from debias.data.scaling import scaled
from debias.diagnosis.finding import POWER, Finding
from debias.propensity import networks
from debias.propensity.cells import cells
from debias.propensity.click_models import PositionBased

BATCH = 256  # sessions per step
SIDES = ("above", "below")
# Change of the click rate per standard deviation of the neighbours. By the measured
# examination of Joachims et al. (SIGIR 2005), rank 2 instead of rank 1 costs as much.
# So a smaller effect misplaces an item by less than one rank.
MATTERS = 0.1

SEES = "Try `xpa`, a candidate of `debias train --model auto`: it reads neighbours."


@dataclass(frozen=True, eq=False)
class Neighbours(Finding):
    """Effect of the neighbours of an item on its clicks.

    Attributes:
        effect: (2,) float64 effect of the items above an item, and of the items below.
            The effect is the change of P(click), relative to the log's click rate, if
            the mean attraction of these items rises by one standard deviation. The
            standard deviation is computed within each (query, item) pair at one rank.
            The effect is nan if this mean attraction does not vary.
        error: (2,) float64 standard error of `effect`, assuming independent sessions.
        detectable: (2,) float64 smallest effect that the test detects with 80% power if
            the items on the other side have no effect. The smallest effect is
            sqrt(noncentrality / r) standard errors. Each half of the log gives an
            estimate of the neighbours' attraction; r is the correlation of the two
            estimates. `detectable` refers to a standard deviation of the attraction
            itself, not of its estimate.
        statistic: F statistic of all effects jointly; nan without effects. The
            numerator has as many degrees of freedom as there are effects. The
            denominator's degrees of freedom are the number of sessions whose neighbours
            vary, minus the number of effects.
        gain, gain_error: Gain in held-out log-likelihood from attention between
            positions, in nats per session, and the paired standard error of the gain.
            Both are nan without features.
    """

    effect: np.ndarray
    error: np.ndarray
    detectable: np.ndarray
    statistic: float
    gain: float
    gain_error: float


def neighbours(
    log: ClickLog,
    data: RankingData | None = None,
    level: float = 0.95,
    sessions: int = 20_000,
    epochs: int = 8,
    seed: int = 0,
) -> Neighbours:
    """Tests whether an item's clicks depend on its neighbours.

    A stratum is one (query, item) pair at one rank. Within strata, clicks are regressed
    on the mean attraction of the items above and the mean attraction of the items
    below. The attraction comes from a position-based model of the half of the log that
    does not include the session. Item and rank are constant within a stratum. So a
    wrong attraction of the item or a wrong bias of the rank cannot look like a
    neighbour effect.

    Args:
        log: The click log.
        data: Features of the log's items. If given, `XPA` is trained with and without
            attention.
        level: Confidence level; a false positive has a probability of at most 1 -
            `level`.
        sessions, epochs: Largest number of sessions and largest number of passes to
            train `XPA`.
        seed: Random seed of the split into halves and of the training.

    >>> log = ClickLog([0, 0], [[1, 2], [2, 1]], [[1, 0], [1, 0]])
    >>> neighbours(log).verdict
    'Unknown: the neighbours of an item at one rank do not vary.'
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1), got {level}")
    test = _tabular(log, level, seed)
    gain = gain_error = np.nan
    if data is not None:
        gain, gain_error = _attention(log, data, sessions, epochs, seed)
    return Neighbours(
        test.effect,
        test.error,
        test.detectable,
        test.statistic,
        gain,
        gain_error,
        **vars(_judge(test, gain, gain_error)),
    )


class _Test(NamedTuple):
    """Result of the regression on neighbours; `Neighbours` describes the fields."""

    effect: np.ndarray
    error: np.ndarray
    detectable: np.ndarray
    statistic: float
    critical: float


_NONE = np.full(2, np.nan)
_NOTHING = _Test(_NONE, _NONE, _NONE, np.nan, np.nan)


def _judge(test: _Test, gain: float, gain_error: float) -> Finding:
    attends = gain > 1.96 * gain_error
    found = _judge_strata(test)
    verdict, step, grade = found.verdict, found.next_step, found.grade
    if attends:
        grade = "caution"
        step = SEES
    if np.isfinite(gain):
        word = "gains" if attends else "does not gain"
        if attends and found.grade == "good":
            verdict = (
                "The mean attraction of the items above and below shows no effect, but "
                "clicks depend on other items in another way."
            )
        verdict += (
            f" Attention between positions {word} on held-out clicks, over the same "
            f"model without attention ({gain:+.4f} ± {1.96 * gain_error:.4f} nats per "
            "session)."
        )
    return Finding(verdict=verdict, next_step=step, grade=grade)


def _judge_strata(test: _Test) -> Finding:
    """The verdict of the first test, which compares clicks within strata."""
    if np.isnan(test.effect).all():
        verdict = "Unknown: the neighbours of an item at one rank do not vary."
        step = "Log some sessions with other neighbours, such as by random swaps."
        return Finding(verdict=verdict, next_step=step, grade="unknown")
    if test.statistic > test.critical:
        side = int(np.nanargmax(np.abs(test.effect) / test.error))
        way = "more" if test.effect[side] > 0 else "less"
        effect = (
            f"an item is clicked {abs(test.effect[side]):.1%} {way} often when the "
            f"items {SIDES[side]} it are more attractive by one standard deviation."
        )
        if np.nanmax(np.abs(test.effect) + 1.96 * test.error) < MATTERS:
            verdict = (
                f"A neighbour effect, but below the {MATTERS:.0%} that matter: {effect}"
            )
            step = "A model that reads each item alone is enough."
            return Finding(verdict=verdict, next_step=step, grade="good")
        verdict = f"Neighbours matter: {effect}"
        step = SEES
        return Finding(verdict=verdict, next_step=step, grade="caution")
    worst = float(np.nanmax(test.detectable))
    if not worst <= MATTERS:
        size = f"below {worst:.1%}" if np.isfinite(worst) else "of any size"
        verdict = (
            f"Unknown: this log cannot show an effect of the neighbours {size} of the "
            f"click rate, and {MATTERS:.0%} matters."
        )
        step = "Log for longer, or exchange items at random in more sessions."
        return Finding(verdict=verdict, next_step=step, grade="unknown")
    verdict = (
        "No neighbour effect found: clicks follow the item and its rank. A change of "
        f"the click rate by {worst:.1%} would have been found (80% power)."
    )
    step = "A model that reads each item alone is enough."
    return Finding(verdict=verdict, next_step=step, grade="good")


def _tabular(log: ClickLog, level: float, seed: int) -> _Test:
    """Regresses clicks on the attraction of the neighbours, within strata."""
    if log.sessions < 4 or not log.click.any():
        return _NOTHING
    order = np.random.default_rng(seed).permutation(log.sessions)
    halves = [log.take(half) for half in np.array_split(order, 2)]
    fitted = [PositionBased.fit(half) for half in halves]
    parts = [_strata(halves[i], fitted[1 - i], fitted[i]) for i in (0, 1)]
    x, again, rest, grow = (
        np.concatenate([part[i] for part in parts]) for i in range(4)
    )
    power = np.einsum("slf,slf->f", x, x)
    varies = power > 1e-9
    if not varies.any():
        return _NOTHING
    # Agreement of two halves of the log on the neighbours' attraction. Noise in it
    # hides an effect of the attraction itself.
    both = np.einsum("slf,slf->f", x, again)
    size = power * np.einsum("slf,slf->f", again, again)
    agreed = np.maximum(both, 0) / np.sqrt(np.maximum(size, 1e-300))
    # Least squares. A session is one observation, because its clicks may be dependent.
    x = x[:, :, varies]
    bread = np.linalg.pinv(np.einsum("slf,slg->fg", x, x), hermitian=True)
    slope = bread @ np.einsum("slf,sl->f", x, rest)
    each = np.einsum("slf,sl->sf", x, grow * (rest - x @ slope))
    covariance = bread @ (each.T @ each) @ bread
    # In units of the click rate, per standard deviation of the neighbours.
    varied = (x != 0).any(axis=2).sum()
    scale = np.sqrt(power[varies] / varied) / log.click[log.mask].mean()
    free = int(varies.sum())
    left = int((x != 0).any(axis=(1, 2)).sum()) - free
    critical = reach = np.inf
    if left > 0:
        critical = float(f_distribution.ppf(level, free, left))
        reach = np.sqrt(noncentrality(critical, free, left))
    effect, error, detectable = np.full((3, 2), np.nan)
    effect[varies] = slope * scale
    error[varies] = np.sqrt(np.diag(covariance)) * scale
    # Without a residual, or without agreement, no effect can be known.
    known = varies & (agreed > 0) & (error > 1e-12)
    detectable[varies] = np.inf
    detectable[known] = reach * error[known] / np.sqrt(agreed[known])
    precision = np.linalg.pinv(covariance, hermitian=True)
    statistic = float(slope @ precision @ slope) / free
    return _Test(effect, error, detectable, statistic, critical)


def noncentrality(critical: float, free: int, left: int) -> float:
    """The noncentrality at which an F test exceeds `critical` with 80% power.

    Args:
        critical: Critical value of the F distribution with `free` and `left` degrees of
            freedom.
        free, left: Degrees of freedom of the effects and of the residuals.

    >>> round(noncentrality(3.84146, 1, 10**7) ** 0.5, 2)  # 1.96 + .84
    2.8
    """
    high = 1.0
    while ncf.sf(critical, free, left, high) < POWER:
        high *= 2
    return float(
        brentq(lambda x: ncf.sf(critical, free, left, x) - POWER, 1e-9, high, rtol=1e-6)
    )


def _strata(
    log: ClickLog, other: PositionBased, own: PositionBased
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Neighbours' attraction (S, L, 2) and clicks (S, L), minus their stratum's mean.

    Args:
        log: Half of the sessions.
        other: Model fitted to the other half; its attractions are the first result.
        own: Model fitted to this half; its attractions are the second result.

    Returns:
        Both attractions, the clicks, and (S, L) sqrt(n / (n - 1)) for a stratum of n,
        because subtracting the mean of the stratum shrinks residuals by this factor.
    """
    mask = log.mask
    above = np.cumsum(mask, axis=1) - mask
    below = mask.sum(axis=1, keepdims=True) - above - mask
    counted = cells(log)
    assert counted.index is not None
    cell, size = counted.index[mask], len(counted.rank)

    def centred(value: np.ndarray) -> np.ndarray:
        mean = np.bincount(cell, value[mask], minlength=size) / counted.shown
        out = np.zeros(mask.shape)
        out[mask] = value[mask] - mean[cell]
        return out

    grow = np.zeros(mask.shape)
    grow[mask] = np.sqrt(counted.shown / np.maximum(counted.shown - 1, 1))[cell]

    def neighbours(fitted: PositionBased) -> np.ndarray:
        attraction = fitted.gather("attraction", log) * mask
        before = np.cumsum(attraction, axis=1) - attraction
        after = attraction.sum(axis=1, keepdims=True) - before - attraction
        around = before / np.maximum(above, 1), after / np.maximum(below, 1)
        x = np.stack([centred(each) for each in around], axis=2)
        x[np.abs(x) < 1e-12] = 0.0  # rounding errors of constant columns
        return x

    return neighbours(other), neighbours(own), centred(log.click.astype(float)), grow


def _attention(
    log: ClickLog, data: RankingData, sessions: int, epochs: int, seed: int
) -> tuple[float, float]:
    """Held-out gain of attention in `XPA`, in nats per session, and its error.

    The two models differ only in whether a position reads the other positions. So the
    gain comes from neighbours, not from another combination of relevance and bias.
    """
    rng = np.random.default_rng(seed)
    if log.sessions > sessions:
        log = log.take(rng.choice(log.sessions, sessions, replace=False))
    if log.sessions < 10:
        raise ValueError(f"log must hold at least 10 sessions, got {log.sessions}")
    log.check(data.items)
    log, item = log.renumbered()
    features = scaled(data.features[item])
    train, stop, test = log.split((0.6, 0.1, 0.3), rng)
    size = features.shape[1], log.list_size
    scores = []
    for heard in ((), networks.HEARD):
        begin, order = (np.random.default_rng([seed, stage]) for stage in (1, 2))
        weights = networks.fitted(
            networks.attentive,
            networks.attentive_weights(*size, begin, heard),
            features,
            train,
            stop,
            batch=BATCH,
            epochs=epochs,
            rate=0.005,
            patience=1,
            rng=order,
        )
        found = networks.log_likelihoods(networks.attentive, weights, features, test)
        scores.append(found)
    gain = scores[1] - scores[0]
    return float(gain.mean()), float(gain.std(ddof=1) / np.sqrt(len(gain)))
