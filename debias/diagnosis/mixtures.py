"""Mixtures of position-based models, fitted to the sessions of a log by EM.

    P(session) = sum_m share_m prod_l P(click_l | theta_mk gamma_mi),

where component m has the share share_m, examination theta_mk at rank k, and attraction
gamma_mi for pair i. If pairs have few impressions, pairs with similar attraction share
one gamma_mi.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy import sparse
from scipy.special import logsumexp

from debias.data import ClickLog
from debias.propensity.cells import Cells, cells, typical
from debias.propensity.pbm_maximum import TINY, accelerated

PULL = 20.0  # pseudo-impressions that shrink a component's attraction of a pair
THIN = 30  # impressions of a pair, below which components share its attraction
BINS = 20  # bins of pairs with similar attraction, for the first fit
STARTS, SOME = 6, 10_000  # starts of EM, and the sessions that compare them
EDGE = 1e-6  # probabilities stay this far from 0 and 1


class Mixture(NamedTuple):
    """A mixture of M components: attraction (M, P), examination (M, L), shares (M,)."""

    gamma: np.ndarray
    theta: np.ndarray
    share: np.ndarray


class Tally(NamedTuple):
    """Clicks and expected examinations of pairs or queries, and the shrinkage."""

    liked: np.ndarray
    tried: np.ndarray
    pull: float

    def towards(self, mean: float | np.ndarray) -> np.ndarray:
        """Clicks per expected examination, shrunk towards `mean`."""
        return (self.liked + self.pull * mean) / (self.tried + self.pull)


class Attractions(NamedTuple):
    """Estimates of the attraction of pairs in one population.

    Attributes:
        theta: (L,) examination.
        mean: Mean attraction of all pairs.
        query: (P,) int index of each pair's query.
        by_query, by_pair: Clicks and expected examinations of each query and of each
            pair. The attraction of a query is shrunk towards `mean`, and the attraction
            of a pair towards its query's attraction.
    """

    theta: np.ndarray
    mean: float
    query: np.ndarray
    by_query: Tally
    by_pair: Tally


def attractions(counted: Cells) -> Attractions:
    """Estimates attraction in one population, shrunk towards the query's mean.

    The attraction of a pair is its clicks divided by its expected examinations. The
    mean attraction of a query is shrunk towards the mean of all queries. `spread`
    estimates the strength of the shrinkage.
    """
    assert counted.names is not None
    theta = fit_one(counted).theta[0]
    _, query = np.unique(counted.names.query, return_inverse=True)
    whole = replace(counted, pair=query[counted.pair], pairs=int(query.max()) + 1)
    looks = counted.shown * theta[counted.rank]
    tried = whole.by_pair(looks)
    mean = float(counted.clicked.sum() / max(looks.sum(), TINY))
    pull = spread(whole, theta, np.full(whole.pairs, mean))
    by_query = Tally(whole.by_pair(counted.clicked), tried, pull)
    pull = spread(counted, theta, by_query.towards(mean)[query])
    by_pair = Tally(counted.by_pair(counted.clicked), counted.by_pair(looks), pull)
    return Attractions(theta, mean, query, by_query, by_pair)


class Evidence(NamedTuple):
    """The data to which mixtures are fitted: a log of S sessions, T for training.

    Attributes:
        counted: Impressions and clicks of each pair at each rank (M cells), over all S
            sessions.
        happened: (S, 2 M) 0/1 indicators: M columns for cells shown without a click,
            then M columns for clicked cells.
        seen: (T, 2 M) rows of `happened` for the training sessions.
        coarse: Impressions and clicks of each bin at each rank (C cells). The pairs of
            a bin have similar attraction.
        grouped: (T, 2 C) indicators like `seen`, for the cells of `coarse`.
        bins: (P,) the bin of each pair.
        binned: (S, L) the bin of each impression, -1 at padding.
    """

    counted: Cells
    happened: sparse.csr_array
    seen: sparse.csr_array
    coarse: Cells
    grouped: sparse.csr_array
    bins: np.ndarray
    binned: np.ndarray

    @property
    def thin(self) -> bool:
        """Whether pairs have too few impressions for separate attractions."""
        return typical(self.counted.by_pair(self.counted.shown)) < THIN


def _of_pair(pair: np.ndarray, value: np.ndarray) -> np.ndarray:
    """(S, L) sums of `value` over the ranks at which a session shows the same pair."""
    order = np.argsort(pair, axis=1, kind="stable")
    row = np.take_along_axis(pair, order, axis=1)
    new = np.ones(row.shape, dtype=bool)
    new[:, 1:] = row[:, 1:] != row[:, :-1]
    group = np.cumsum(new.ravel()) - 1
    total = np.bincount(group, np.take_along_axis(value, order, axis=1).ravel())
    out = np.empty(value.shape)
    np.put_along_axis(out, order, total[group].reshape(value.shape), axis=1)
    return out


def evidence(counted: Cells, click: np.ndarray, train: np.ndarray) -> Evidence:
    """Sorts pairs into bins by their attraction, estimated for one population.

    A click must not influence the bin in which it is counted. Therefore, the pairs of
    each training session are binned without the clicks of this session.
    """
    index = counted.index
    assert index is not None
    happened = happened_cells(counted, click)
    known = attractions(tally(counted, happened[train]))
    mask = index < len(counted.rank)
    pair = counted.pair[np.where(mask, index, 0)]
    asked = np.where(mask, known.query[pair], -1).max(axis=1, keepdims=True)
    own = np.zeros((len(click), 1))
    own[train] = 1
    clicks, looks = own * (click & mask), own * np.where(mask, known.theta, 0)
    # Counts without the session itself: of its query, then of each of its pairs.
    liked, tried, pull = known.by_query
    liked = liked[asked] - clicks.sum(axis=1, keepdims=True)
    tried = tried[asked] - looks.sum(axis=1, keepdims=True)
    centre = Tally(liked, tried, pull).towards(known.mean)
    liked, tried, pull = known.by_pair
    clicks, looks = _of_pair(pair, clicks), _of_pair(pair, looks)
    value = Tally(liked[pair] - clicks, tried[pair] - looks, pull).towards(centre)
    every = known.by_pair.towards(known.by_query.towards(known.mean)[known.query])
    edges = np.unique(np.quantile(value[mask & (own > 0)], np.arange(1, BINS) / BINS))
    binned = np.where(mask, np.searchsorted(edges, value), -1)
    coarse = cells(ClickLog(np.zeros(len(click), int), binned, click))
    assert coarse.names is not None
    # Some bins may be empty.
    numbers = np.searchsorted(coarse.names.item, np.searchsorted(edges, every))
    bins = np.minimum(numbers, coarse.pairs - 1)
    grouped = happened_cells(coarse, click)[train]
    return Evidence(counted, happened, happened[train], coarse, grouped, bins, binned)


def spread(counted: Cells, theta: np.ndarray, mean: np.ndarray) -> float:
    """The weight of the prior `mean` (P,), as a number of examinations.

    Let e be the sum of theta over the impressions of a pair, and f the sum of theta^2.
    If attractions have mean m and variance V, the clicks c of the pair satisfy

        E (c - m e)^2 = m e - m^2 f + V (e^2 - f).

    The sum of this equation over pairs determines the variance V. A beta prior with
    mean m and variance V has the weight m (1 - m) / V - 1. The result is limited to [2,
    1000]; it is 1,000 if attraction does not differ between pairs.

    >>> cell = Cells(np.arange(2), np.zeros(2, int), np.full(2, 100.0),
    ...     np.array([40.0, 60.0]), 2, 1)
    >>> round(spread(cell, np.ones(1), np.full(2, 0.5)), 1)  # V = 150 / 19,800
    32.0
    """
    own = theta[counted.rank]
    clicked, e, f = (
        counted.by_pair(each)
        for each in (counted.clicked, counted.shown * own, counted.shown * own**2)
    )
    excess = ((clicked - mean * e) ** 2 - mean * e + mean**2 * f).sum()
    variance = max(excess / max((e**2 - f).sum(), TINY), TINY)
    typical = (mean * e).sum() / max(e.sum(), TINY)
    return float(np.clip(typical * (1 - typical) / variance - 1, 2, 1000))


def happened_cells(counted: Cells, click: np.ndarray) -> sparse.csr_array:
    """(S, 2 M) indicators: M cells shown without a click, then M clicked cells."""
    assert counted.index is not None
    size = len(counted.rank)
    mask = counted.index < size
    session = np.broadcast_to(np.arange(len(click))[:, None], click.shape)[mask]
    column = (counted.index + size * click)[mask]
    ones = np.ones(len(column))
    return sparse.csr_array((ones, (session, column)), (len(click), 2 * size))


def tally(counted: Cells, happened: sparse.csr_array) -> Cells:
    """Counts impressions and clicks by cell over the sessions of `happened`."""
    skipped, clicked = np.split(np.asarray(happened.sum(axis=0), float).ravel(), 2)
    return replace(counted, shown=skipped + clicked, clicked=clicked, index=None)


def chances(counted: Cells, mixture: Mixture) -> np.ndarray:
    """(M, C) P(click) of C cells in each component, bounded away from 0 and 1."""
    gamma = np.take(mixture.gamma, counted.pair, axis=1)
    p = gamma * np.take(mixture.theta, counted.rank, axis=1)
    return np.clip(p, EDGE, 1 - EDGE)


def _joint(happened: sparse.csr_array, p: np.ndarray, share: np.ndarray) -> np.ndarray:
    """(M, S) log of share times likelihood, given P(click) of each cell (M, C)."""
    tables = np.concatenate([np.log1p(-p), np.log(p)], axis=1)
    # One vector at a time: a product with a matrix of few columns is slower.
    joint = np.stack([happened @ table for table in tables])
    return joint + np.log(np.maximum(share, TINY)).astype(p.dtype)[:, None]


def _likelihood(
    counted: Cells, happened: sparse.csr_array, mixture: Mixture
) -> np.ndarray:
    joint = _joint(happened, chances(counted, mixture), mixture.share)
    return logsumexp(joint, axis=0)


def fit_all(
    seen: Evidence, test: np.ndarray, most: int, rng: np.random.Generator
) -> tuple[list[Mixture], np.ndarray]:
    """Fits mixtures of 1 to `most` components, and compares them on `test`.

    For each number of components, two mixtures are fitted. In the first mixture, the
    pairs of a bin share an attraction. In the second mixture, each pair has a separate
    attraction. The second mixture is left out if pairs have few impressions. The result
    is the mixture that predicts the sessions `test` better, and its log-likelihood of
    each session.
    """
    counted, held = seen.counted, seen.happened[test]
    rough: list[Mixture] = []
    fine: list[Mixture] = []
    best, likelihood = [], []
    for count in range(1, most + 1):
        rough.append(_fit_rough(seen.coarse, seen.grouped, rough, count, rng))
        wide = rough[-1]._replace(gamma=rough[-1].gamma[:, seen.bins])
        tried = [wide]
        if not seen.thin:
            fine.append(fit_mixture(counted, seen.seen, wide, fine, rng))
            tried.append(fine[-1])
        scores = [_likelihood(counted, held, each) for each in tried]
        better = int(np.argmax([score.mean() for score in scores]))
        best.append(tried[better])
        likelihood.append(scores[better])
    return best, np.array(likelihood)


def fit_one(counted: Cells) -> Mixture:
    """Fits one component by accelerated EM, which needs only counts.

    Attraction is shrunk towards its mean with the weight of two impressions.
    """
    shown_pair = counted.by_pair(counted.shown)
    shown_rank = counted.by_rank(counted.shown)

    def step(x: np.ndarray) -> np.ndarray:
        gamma, theta = x[: counted.pairs][counted.pair], x[counted.pairs :]
        theta = theta[counted.rank]
        # Expected attractive and expected examined cells among impressions without a
        # click.
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


def _starts(
    coarse: Cells, before: list[Mixture], count: int, rng: np.random.Generator
) -> list[Mixture]:
    """Starts of EM: components with random exponents, or one component split in two."""
    if count == 1:
        gamma, theta = np.full((1, coarse.pairs), 0.5), np.full((1, coarse.ranks), 0.9)
        return [Mixture(gamma, theta, np.ones(1))]
    one = before[0]

    def leaning() -> Mixture:
        lean = np.exp(rng.normal(0, 1, (2, count, 1)))
        level = np.exp(-rng.exponential(0.5, (count, 1)))
        theta = (one.theta / one.theta.max()) ** lean[1]
        return Mixture(one.gamma ** lean[0] * level, theta, np.full(count, 1 / count))

    def split(m: int) -> Mixture:
        last = before[-1]
        halves = np.append(np.arange(count - 1), m)
        lean = np.ones((count, 1))
        lean[[m, -1], 0] = 0.5, 2.0
        share = last.share[halves]
        share[[m, -1]] /= 2
        gamma, theta = last.gamma[halves] ** lean, last.theta[halves] ** lean[::-1]
        return Mixture(gamma, theta, share)

    return [leaning() for _ in range(STARTS)] + [
        split(m) for m in range(count - 1 if count > 2 else 0)
    ]


def _fit_rough(
    coarse: Cells,
    happened: sparse.csr_array,
    before: list[Mixture],
    count: int,
    rng: np.random.Generator,
) -> Mixture:
    """Fits a mixture to bins, from the best of several starts.

    Starts are compared after a few passes over some of the sessions. `before` holds the
    mixtures of fewer components.
    """
    starts, pairs = _starts(coarse, before, count, rng), coarse.pairs
    prior = np.full((1, pairs), 0.5)
    tried = [_pack(each) for each in starts]
    if len(tried) > 1:
        some = happened
        if happened.shape[0] > SOME:
            some = happened[np.sort(rng.choice(happened.shape[0], SOME, replace=False))]
        step = _pass(coarse, some, prior, 2.0, count)
        tried = [accelerated(step, x, 1e-3, 30)[0] for x in tried]
        found = [_unpack(x, pairs, count) for x in tried]
        score = [_likelihood(coarse, some, each).sum() for each in found]
        tried = [tried[int(np.argmax(score))]]
    step = _pass(coarse, happened, prior, 2.0, count)
    return _unpack(accelerated(step, tried[0], 1e-3, 60)[0], pairs, count)


def fit_mixture(
    counted: Cells,
    happened: sparse.csr_array,
    rough: Mixture,
    before: list[Mixture],
    rng: np.random.Generator,
) -> Mixture:
    """Fits a mixture with a separate attraction for each pair by accelerated EM.

    EM starts from `rough`, a mixture whose attractions are shared within bins. Shared
    attractions cannot separate populations that differ only in which items they like.
    So a second start changes the parameters of a mixture of one component at random.
    This mixture is the first of `before`, the mixtures with fewer components. After a
    few passes from each start, EM continues from the start with the higher likelihood.
    Expectations are computed in float32 and summed in float64.
    """
    count = len(rough.share)
    less = np.exp(-rng.exponential(0.1, (2, count, counted.pairs)))
    begun = [(rough, rough.gamma)]
    if before:
        one = before[0]
        begun[0] = rough._replace(gamma=rough.gamma * less[0]), rough.gamma
        lean = np.exp(rng.normal(0, 0.5, (2, count, 1)))
        theta = (one.theta / one.theta.max()) ** lean[1]
        gamma = one.gamma ** lean[0] * less[1]
        start = Mixture(gamma, theta, np.full(count, 1 / count))
        begun.append((start, one.gamma))
    tried = []
    for start, centre in begun:
        step = _pass(counted, happened, centre, PULL, count)
        x = accelerated(step, _pack(start), 1e-3, 15)[0]
        found = _unpack(x, counted.pairs, count)
        score = _likelihood(counted, happened, found).sum()
        tried.append((score, x, step))
    _, x, step = max(tried, key=lambda each: each[0])
    return _unpack(accelerated(step, x, 1e-3, 60)[0], counted.pairs, count)


def _shown(
    counted: Cells, happened: sparse.csr_array
) -> tuple[Cells, sparse.csr_array]:
    """The cells shown in the sessions of `happened`, and `happened` in float32."""
    size = len(counted.rank)
    kept = np.flatnonzero(tally(counted, happened).shown)
    pair, rank = counted.pair[kept], counted.rank[kept]
    columns = happened[:, np.concatenate([kept, size + kept])].astype(np.float32)
    return replace(counted, pair=pair, rank=rank, index=None), columns


def _pass(
    counted: Cells,
    happened: sparse.csr_array,
    centre: np.ndarray,
    pull: float,
    count: int,
) -> Callable[[np.ndarray], np.ndarray]:
    """A pass of EM over packed mixtures, for the sessions of `happened`.

    `pull` pseudo-impressions shrink attractions towards `centre` (count or 1, P).
    """
    counted, happened = _shown(counted, happened)
    back, prior = happened.T, np.broadcast_to(pull * centre, (count, counted.pairs))

    def step(x: np.ndarray) -> np.ndarray:
        old = _unpack(x, counted.pairs, count)
        # Responsibilities, and clicked and skipped impressions of each component, by
        # cell.
        both = chances(counted, old)
        joint = _joint(happened, both, old.share)
        who = np.exp(joint - joint.max(axis=0))
        who /= who.sum(axis=0)
        gamma, theta = np.empty_like(old.gamma), np.empty_like(old.theta)
        for m, own in enumerate(both):
            skipped, clicked = np.split(back @ who[m], 2)
            # Expected attractive and expected examined cells among impressions without
            # a click.
            rest, shown = skipped / (1 - own), skipped + clicked
            liked = counted.by_pair(clicked + rest * (old.gamma[m, counted.pair] - own))
            seen = counted.by_rank(clicked + rest * (old.theta[m, counted.rank] - own))
            gamma[m] = (liked + prior[m]) / (counted.by_pair(shown) + pull)
            theta[m] = (seen + 1) / (counted.by_rank(shown) + 2)
        return _pack(Mixture(gamma, theta, who.mean(axis=1, dtype=float)))

    return step


def _pack(mixture: Mixture) -> np.ndarray:
    """Packs the parameters into one float32 vector."""
    return np.concatenate([each.ravel() for each in mixture], dtype=np.float32)


def _unpack(x: np.ndarray, pairs: int, count: int) -> Mixture:
    """Unpacks a mixture, and scales the shares to sum to 1."""
    gamma, theta, share = np.split(x, [pairs * count, -count])
    shares = share / share.sum()
    return Mixture(gamma.reshape(count, -1), theta.reshape(count, -1), shares)
