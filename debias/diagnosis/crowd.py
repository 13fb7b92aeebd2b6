"""Is one population of users enough to explain the clicks?

Sessions of one population click independently at each rank, given the items; several
populations tie the clicks of a session together, since what was clicked above says who
is reading. Mixtures of K position-based models,

    P(session) = sum_m share_m prod_l P(click_l | theta_mk gamma_mi),

are fitted by EM to some sessions and compared on the others. Readers by position,
clickers by rank (gamma the same for all items) and readers of everything (theta the
same at all ranks) are each one such component: the crowds of Yan et al., Revisiting
Two-tower Models for Unbiased Learning to Rank, SIGIR 2022.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import sparse
from scipy.special import logsumexp, softmax
from scipy.stats import norm

from debias.data import ClickLog
from debias.diagnosis.finding import Finding, Grade
from debias.propensity.cells import Cells, cells
from debias.propensity.click_models import DBN, UBM
from debias.propensity.pbm_maximum import TINY, accelerated

PULL = 20.0  # impressions that a component's attraction of a pair is pulled by
EDGE = 1e-6  # probabilities stay this far from 0 and 1


@dataclass(frozen=True, eq=False)
class Populations(Finding):
    """How much better K populations explain held-out sessions than one does.

    Attributes:
        count: (N,) int64 K from 1.
        gain: (N,) float64 held-out log-likelihood over that of one, nats a session.
        error: (N,) float64 standard error of `gain`, sessions paired.
        chosen: The fewest populations within a standard error of the best; 1 unless
            more gain significantly.
        share: (chosen,) float64 shares of the populations.
        examination: (chosen, L) float64, each over its own largest.
        earlier: The gain of the better of the user browsing and the dynamic Bayesian
            model: what the clicks above explain without any population.
        over_earlier, over_earlier_error: Gain of the chosen over those, paired.
        sessions: How many sessions were held out.
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


class Mixture(NamedTuple):
    """M components: attraction (P, M), examination (L, M), shares (M,)."""

    gamma: np.ndarray
    theta: np.ndarray
    share: np.ndarray


def populations(
    log: ClickLog, most: int = 4, held_out: float = 0.2, seed: int = 0
) -> Populations:
    """Compares mixtures of 1 to `most` populations on held-out sessions.

    A component's attraction of a pair is pulled towards that of one population by 20
    impressions, and that towards the mean of all pairs, so that pairs of few
    impressions do not make populations up; nor do they tell populations apart: a log
    of few impressions a pair may need more than one and not show it. A gain says that
    clicks of a session depend on each other, or on the items otherwise than one product
    says; a reader who stops after a click does the same to them, hence the comparison
    with models of one population that minds what it clicked above.

    Args:
        log: The click log.
        most: The largest K.
        held_out: Share of the sessions to compare on.
        seed: Of the split and the starts of EM.

    Raises:
        ValueError: `most` is below 1, or there are fewer than two sessions to part.
    """
    if most < 1:
        raise ValueError(f"most must be at least 1, got {most}")
    rng = np.random.default_rng(seed)
    order = rng.permutation(log.sessions)
    size = int(held_out * log.sessions)
    if not 0 < size < log.sessions:
        raise ValueError(
            f"held_out {held_out} of {log.sessions} sessions parts nothing"
        )
    test, train = np.sort(order[:size]), np.sort(order[size:])
    counted = cells(log)
    happened = happened_cells(counted, log.click)
    mixtures = [fit_mixture(counted, happened[train], None, 1, rng)]
    for count in range(2, most + 1):
        mixtures.append(fit_mixture(counted, happened[train], mixtures[0], count, rng))
    likelihood = np.array([_likelihood(counted, happened[test], m) for m in mixtures])
    gain, error = _paired(likelihood - likelihood[0])
    chosen = _choose(likelihood, gain, error)
    seen, held = log.take(train), log.take(test)
    chains = [model.fit(seen).log_probability(held).sum(axis=1) for model in (UBM, DBN)]
    chain = max(chains, key=np.mean)
    earlier = float((chain - likelihood[0]).mean())
    over, scatter = (
        float(v[0]) for v in _paired((likelihood[chosen - 1] - chain)[None])
    )
    best = mixtures[chosen - 1]
    order = np.argsort(-best.share)
    theta = (best.theta / best.theta.max(axis=0)).T[order]
    return Populations(
        np.arange(1, most + 1),
        gain,
        error,
        chosen,
        best.share[order],
        theta,
        earlier,
        over,
        scatter,
        size,
        **vars(_judge(gain, error, chosen, best.share[order], over, scatter)),
    )


def _paired(difference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means over sessions and their standard errors, of (N, S)."""
    spread = difference.std(axis=1, ddof=1) if difference.shape[1] > 1 else np.inf
    return difference.mean(axis=1), spread / np.sqrt(difference.shape[1])


def _choose(likelihood: np.ndarray, gain: np.ndarray, error: np.ndarray) -> int:
    critical = norm.ppf(1 - 0.05 / max(1, len(gain) - 1))
    if not (gain[1:] > critical * error[1:]).any():
        return 1
    best = int(np.argmax(gain))
    short, scatter = _paired(likelihood[best] - likelihood)
    return int(np.flatnonzero(short <= scatter)[0]) + 1


def _judge(
    gain: np.ndarray,
    error: np.ndarray,
    chosen: int,
    share: np.ndarray,
    over: float,
    scatter: float,
) -> Finding:
    grade: Grade = "caution"
    if chosen == 1:
        grade = "good"
        verdict = (
            "One population is enough: more do not predict held-out clicks better."
        )
        step = "Train a model of one relevance and one bias tower."
        return Finding(verdict=verdict, next_step=step, grade=grade)
    k = chosen - 1
    shares = ", ".join(f"{each:.0%}" for each in share)
    gained = f"{gain[k]:.3f} ± {1.96 * error[k]:.3f} nats a session"
    rival = "one population that minds what it clicked above"
    if over > 1.96 * scatter:
        verdict = (
            f"More than one population: {chosen} ({shares}) gain {gained} over one, "
            f"and {over:.3f} over {rival}."
        )
        step = f"Train a mixture of {chosen} components and compare held-out clicks."
    elif over < -1.96 * scatter:
        verdict = (
            f"Clicks of a session depend on each other: {chosen} populations gain "
            f"{gained}, {rival} {-over:.3f} more. Counts of pairs cannot tell which "
            "it is."
        )
        step = (
            "Let `debias train` compare a mixture with the other models on held-out "
            "clicks, by features; and try a user browsing model."
        )
    else:
        verdict = (
            f"Clicks of a session depend on each other: {chosen} populations "
            f"({shares}) gain {gained}, and {rival} as much; this log cannot tell "
            "which it is."
        )
        step = (
            f"Compare a mixture of {chosen} and a dynamic Bayesian model on more log."
        )
    return Finding(verdict=verdict, next_step=step, grade=grade)


def happened_cells(counted: Cells, click: np.ndarray) -> sparse.csr_array:
    """(S, 2 M) of 1 where a session did not click, or (M later) did click, a cell."""
    assert counted.index is not None
    size = len(counted.rank)
    mask = counted.index < size
    session = np.broadcast_to(np.arange(len(click))[:, None], click.shape)[mask]
    column = (counted.index + size * click)[mask]
    ones = np.ones(len(column))
    return sparse.csr_array((ones, (session, column)), (len(click), 2 * size))


def chances(counted: Cells, mixture: Mixture) -> np.ndarray:
    """(M, C) P(click) of each cell in each component, away from 0 and 1."""
    p = mixture.gamma[counted.pair] * mixture.theta[counted.rank]
    return np.clip(p, EDGE, 1 - EDGE)


def _joint(counted: Cells, happened: sparse.csr_array, mixture: Mixture) -> np.ndarray:
    """(S, C) log of share times likelihood."""
    p = chances(counted, mixture)
    table = np.concatenate([np.log1p(-p), np.log(p)])
    return happened @ table + np.log(np.maximum(mixture.share, TINY))


def _likelihood(
    counted: Cells, happened: sparse.csr_array, mixture: Mixture
) -> np.ndarray:
    return logsumexp(_joint(counted, happened, mixture), axis=1)


def fit_mixture(
    counted: Cells,
    happened: sparse.csr_array,
    one: Mixture | None,
    count: int,
    rng: np.random.Generator,
    starts: int = 2,
) -> Mixture:
    """EM, accelerated; of several starts the likeliest after a few passes goes on."""
    pairs, ranks, size = counted.pairs, counted.ranks, len(counted.rank)
    ones, at = np.ones(size), np.arange(size)
    of_pair = sparse.csr_array((ones, (counted.pair, at)), (pairs, size))
    of_rank = sparse.csr_array((ones, (counted.rank, at)), (ranks, size))
    back = happened.T.tocsr()

    def unpack(x: np.ndarray) -> Mixture:
        gamma, theta, share = np.split(x, [pairs * count, (pairs + ranks) * count])
        share = share / share.sum()
        return Mixture(gamma.reshape(pairs, -1), theta.reshape(ranks, -1), share)

    def step(x: np.ndarray) -> np.ndarray:
        mixture = unpack(x)
        who = softmax(_joint(counted, happened, mixture), axis=1)
        skipped, clicked = np.split(back @ who, 2)
        gamma, theta = mixture.gamma[counted.pair], mixture.theta[counted.rank]
        both = np.minimum(gamma * theta, 1 - EDGE)
        rest, shown = skipped / (1 - both), skipped + clicked
        liked, tried = of_pair @ (clicked + rest * (gamma - both)), of_pair @ shown
        mean = liked.sum() / tried.sum() if one is None else one.gamma
        pull = 2.0 if one is None else PULL
        seen = of_rank @ (clicked + rest * (theta - both))
        renewed = (
            (liked + pull * mean) / (tried + pull),
            (seen + 1) / (of_rank @ shown + 2),
            who.mean(axis=0),
        )
        return np.concatenate([each.ravel() for each in renewed])

    def start() -> np.ndarray:
        if one is None:
            return np.full((pairs + ranks) * count + count, 0.5)
        # Alike components would stay alike: each leans its own way.
        lean = np.exp(rng.normal(0, 0.5, (2, count)))
        gamma = one.gamma ** lean[0] * np.exp(-rng.exponential(0.1, (pairs, count)))
        theta = (one.theta / one.theta.max()) ** lean[1]
        share = np.full(count, 1 / count)
        return np.concatenate([each.ravel() for each in (gamma, theta, share)])

    tried = [accelerated(step, start(), 1e-3, 15)[0] for _ in range(starts)]
    if len(tried) > 1:
        scores = [_likelihood(counted, happened, unpack(x)).sum() for x in tried]
        tried = [tried[int(np.argmax(scores))]]
    return unpack(accelerated(step, tried[0], 1e-3, 90)[0])
