"""Do clicks on an item depend on what stands around it?

A position-based reader minds an item and its rank alone. Two answers: from counts, by
comparing an item with itself at the same rank under more and less attractive
neighbours; and, where items have features, by the held-out clicks of a model with
attention between positions (Zhuang et al., Cross-Positional Attention for Debiasing
Clicks, WWW 2021) against one without.
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2

from debias.data import ClickLog, RankingData
from debias.diagnosis.finding import Finding, Grade
from debias.propensity.cells import cells
from debias.propensity.click_models import PBM

SIDES = ("above", "below")


@dataclass(frozen=True, eq=False)
class Neighbours(Finding):
    """What the neighbours of an item do to its clicks.

    Attributes:
        effect: (2,) float64 change of P(click), over the log's click rate, when the
            mean attraction of the items above, and below, rises by a standard
            deviation of what it varies by around the same item at the same rank; nan
            where it does not vary.
        error: (2,) float64 standard error, sessions independent.
        statistic: To be held against chi-squared with as many degrees of freedom as
            effects; nan where there are none.
        gain, gain_error: Held-out log-likelihood that attention between positions adds,
            nats a session, and its paired standard error; nan without features.
    """

    effect: np.ndarray
    error: np.ndarray
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

    Within a stratum of one pair at one rank, clicks are regressed on the mean
    attraction of the items above and of those below, each estimated by a position-based
    model on the other half of the sessions. Neither a wrong model of the item nor of
    its rank can pass for an effect, since both are the same within a stratum.

    Args:
        log: The click log.
        data: Its ranking data; with it, `XPA` is trained against `Additive` as well.
        level: Chance that no effect is claimed where there is none.
        sessions, epochs: Most sessions, and passes over them, of that training.
        seed: Of halves and training.

    >>> log = ClickLog([0, 0], [[1, 2], [2, 1]], [[1, 0], [1, 0]])
    >>> neighbours(log).verdict
    'Unknown: the neighbours of an item at one rank do not vary.'
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1), got {level}")
    effect, error, statistic = _tabular(log, seed)
    gain = gain_error = np.nan
    if data is not None:
        gain, gain_error = _attention(log, data, sessions, epochs, seed)
    told = np.isfinite(effect)
    critical = chi2.ppf(level, max(1, told.sum()))
    return Neighbours(
        effect,
        error,
        statistic,
        gain,
        gain_error,
        **vars(_judge(effect, error, statistic > critical, gain, gain_error)),
    )


def _judge(
    effect: np.ndarray,
    error: np.ndarray,
    significant: bool,
    gain: float,
    gain_error: float,
) -> Finding:
    grade: Grade = "good"
    attends = gain > 1.96 * gain_error
    if significant:
        grade = "caution"
        side = int(np.nanargmax(np.abs(effect) / error))
        way = "more" if effect[side] > 0 else "less"
        verdict = (
            f"Neighbours matter: an item is clicked {abs(effect[side]):.1%} {way} "
            f"often when the items {SIDES[side]} it are more attractive by one "
            "standard deviation."
        )
        step = "Compare a model with attention between positions on held-out clicks."
    elif np.isnan(effect).all():
        grade = "caution"
        verdict = "Unknown: the neighbours of an item at one rank do not vary."
        step = "Log some sessions with other items around, such as random swaps."
    else:
        verdict = "No neighbour effect found: clicks follow the item and its rank."
        step = "A model of each item by itself is enough."
    if attends:
        grade = "caution"
        step = "Train with attention between positions: debias.models.XPA."
    if np.isfinite(gain):
        word = "gains" if attends else "does not gain"
        verdict += (
            f" Attention between positions {word} on held-out clicks "
            f"({gain:+.4f} ± {1.96 * gain_error:.4f} nats a session)."
        )
    return Finding(verdict=verdict, next_step=step, grade=grade)


def _tabular(log: ClickLog, seed: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Relative effects (2,), their errors, and the statistic of all together."""
    unknown = np.full(2, np.nan)
    if log.sessions < 4 or not log.click.any():
        return unknown, unknown, np.nan
    order = np.random.default_rng(seed).permutation(log.sessions)
    halves = np.array_split(order, 2)
    parts = [
        _strata(log.take(halves[i]), PBM.fit(log.take(halves[1 - i]))) for i in (0, 1)
    ]
    x, rest, grow = (np.concatenate([part[i] for part in parts]) for i in range(3))
    power = np.einsum("slf,slf->f", x, x)
    told = power > 1e-9
    if not told.any():
        return unknown, unknown, np.nan
    x = x[:, :, told]
    bread = np.linalg.pinv(np.einsum("slf,slg->fg", x, x), hermitian=True)
    slope = bread @ np.einsum("slf,sl->f", x, rest)
    # A session is one observation: its clicks may depend on each other.
    each = np.einsum("slf,sl->sf", x, grow * (rest - x @ slope))
    covariance = bread @ (each.T @ each) @ bread
    statistic = float(slope @ np.linalg.pinv(covariance, hermitian=True) @ slope)
    varied = (x != 0).any(axis=2).sum()
    scale = np.sqrt(power[told] / varied) / log.click[log.mask].mean()
    effect, error = unknown.copy(), unknown.copy()
    effect[told] = slope * scale
    error[told] = np.sqrt(np.diag(covariance)) * scale
    return effect, error, statistic


def _strata(log: ClickLog, fitted: PBM) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Neighbours' attraction (S, L, 2) and clicks (S, L) around their strata's means.

    Third (S, L), sqrt(n / (n - 1)) of a stratum of n: what is left of a click once its
    mean is taken out of it is smaller by that.
    """
    mask = log.mask
    attraction = fitted.gather("attraction", log) * mask
    before = np.cumsum(attraction, axis=1) - attraction
    after = attraction.sum(axis=1, keepdims=True) - before - attraction
    above = np.cumsum(mask, axis=1) - mask
    below = mask.sum(axis=1, keepdims=True) - above - mask
    around = np.stack(
        [before / np.maximum(above, 1), after / np.maximum(below, 1)], axis=2
    )
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
    x = np.stack([centred(around[:, :, side]) for side in (0, 1)], axis=2)
    x[np.abs(x) < 1e-12] = 0.0  # rounding of what does not vary
    return x, centred(log.click.astype(float)), grow


def _attention(
    log: ClickLog, data: RankingData, sessions: int, epochs: int, seed: int
) -> tuple[float, float]:
    """Held-out gain of `XPA` over `Additive`, nats a session, and its error."""
    import keras

    from debias.layers import BiasTower, Tower
    from debias.models import XPA, Additive, ClickModel
    from debias.models.batches import batches
    from debias.training import session_log_likelihoods, shown_only, standardized

    rng = np.random.default_rng(seed)
    if log.sessions > sessions:
        log = log.take(rng.choice(log.sessions, sessions, replace=False))
    if log.sessions < 10:
        raise ValueError(f"log must hold at least 10 sessions, got {log.sessions}")
    log, features = shown_only(log, data)
    _, scaled = standardized(features)
    train, stop, test = log.split((0.6, 0.1, 0.3), rng)
    places = {"position": log.list_size}
    models: tuple[ClickModel, ...] = (
        Additive(Tower((32,), seed=seed), BiasTower(places, seed=seed)),
        XPA(
            Tower((32,), out=8, seed=seed),
            BiasTower(places, out=8, init_std=0.5, seed=seed),
            seed=seed,
        ),
    )
    scores = []
    for model in models:
        model.compile(keras.optimizers.Adam(0.005))
        model.fit(
            batches(train, scaled, 256, seed=seed),
            validation_data=batches(stop, scaled, 4096, shuffle=False),
            epochs=epochs,
            callbacks=[
                keras.callbacks.EarlyStopping(patience=1, restore_best_weights=True)
            ],
            verbose=0,
        )
        scores.append(session_log_likelihoods(model, test, scaled).astype(float))
    gain = scores[1] - scores[0]
    return float(gain.mean()), float(gain.std(ddof=1) / np.sqrt(len(gain)))
