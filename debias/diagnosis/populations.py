"""Tests whether one population of users explains the clicks.

In one population, the clicks of a session are independent given the items. In a mixture
of populations, the clicks of a session depend on each other, because each click tells
something about the kind of user. Mixtures of K position-based models are fitted by EM
to the training sessions, and compared on the held-out sessions:

    P(session) = sum_m share_m prod_l P(click_l | theta_mk gamma_mi),

where population m has the share share_m, examination theta_mk at rank k, and attraction
gamma_mi for pair i. If pairs have few impressions, pairs with similar attraction share
one gamma_mi.

A population can represent one of three kinds of users. Users of the first kind examine
items by position. Users of the second kind click by rank, whatever the item is (equal
gamma_mi for all items). Users of the third kind read every item (equal theta_mk at all
ranks). Source: Yan et al., Revisiting Two-tower Models for Unbiased Learning to Rank,
SIGIR 2022.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import t as student

from debias.data import ClickLog
from debias.diagnosis.finding import Finding, detectable
from debias.diagnosis.mixtures import (
    Evidence,
    Mixture,
    chances,
    evidence,
    fit_all,
    happened_cells,
)
from debias.propensity.cells import Cells, cells
from debias.propensity.click_models import DynamicBayesian, UserBrowsing

# Ratio of the click rates of two populations that a test must be able to show. Kinds of
# users in simulated populations, for which a mixture ranks better, differ by four (Yan
# et al.) to ten.
MATTERS = 10.0
SLIGHT = 0.01  # share of the best gain that does not justify more populations
SMALL = 0.1  # share of the gain of such populations that is too small to matter
UNCLEAR = (
    "Unknown: clicks within a session depend on each other, but no more than clicks "
    "in different sessions of a query. Either users differ or queries differ."
)
AGAIN = 2500  # least number of held-out mixed lists over which a gain is averaged
ENOUGH = 100  # held-out sessions, below which their mean gain is far from normal


@dataclass(frozen=True, eq=False)
class Populations(Finding):
    """Comparison of K populations with one population on held-out sessions.

    Attributes:
        count: (N,) int64 numbers of populations K: 1, 2 and so on.
        gain: (N,) float64 gain in held-out log-likelihood over one population, in nats
            per session.
        error: (N,) float64 standard error of `gain`, paired by session.
        chosen: The smallest number of populations whose gain is within one standard
            error, or within one per cent, of the best gain. The number is 1 if no gain
            is significant, or if the gain on the log is not significantly larger than
            the gain on shuffled lists.
        share: (chosen,) float64 shares of the populations.
        examination: (chosen, L) float64 examination curve of each population, divided
            by its largest value.
        earlier: Gain of a model in which users react to the clicks above, over one
            position-based population. The better of two such models counts: the user
            browsing model and the dynamic Bayesian network.
        over_earlier, over_earlier_error: Gain of the chosen mixture over the model of
            `earlier`, and the paired standard error of this gain.
        sessions: Number of held-out sessions.
        planted, planted_error: Held-out gain of two populations over one population on
            simulated clicks, and the standard error of the gain. Both are nan if
            `chosen` is above 1. On the lists of the log, clicks are simulated so that
            half of the sessions click ten times as often as the other half.
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


def populations(
    log: ClickLog, max_populations: int = 4, held_out: float = 0.2, seed: int = 0
) -> Populations:
    """Compares mixtures of 1 to `max_populations` populations on held-out sessions.

    If several populations predict no better than one population, the power of the test
    is measured. On the lists of the log, clicks of two populations are simulated: one
    population clicks ten times as often as the other. The verdict is "unknown" if the
    test does not detect the simulated populations.

    First, the components are fitted to 20 bins of pairs with similar attraction. EM has
    several starts and continues from the start with the highest likelihood. Bins show
    how populations differ by rank and by attraction, even if pairs have few
    impressions. Each component then gets a separate attraction for each pair, if at
    least half of the impressions are of pairs with 30 impressions or more. This
    attraction is shrunk towards the attraction of the bin, with the weight of 20
    impressions. In logs with fewer impressions per pair, populations that differ only
    in which items they like are not detected.

    A mixture predicts better than one population if the clicks of a session depend on
    each other, or if one position-based model does not describe the clicks. The gain of
    a mixture can have two causes other than different users. First, users may stop
    after a click. So the mixtures are also compared with models of one population in
    which clicks depend on the clicks above. Second, if queries have few sessions,
    differences between queries can look like differences between users. So the mixtures
    are also fitted to shuffled lists, which take each rank from a random session of the
    query. The verdict is "unknown" if the gain on the log is not significantly larger
    than the gain on shuffled lists. But the gain is ignored if it is less than a tenth
    of the gain on the simulated clicks.

    Args:
        log: The click log.
        max_populations: Largest number of populations K.
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
            f"held_out {held_out} of {log.sessions} sessions leaves one part empty"
        )
    # Sessions of a query share cells. Adjacent sessions keep these in the cache.
    test, train = (
        part[np.argsort(log.query[part], kind="stable")]
        for part in (np.sort(order[:size]), np.sort(order[size:]))
    )
    counted = cells(log)
    seen = evidence(counted, log.click, train)
    mixtures, likelihood = fit_all(seen, test, max_populations, rng)
    gain, error = _paired(likelihood - likelihood[0])
    chosen = _choose(gain, error, likelihood)
    chain = _clicks_above(seen, log, train, test)
    earlier = float((chain - likelihood[0]).mean())
    critical, unclear = _critical(max_populations, size), 0.0
    if chosen > 1:
        alike = _gain_of_strangers(chosen, counted, log, train, test, rng)
        gained, scatter = gain[chosen - 1], critical * error[chosen - 1]
        if gained - max(alike, 0.0) <= scatter:
            unclear = gained + scatter
            chosen = 1
    over, over_error = (
        float(v[0]) for v in _paired((likelihood[chosen - 1] - chain)[None])
    )
    best = mixtures[chosen - 1]
    order = np.argsort(-best.share)
    share = best.share[order]
    if chosen == 1:
        planted, planted_error = _planted_gain(
            counted, mixtures[0], log.query, train, size, rng
        )
        verdict = _judge_one(planted, planted_error, critical, unclear)
    else:
        planted = planted_error = np.nan
        both = gain[chosen - 1], error[chosen - 1]
        verdict = _judge_several(both, share, over, over_error)
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


def partners(query: np.ndarray, ranks: int, rng: np.random.Generator) -> np.ndarray:
    """(S, ranks) sessions of the same query, drawn independently for each rank.

    At each rank, the result is a permutation of the sessions. A shuffled list takes the
    item and the click of each rank from the drawn session. Shuffled lists have as many
    impressions and clicks of each pair at each rank as the log. Shuffling keeps the
    differences between queries but not between users, because each shuffled list has
    clicks of many users.

    >>> rows = partners(np.array([7, 5, 7, 5]), 2, np.random.default_rng(0))
    >>> np.sort(rows[[0, 2]], axis=0).tolist()
    [[0, 0], [2, 2]]
    """
    base = np.argsort(query, kind="stable")
    _, number = np.unique(query, return_inverse=True)
    rows = np.empty((len(query), ranks), dtype=np.int64)
    for rank in range(ranks):
        rows[base, rank] = np.argsort(number + rng.random(len(query)))
    return rows


def _gain_of(
    count: int,
    counted: Cells,
    click: np.ndarray,
    held: np.ndarray,
    train: np.ndarray,
    test: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """(T,) held-out gain of `count` populations over one.

    The mixtures are fitted to `click` of the sessions `train`, and compared on the
    clicks `held` of the sessions `test`.
    """
    seen = evidence(counted, click, train)
    seen = seen._replace(happened=happened_cells(counted, held))
    likelihood = fit_all(seen, test, count, rng)[1]
    return likelihood[-1] - likelihood[0]


def _gain_of_strangers(
    count: int,
    counted: Cells,
    log: ClickLog,
    train: np.ndarray,
    test: np.ndarray,
    rng: np.random.Generator,
) -> float:
    """The gain of `count` populations on lists that mix sessions of a query."""
    index = counted.index
    assert index is not None
    gains = []
    for _ in range(max(1, AGAIN // len(test))):
        rows = partners(log.query, log.list_size, rng)
        mixed = replace(counted, index=_through(rows, index))
        click = _through(rows, log.click)
        gains.append(_gain_of(count, mixed, click, click, train, test, rng).mean())
    return float(np.mean(gains))


def _planted_gain(
    counted: Cells,
    one: Mixture,
    query: np.ndarray,
    train: np.ndarray,
    size: int,
    rng: np.random.Generator,
) -> tuple[float, float]:
    """Held-out gain of two populations on simulated clicks, and its standard error.

    In the simulation, half of the sessions click ten times as often as the other half.
    The overall click rate is the same as in the log. If one population clicks with
    probability p, the halves click with P = min(20 p / 11, (1 + p) / 2) and with 2 p -
    P. Mixtures of one and two populations are fitted to simulated clicks of the
    sessions `train`. The gain on lists that mix sessions of a query is subtracted.

    The gain is averaged over all lists, each with new clicks. So the gain is more
    precise than a gain on `size` held-out sessions. The returned error belongs to a
    gain on `size` sessions.
    """
    index = counted.index
    assert index is not None
    p = chances(counted, one)[0]
    often = np.minimum(2 * MATTERS / (1 + MATTERS) * p, (1 + p) / 2)
    kinds = np.zeros((2, len(p) + 1))  # the last cell is padding
    kinds[:, :-1] = often, 2 * p - often

    def clicks() -> np.ndarray:
        kind = rng.integers(2, size=(len(index), 1))
        return rng.random(index.shape) < kinds[kind, index]

    drawn = index, clicks(), clicks()
    every = np.arange(len(index))
    rows = partners(query, index.shape[1], rng)
    gain, alike = (
        _gain_of(2, replace(counted, index=own), click, held, train, every, rng)
        for own, click, held in (drawn, [_through(rows, each) for each in drawn])
    )
    planted = float(gain.mean() - max(alike.mean(), 0.0))
    return planted, float(gain.std(ddof=1) / np.sqrt(size))


def _through(rows: np.ndarray, value: np.ndarray) -> np.ndarray:
    return np.take_along_axis(value, rows, axis=0)


def _paired(difference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means over sessions of differences (N, S), and the means' standard errors."""
    several = difference.shape[1] > 1
    scatter = (
        difference.std(axis=1, ddof=1) if several else np.full(len(difference), np.inf)
    )
    return difference.mean(axis=1), scatter / np.sqrt(difference.shape[1])


def _critical(counts: int, size: int) -> float:
    """Number of standard errors that a gain must exceed to be significant.

    The test is one-sided, with a level of 5% for all mixtures together. `fit_all` fits
    two mixtures for each number of populations.
    """
    if size < ENOUGH:
        return np.inf
    return float(student.ppf(1 - 0.05 / max(1, 2 * (counts - 1)), max(1, size - 1)))


def _choose(gain: np.ndarray, error: np.ndarray, likelihood: np.ndarray) -> int:
    size = likelihood.shape[1]
    critical = _critical(len(gain), size)
    if size < ENOUGH or not (gain[1:] > critical * error[1:]).any():
        return 1
    best = int(np.argmax(gain))
    short, scatter = _paired(likelihood[best] - likelihood)
    near = np.maximum(scatter, SLIGHT * gain[best])
    return int(np.flatnonzero(short <= near)[0]) + 1


def _judge_one(
    planted: float, error: float, critical: float, unclear: float
) -> Finding:
    """The verdict if several populations predict no better than one population.

    `unclear` is the largest gain that differences between queries may explain.
    """
    reach = f"{planted:+.4f} ± {1.96 * error:.4f} nats per session"
    if not planted >= detectable(error, critical):
        verdict = (
            "Unknown: more populations do not predict held-out clicks better. But this "
            "log is too small to show even two groups of users, one of which clicks "
            f"{MATTERS:g} times as often as the other ({reach})."
        )
        if unclear:
            verdict = UNCLEAR
        step = "Log for longer, or log more sessions of fewer queries."
        return Finding(verdict=verdict, next_step=step, grade="unknown")
    if unclear > SMALL * planted:
        step = "Log more sessions of each query."
        return Finding(verdict=UNCLEAR, next_step=step, grade="unknown")
    verdict = (
        "One population is enough: more do not predict held-out clicks better. Two "
        f"groups of users, one of which clicks {MATTERS:g} times as often as the "
        f"other, would have been found ({reach})."
    )
    step = "Train a model with one relevance tower and one bias tower."
    return Finding(verdict=verdict, next_step=step, grade="good")


def _judge_several(
    gain: tuple[float, float], share: np.ndarray, over: float, scatter: float
) -> Finding:
    """The verdict if the best mixture has several populations.

    `gain` is its gain over one population, as value and error. `over` is its gain over
    the better model of clicks above, and `scatter` the error of `over`.
    """
    chosen = len(share)
    shares = ", ".join(f"{each:.0%}" for each in share)
    gained = f"{gain[0]:.3f} ± {1.96 * gain[1]:.3f} nats per session"
    rival = "one population whose clicks depend on the clicks above"
    if over > 1.96 * scatter:
        verdict = (
            f"More than one population: {chosen} ({shares}) gain {gained} over one, "
            f"and {over:.3f} over {rival}."
        )
        step = "Mixtures are among the candidates of `debias train --model auto`."
    elif over < -1.96 * scatter:
        verdict = (
            f"Clicks within a session depend on each other: {chosen} populations gain "
            f"{gained}, and {rival} gains {-over:.3f} more. Counts of pairs cannot "
            "tell which explanation is right."
        )
        step = (
            "Mixtures are among the candidates of `debias train --model auto`. Also "
            "try a user browsing model."
        )
    else:
        verdict = (
            f"Clicks within a session depend on each other: {chosen} populations "
            f"({shares}) gain {gained}, and {rival} gains as much. This log cannot "
            "tell which explanation is right."
        )
        step = (
            "Mixtures are among the candidates of `debias train --model auto`. Compare "
            "them with a dynamic Bayesian model on a longer log."
        )
    return Finding(verdict=verdict, next_step=step, grade="caution")


def _clicks_above(
    found: Evidence, log: ClickLog, train: np.ndarray, test: np.ndarray
) -> np.ndarray:
    """(T,) log-likelihood of the best model in which users react to the clicks above.

    The candidates are models of pairs and models of bins of pairs. Models of bins
    predict better if pairs have few impressions.
    """
    binned = ClickLog(np.zeros(len(log), int), found.binned, log.click)
    scores = []
    for each in (log, binned):
        seen, held = each.take(train), each.take(test)
        models = UserBrowsing.fit(seen, with_errors=False), DynamicBayesian.fit(seen)
        scores += [model.log_probability(held).sum(axis=1) for model in models]
    return max(scores, key=np.mean)
