"""Tests whether one population of users explains the clicks.

In one population, the clicks of a session are independent given the items. In a mixture
they depend on each other, because a click tells which kind of user reads. Mixtures of K
position-based models,

    P(session) = sum_m share_m prod_l P(click_l | theta_mk gamma_mi),

are fitted by EM to some sessions and compared on the others. A component can represent
users who read by position, who click by rank (gamma equal for all items), or who read
everything (theta equal at all ranks): the users of Yan et al., Revisiting Two-tower
Models for Unbiased Learning to Rank, SIGIR 2022.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy import sparse
from scipy.special import logsumexp
from scipy.stats import t as student

from debias.data import ClickLog
from debias.diagnosis.finding import Finding, detectable
from debias.propensity.cells import Cells, cells
from debias.propensity.click_models import DynamicBayesian, UserBrowsing
from debias.propensity.pbm_maximum import TINY, accelerated

PULL = 20.0  # impressions that a component's attraction of a pair is pulled by
EDGE = 1e-6  # probabilities stay this far from 0 and 1
# Ratio of the click rates of two populations that a test must be able to show. The
# kinds of user of simulated populations that a mixture ranks better for differ by four
# (Yan et al.) to ten.
MATTERS = 10.0
ENOUGH = 100  # held-out sessions, below which their mean gain is far from normal


@dataclass(frozen=True, eq=False)
class Populations(Finding):
    """Comparison of K populations with one on held-out sessions.

    Attributes:
        count: (N,) int64 numbers of populations K, from 1.
        gain: (N,) float64 held-out log-likelihood minus that of one population, in nats
            per session.
        error: (N,) float64 standard error of `gain`, paired by session.
        chosen: The smallest number within a standard error of the best; 1 unless the
            gain is significant.
        share: (chosen,) float64 shares of the populations.
        examination: (chosen, L) float64, each divided by its largest value.
        earlier: Gain of the better of the user browsing model and the dynamic Bayesian
            network, which explain dependence on the clicks above with one population.
        over_earlier, over_earlier_error: Gain of the chosen number over these, with its
            paired standard error.
        sessions: Number of held-out sessions.
        planted, planted_error: Held-out gain of two populations over one on simulated
            clicks, and its standard error. The clicks are drawn on the lists of the
            log, and one half of the sessions clicks ten times as often as the other.
            nan unless one population is chosen.
    """

    count: np.ndarray
    gain: np.ndarray
    error: np.ndarray
    chosen: int
    share: np.ndarray
    examination: np.ndarray
    earlier: float
    over_earlier: float
    over_earlier_error: float
    sessions: int
    planted: float
    planted_error: float


class Mixture(NamedTuple):
    """M components: attraction (M, P), examination (M, L), shares (M,)."""

    gamma: np.ndarray
    theta: np.ndarray
    share: np.ndarray


def populations(
    log: ClickLog, max_populations: int = 4, held_out: float = 0.2, seed: int = 0
) -> Populations:
    """Compares mixtures of 1 to `max_populations` populations on held-out sessions.

    If more than one population gains nothing, the power of the test is measured. Clicks
    of two populations, of which one clicks ten times as often as the other, are drawn
    on the same lists, and the comparison is repeated. If it does not detect these
    populations either, the verdict is "unknown".

    A component's attraction of a pair is shrunk towards that of one population by 20
    impressions, and that in turn towards the mean of all pairs. So pairs with few
    impressions do not create spurious populations. They do not distinguish real
    populations either: a log with few impressions per pair may have several without
    showing it. A gain means that the clicks of a session depend on each other, or that
    one product does not describe them. A user who stops after a click has the same
    effect. Therefore the mixtures are also compared with models of one population in
    which clicks depend on the clicks above.

    Args:
        log: The click log.
        max_populations: The largest K.
        held_out: Share of sessions to hold out for the comparison.
        seed: Random seed of the split and of the starts of EM.

    Raises:
        ValueError: `max_populations` is below 1, or there are fewer than two sessions.
    """
    if max_populations < 1:
        raise ValueError(f"max_populations must be at least 1, got {max_populations}")
    rng = np.random.default_rng(seed)
    order = rng.permutation(log.sessions)
    size = int(held_out * log.sessions)
    if not 0 < size < log.sessions:
        raise ValueError(
            f"held_out {held_out} of {log.sessions} sessions parts nothing"
        )
    # Sessions of a query share cells: next to each other, these stay in the cache.
    test, train = (
        part[np.argsort(log.query[part], kind="stable")]
        for part in (np.sort(order[:size]), np.sort(order[size:]))
    )
    counted = cells(log)
    happened = happened_cells(counted, log.click)
    mixtures = [fit_one(tally(counted, happened[train]))]
    for count in range(2, max_populations + 1):
        mixtures.append(fit_mixture(counted, happened[train], mixtures[0], count, rng))
    likelihood = np.array([_likelihood(counted, happened[test], m) for m in mixtures])
    gain, error = _paired(likelihood - likelihood[0])
    chosen = _choose(gain, error, likelihood)
    seen, held = log.take(train), log.take(test)
    models = UserBrowsing.fit(seen, with_errors=False), DynamicBayesian.fit(seen)
    chains = [model.log_probability(held).sum(axis=1) for model in models]
    chain = max(chains, key=np.mean)
    earlier = float((chain - likelihood[0]).mean())
    over, over_error = (
        float(v[0]) for v in _paired((likelihood[chosen - 1] - chain)[None])
    )
    best = mixtures[chosen - 1]
    order = np.argsort(-best.share)
    share = best.share[order]
    if chosen == 1:
        planted, planted_error = _planted_gain(counted, mixtures[0], train, size, rng)
        verdict = _judge_one(planted, planted_error, _critical(max_populations, size))
    else:
        planted = planted_error = np.nan
        gained = gain[chosen - 1], error[chosen - 1]
        verdict = _judge_several(gained, share, over, over_error)
    return Populations(
        np.arange(1, max_populations + 1),
        gain,
        error,
        chosen,
        share,
        (best.theta / best.theta.max(axis=1, keepdims=True))[order],
        earlier,
        over,
        over_error,
        size,
        planted,
        planted_error,
        **vars(verdict),
    )


def _planted_gain(
    counted: Cells,
    one: Mixture,
    train: np.ndarray,
    size: int,
    rng: np.random.Generator,
) -> tuple[float, float]:
    """Held-out gain of two populations where there are two, and its standard error.

    One half of the sessions clicks ten times as often as the other, both together as
    often as the log: with p of one population, P = min(20 p / 11, (1 + p) / 2) and
    2 p - P. Both mixtures are fitted to the sessions `train` of clicks so drawn.
    The gain is averaged over all lists, each with clicks drawn anew, so that it is
    known better than from `size` held-out sessions, whose error is returned.
    """
    index = counted.index
    assert index is not None
    p = chances(counted, one)[0]
    often = np.minimum(2 * MATTERS / (1 + MATTERS) * p, (1 + p) / 2)
    kinds = np.zeros((2, len(p) + 1))  # the last cell is padding
    kinds[:, :-1] = often, 2 * p - often

    def happened() -> sparse.csr_array:
        kind = rng.integers(2, size=(len(index), 1))
        drawn = rng.random(index.shape) < kinds[kind, index]
        return happened_cells(counted, drawn)

    fitted, other = happened()[train], happened()
    first = fit_one(tally(counted, fitted))
    second = fit_mixture(counted, fitted, first, 2, rng)
    gain = _likelihood(counted, other, second) - _likelihood(counted, other, first)
    return float(gain.mean()), float(gain.std(ddof=1) / np.sqrt(size))


def _paired(difference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means over sessions and their standard errors, of (N, S)."""
    several = difference.shape[1] > 1
    scatter = (
        difference.std(axis=1, ddof=1) if several else np.full(len(difference), np.inf)
    )
    return difference.mean(axis=1), scatter / np.sqrt(difference.shape[1])


def _critical(counts: int, size: int) -> float:
    """Standard errors that a gain must exceed: one-sided 5%, all counts together."""
    if size < ENOUGH:
        return np.inf
    return float(student.ppf(1 - 0.05 / max(1, counts - 1), max(1, size - 1)))


def _choose(gain: np.ndarray, error: np.ndarray, likelihood: np.ndarray) -> int:
    size = likelihood.shape[1]
    critical = _critical(len(gain), size)
    if size < ENOUGH or not (gain[1:] > critical * error[1:]).any():
        return 1
    best = int(np.argmax(gain))
    short, scatter = _paired(likelihood[best] - likelihood)
    return int(np.flatnonzero(short <= scatter)[0]) + 1


def _judge_one(planted: float, error: float, critical: float) -> Finding:
    """The verdict where no number of populations gains over one."""
    reach = f"{planted:+.4f} ± {1.96 * error:.4f} nats a session"
    if not planted >= detectable(error, critical):
        verdict = (
            "Unknown: more populations do not predict held-out clicks better, but in "
            f"this log two halves, one of which clicks {MATTERS:g} times as often as "
            f"the other, would not show either ({reach})."
        )
        step = "Log longer, or more sessions of fewer queries."
        return Finding(verdict=verdict, next_step=step, grade="unknown")
    verdict = (
        "One population is enough: more do not predict held-out clicks better. Two "
        f"halves, one of which clicks {MATTERS:g} times as often as the other, would "
        f"have been found ({reach})."
    )
    step = "Train a model of one relevance and one bias tower."
    return Finding(verdict=verdict, next_step=step, grade="good")


def _judge_several(
    gain: tuple[float, float], share: np.ndarray, over: float, scatter: float
) -> Finding:
    """The verdict where several populations gain `gain`, with its error, over one.

    `over` is their gain over the better model of clicks above, `scatter` its error.
    """
    chosen = len(share)
    shares = ", ".join(f"{each:.0%}" for each in share)
    gained = f"{gain[0]:.3f} ± {1.96 * gain[1]:.3f} nats a session"
    rival = "one population whose clicks depend on those above"
    if over > 1.96 * scatter:
        verdict = (
            f"More than one population: {chosen} ({shares}) gain {gained} over one, "
            f"and {over:.3f} over {rival}."
        )
        step = "Mixtures are among the candidates of `debias train --model auto`."
    elif over < -1.96 * scatter:
        verdict = (
            f"Clicks of a session depend on each other: {chosen} populations gain "
            f"{gained}, {rival} {-over:.3f} more. Counts of pairs cannot tell which "
            "it is."
        )
        step = (
            "Mixtures are among the candidates of `debias train --model auto`; and try "
            "a user browsing model."
        )
    else:
        verdict = (
            f"Clicks of a session depend on each other: {chosen} populations "
            f"({shares}) gain {gained}, and {rival} as much; this log cannot tell "
            "which it is."
        )
        step = (
            "Mixtures are among the candidates of `debias train --model auto`; compare "
            "a dynamic Bayesian model on more log."
        )
    return Finding(verdict=verdict, next_step=step, grade="caution")


def happened_cells(counted: Cells, click: np.ndarray) -> sparse.csr_array:
    """(S, 2 M) indicators of cells shown without a click (first M) and with a click."""
    assert counted.index is not None
    size = len(counted.rank)
    mask = counted.index < size
    session = np.broadcast_to(np.arange(len(click))[:, None], click.shape)[mask]
    column = (counted.index + size * click)[mask]
    ones = np.ones(len(column))
    return sparse.csr_array((ones, (session, column)), (len(click), 2 * size))


def chances(counted: Cells, mixture: Mixture) -> np.ndarray:
    """(M, C) P(click) of C cells in each component, bounded away from 0 and 1."""
    gamma = np.take(mixture.gamma, counted.pair, axis=1)
    p = gamma * np.take(mixture.theta, counted.rank, axis=1)
    return np.clip(p, EDGE, 1 - EDGE)


def _joint(happened: sparse.csr_array, p: np.ndarray, share: np.ndarray) -> np.ndarray:
    """(M, S) log of share times likelihood, by P(click) of each cell (M, C)."""
    tables = np.concatenate([np.log1p(-p), np.log(p)], axis=1)
    # A vector at a time: a product with a matrix of few columns is slower.
    joint = np.stack([happened @ table for table in tables])
    return joint + np.log(np.maximum(share, TINY)).astype(p.dtype)[:, None]


def _likelihood(
    counted: Cells, happened: sparse.csr_array, mixture: Mixture
) -> np.ndarray:
    joint = _joint(happened, chances(counted, mixture), mixture.share)
    return logsumexp(joint, axis=0)


def tally(counted: Cells, happened: sparse.csr_array) -> Cells:
    """The counts of the sessions in `happened`, in the same cells."""
    skipped, clicked = np.split(np.asarray(happened.sum(axis=0), float).ravel(), 2)
    return replace(counted, shown=skipped + clicked, clicked=clicked, index=None)


def fit_one(counted: Cells) -> Mixture:
    """Fits one component by accelerated EM, which needs only counts.

    Attraction is shrunk towards its mean by two impressions.
    """
    shown_pair = counted.by_pair(counted.shown)
    shown_rank = counted.by_rank(counted.shown)

    def step(x: np.ndarray) -> np.ndarray:
        gamma, theta = x[: counted.pairs][counted.pair], x[counted.pairs :]
        theta = theta[counted.rank]
        # Expected attractive, and examined, among impressions without a click.
        both = np.minimum(gamma * theta, 1 - EDGE)
        rest = (counted.shown - counted.clicked) / (1 - both)
        liked = counted.by_pair(counted.clicked + rest * (gamma - both))
        seen = counted.by_rank(counted.clicked + rest * (theta - both))
        mean = liked.sum() / max(1, shown_pair.sum())
        attraction = (liked + 2 * mean) / (shown_pair + 2)
        return np.concatenate([attraction, (seen + 1) / (shown_rank + 2)])

    start = np.full(counted.pairs + counted.ranks, 0.5)
    x, _ = accelerated(step, start, 1e-3, 105)
    gamma, theta = np.split(x[None], [counted.pairs], axis=1)
    return Mixture(gamma, theta, np.ones(1))


def _shown(
    counted: Cells, happened: sparse.csr_array
) -> tuple[Cells, sparse.csr_array]:
    """The cells that the sessions of `happened` show, and that in float32."""
    size = len(counted.rank)
    kept = np.flatnonzero(tally(counted, happened).shown)
    pair, rank = counted.pair[kept], counted.rank[kept]
    columns = happened[:, np.concatenate([kept, size + kept])].astype(np.float32)
    return replace(counted, pair=pair, rank=rank, index=None), columns


def fit_mixture(
    counted: Cells,
    happened: sparse.csr_array,
    one: Mixture,
    count: int,
    rng: np.random.Generator,
    starts: int = 2,
) -> Mixture:
    """Fits `count` components by accelerated EM.

    Several starts run for a few passes, and the one with the highest likelihood
    continues. Expectations are float32, and their sums float64.
    """

    def start() -> Mixture:
        # Alike components would stay alike: each leans its own way.
        lean = np.exp(rng.normal(0, 0.5, (2, count, 1)))
        less = np.exp(-rng.exponential(0.1, (counted.pairs, count)).T)
        theta = (one.theta / one.theta.max()) ** lean[1]
        return Mixture(one.gamma ** lean[0] * less, theta, np.full(count, 1 / count))

    step = _pass(counted, happened, one, count)
    tried = [accelerated(step, _pack(start()), 1e-3, 15)[0] for _ in range(starts)]
    found = [_unpack(x, counted.pairs, count) for x in tried]
    scores = [_likelihood(counted, happened, each).sum() for each in found]
    best = tried[int(np.argmax(scores))]
    return _unpack(accelerated(step, best, 1e-3, 90)[0], counted.pairs, count)


def _pass(
    counted: Cells, happened: sparse.csr_array, one: Mixture, count: int
) -> Callable[[np.ndarray], np.ndarray]:
    """A pass of EM over packed mixtures, of the sessions of `happened`."""
    counted, happened = _shown(counted, happened)
    back, prior = happened.T, PULL * one.gamma[0]

    def step(x: np.ndarray) -> np.ndarray:
        old = _unpack(x, counted.pairs, count)
        # Responsibilities, and what each component clicked and did not, by cell.
        both = chances(counted, old)
        joint = _joint(happened, both, old.share)
        who = np.exp(joint - joint.max(axis=0))
        who /= who.sum(axis=0)
        gamma, theta = np.empty_like(old.gamma), np.empty_like(old.theta)
        for m, own in enumerate(both):
            skipped, clicked = np.split(back @ who[m], 2)
            # Expected attractive, and examined, among impressions without a click.
            rest, shown = skipped / (1 - own), skipped + clicked
            liked = counted.by_pair(clicked + rest * (old.gamma[m, counted.pair] - own))
            seen = counted.by_rank(clicked + rest * (old.theta[m, counted.rank] - own))
            gamma[m] = (liked + prior) / (counted.by_pair(shown) + PULL)
            theta[m] = (seen + 1) / (counted.by_rank(shown) + 2)
        return _pack(Mixture(gamma, theta, who.mean(axis=1, dtype=float)))

    return step


def _pack(mixture: Mixture) -> np.ndarray:
    """The parameters as one float32 vector."""
    return np.concatenate([each.ravel() for each in mixture], dtype=np.float32)


def _unpack(x: np.ndarray, pairs: int, count: int) -> Mixture:
    """A packed mixture; its shares may have been moved, and sum to 1 again."""
    gamma, theta, share = np.split(x, [pairs * count, -count])
    shares = share / share.sum()
    return Mixture(gamma.reshape(count, -1), theta.reshape(count, -1), shares)
