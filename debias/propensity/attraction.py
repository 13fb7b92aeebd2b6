"""Posteriors of attraction from clicks, with a prior fitted to the same clicks.

P(click on pair i at place k) = beta_k + theta_k gamma_i, where gamma_i is the
attraction. Examination theta_k and trust bias beta_k are known. The prior of gamma_i
has the centre m_i = d_i w + u_q, where d_i are covariates of the pair, and u_q ~ N(0,
t^2) is an effect of its query. The prior has one of two shapes. The shape with the
higher likelihood is chosen:

- logit gamma_i ~ N(m_i, s^2)
- gamma_i ~ Beta(phi mu_i, phi (1 - mu_i)) with mu_i = sigmoid(m_i), for logs in which
  many click rates are near 0.

The parameters w, t, and s or phi maximise the marginal likelihood. The logit of
attraction can be far from normal, for example if attraction takes only a few values. So
a normal density is then multiplied by h(F), a function of its distribution function F.
EM fits h to the clicks.
"""

from dataclasses import dataclass, field, replace

import numpy as np
from scipy.special import (
    betaincinv,
    expit,
    log_expit,
    logit,
    logsumexp,
    ndtr,
    ndtri,
)

from debias.propensity.cells import Cells

NODES = np.linspace(-6.0, 6.0, 49)  # nodes of a posterior, in its standard deviations
GRID = np.linspace(-11.0, 7.0, 91)  # grid of logits to fit the prior
STEPS = 40  # most steps of the fit
CLOSE = 0.01  # largest move in logits of the last step
SPREADS = (0.1, 5.0)  # of s and phi^-1/2; the upper end of t
LOOSE, TIGHT = 0.01, 1.0  # prior precision of the constant, and of the other weights
TAILS = np.linspace(0.0, 1.0, 21)  # lower tails to choose from, in shares of both tails
BINS = (np.arange(60) + 0.5) / 60  # bins of the prior's distribution function
WORTH = 50.0  # weight of the plain shape, in pairs
PASSES = 60  # passes of EM, few enough to keep the density smooth
SAMPLE = 12_000  # pairs to which the prior is fitted, in whole queries
PIECE = 20_000  # approximate number of pairs in memory
TINY = 1e-9

Array = np.ndarray


class Counts:
    """Clicks and impressions of P pairs at places with known examination."""

    def __init__(self, counted: Cells, theta: np.ndarray, trust: np.ndarray):
        """Initialises from counts, and (M,) examination and trust bias of the cells."""
        self.counted, self.theta, self.trust = counted, theta, trust
        self.exposure = counted.by_pair(counted.shown * theta)
        self.clicks = counted.by_pair(counted.clicked - counted.shown * trust)

    def some(self, kept: np.ndarray) -> "Counts":
        """Selects the pairs that have impressions and for which `kept` (P,) is True."""
        inside = kept[self.counted.pair]
        return Counts(self.counted.only(inside), self.theta[inside], self.trust[inside])

    def likelihood(self, logits: np.ndarray) -> np.ndarray:
        """(N, P) log-likelihood of each pair's clicks at logits (N, P) or (N, 1)."""
        counted, found = self.counted, []
        rest = counted.shown - counted.clicked
        for each in expit(np.broadcast_to(logits, (len(logits), counted.pairs))):
            p = np.clip(self.trust + self.theta * each[counted.pair], TINY, 1 - TINY)
            one = counted.clicked * np.log(p) + rest * np.log1p(-p)
            found.append(counted.by_pair(one))
        return np.array(found)

    def slopes(self, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(P,) score and Fisher information of the logit of attraction."""
        counted, gamma = self.counted, expit(logits)
        p = np.clip(self.trust + self.theta * gamma[counted.pair], TINY, 1 - TINY)
        pull = self.theta * (counted.clicked - counted.shown * p) / (p * (1 - p))
        bend = counted.shown * np.square(self.theta) / (p * (1 - p))
        slope = gamma * (1 - gamma)
        return slope * counted.by_pair(pull), np.square(slope) * counted.by_pair(bend)

    def doubt(self, error: np.ndarray) -> np.ndarray:
        """(P,) relative error of attraction due to errors of the propensities.

        d log gamma / d log theta_k equals minus the share of place k in the exposure of
        the pair.
        """
        counted = self.counted
        relative = np.append(np.nan_to_num(error), 0.0)[counted.rank] / self.theta
        weighed = counted.by_pair(counted.shown * self.theta * relative)
        return weighed / np.maximum(self.exposure, TINY)


class Normal:
    """Logits x ~ N(m, s^2), with centre m and spread s.

    Arrays have shape (P,) or (N, P). The distributions form an exponential family: d
    log f / d m = rate (x - E x), and d log f / d log s = statistic - E statistic.
    """

    def log(self, x: Array, m: Array, s: Array) -> Array:
        """Log density of x, up to a constant."""
        return -0.5 * np.square((x - m) / s)

    def slopes(self, x: Array, m: Array, s: Array) -> Array:
        """(2, ...) first derivative of the log density in x, and minus the second."""
        return np.stack([(m - x) / s**2, np.broadcast_to(s**-2.0, np.shape(x))])

    def quantile(self, p: Array, m: Array, s: Array) -> Array:
        """Inverse of the distribution function."""
        return m + s * ndtri(p)

    def rate(self, m: Array, s: Array) -> Array:
        """The factor `rate` in d log f / d m."""
        return np.broadcast_to(s**-2.0, np.shape(m))

    def statistic(self, x: Array, m: Array, s: Array) -> Array:
        """The `statistic` in d log f / d log s."""
        return np.square((x - m) / s)

    def wider(self, m: Array, s: float, variance: Array) -> Array:
        """The spread, increased by the `variance` of the centre m."""
        return np.sqrt(s**2 + variance)


class Beta:
    """sigmoid(x) ~ Beta(phi mu, phi (1 - mu)), mu = sigmoid(m), phi = s^-2.

    The methods are those of `Normal`.
    """

    def log(self, x: Array, m: Array, s: Array) -> Array:
        return (log_expit(x) - (1 - expit(m)) * x) / s**2

    def slopes(self, x: Array, m: Array, s: Array) -> Array:
        p = expit(x)
        return np.stack([(expit(m) - p) / s**2, p * (1 - p) / s**2])

    def quantile(self, p: Array, m: Array, s: Array) -> Array:
        found = betaincinv(expit(m) / s**2, expit(-m) / s**2, p)
        return logit(np.clip(found, expit(GRID[0]), expit(GRID[-1])))

    def rate(self, m: Array, s: Array) -> Array:
        return expit(m) * expit(-m) / s**2

    def statistic(self, x: Array, m: Array, s: Array) -> Array:
        return -2 * self.log(x, m, s)

    def wider(self, m: Array, s: float, variance: Array) -> Array:
        return np.sqrt(s**2 + variance * expit(m) * expit(-m))


Shape = Normal | Beta


@dataclass(frozen=True, eq=False)
class Prior:
    """The prior distribution of the attraction of pairs.

    Attributes:
        shape: Shape of the distribution.
        weights: (D,) weights w of the covariates.
        query: (Q,) posterior modes of the query effects u.
        variance: (Q,) posterior variances of the query effects u.
        spread: Spread s of the normal shape, or phi^-1/2 of the beta shape.
        query_spread: Standard deviation t of the query effects.
        evidence: Log marginal likelihood, with the query effects integrated out by
            Laplace's method.
        bent: (bins,) log h at F = `BINS`; 0 unless the shape is normal.
    """

    shape: Shape
    weights: np.ndarray
    query: np.ndarray
    variance: np.ndarray
    spread: float
    query_spread: float
    evidence: float = -np.inf
    bent: np.ndarray = field(default_factory=lambda: np.zeros(len(BINS)))

    def around(self, design: np.ndarray, query: np.ndarray) -> "Around":
        """The prior of each of P pairs."""
        mean = design @ self.weights + self.query[query]
        spread = self.shape.wider(mean, self.spread, self.variance[query])
        return Around(self.shape, mean, spread, self.bent)


@dataclass(frozen=True, eq=False)
class Around:
    """Priors of P pairs: shape, centres and spreads (P,), and log h (bins,)."""

    shape: Shape
    mean: np.ndarray
    spread: np.ndarray
    bent: np.ndarray

    def __len__(self) -> int:
        return len(self.mean)

    def take(self, rows: np.ndarray) -> "Around":
        """The priors of the pairs `rows`."""
        return replace(self, mean=self.mean[rows], spread=self.spread[rows])

    def log(self, x: np.ndarray) -> np.ndarray:
        """(N, P) log density of logits, up to a constant."""
        found = self.shape.log(x, self.mean, self.spread)
        if self.bent.any():
            apart = ndtr((x - self.mean) / self.spread)
            found = found + np.interp(apart, BINS, self.bent)
        return found

    def bend(self, counts: Counts) -> np.ndarray:
        """(bins,) log h, fitted to the clicks of the pairs by EM."""
        at = self.shape.quantile(BINS[:, None], self.mean, self.spread)
        seen = counts.likelihood(at)
        seen = np.exp(seen - seen.max(axis=0))
        even = density = np.full(len(BINS), 1 / len(BINS))
        for _ in range(PASSES):
            both = density[:, None] * seen
            held = (both / both.sum(axis=0)).sum(axis=1)
            density = (held + WORTH * even) / (len(self) + WORTH)
        return np.log(density / even)


def fit_prior(counts: Counts, query: np.ndarray, design: np.ndarray) -> Prior:
    """Fits the prior by marginal likelihood, with an effect u of each query.

    Args:
        counts: Counts of P pairs.
        query: (P,) index of each pair's query.
        design: (P, D) covariates of each pair. The first covariate is 1; the others are
            roughly in [-1, 1].
    """
    sample = _whole_queries(query, counts.exposure > 0)
    share = np.clip(counts.clicks.sum() / counts.exposure.sum(), 1e-4, 1 - 1e-4)
    weights = np.zeros(design.shape[1])
    weights[0] = np.log(share / (1 - share))
    none = np.zeros(int(query.max()) + 1)
    starts = (
        Prior(shape, weights, none, none, spread, 0.5)
        for shape, spread in ((Normal(), 0.7), (Beta(), 0.3))
    )
    told = counts.some(sample).likelihood(GRID[:, None])
    given = _Given(told, query[sample], design[sample])
    best = max((_fitted(start, given) for start in starts), key=lambda p: p.evidence)
    if isinstance(best.shape, Normal):  # if bent, Beta's intervals have less coverage
        own = best.around(design[sample], query[sample])
        best = replace(best, bent=own.bend(counts.some(sample)))
    return best


def with_queries(
    prior: Prior, counts: Counts, query: np.ndarray, design: np.ndarray
) -> Prior:
    """Returns `prior` with its query effects u refitted to the clicks in `counts`."""
    size = int(query.max()) + 1
    none, wide = np.zeros(size), np.full(size, prior.query_spread**2)
    found = replace(prior, query=none, variance=wide)
    useful = counts.exposure > 0
    before = np.cumsum(np.bincount(query[useful], minlength=size))
    piece = np.where(useful, ((before - 1) // PIECE)[query], -1)
    for number in np.unique(piece[useful]):
        part = piece == number
        told = counts.some(part).likelihood(GRID[:, None])
        given = _Given(told, query[part], design[part])
        found = _fitted(found, given, whole=False)
    return found


@dataclass(frozen=True, eq=False)
class _Given:
    """Log-likelihood (grid, P) of pairs, their queries (P,) and design (P, D)."""

    likelihood: np.ndarray
    query: np.ndarray
    design: np.ndarray

    def by_query(self, value: np.ndarray, size: int) -> np.ndarray:
        """(Q, ...) sums over the pairs of each query."""
        columns = np.reshape(value, (len(self.query), -1)).T
        found = [np.bincount(self.query, column, size) for column in columns]
        return np.stack(found, axis=1).reshape(size, *value.shape[1:])


def _fitted(prior: Prior, given: _Given, whole: bool = True) -> Prior:
    """Maximises the marginal likelihood by Fisher scoring, starting from `prior`.

    Let E0, V0 be mean and variance under the prior, and E1, V1 under the posterior.
    Then d log L / d m = r (E1 - E0), and its negative slope is about r^2 (V0 - V1),
    where r is the rate (Louis, JRSS B 1982). With `whole=False`, only u of the given
    queries is fitted.
    """
    w, u, s, t = prior.weights, prior.query.copy(), prior.spread, prior.query_spread
    here = np.unique(given.query)
    variance, evidence = prior.variance.copy(), prior.evidence
    for _ in range(STEPS):
        mean = given.design @ w + u[given.query]
        found = _expectations(prior.shape, mean, s, given.likelihood)
        step, turn, bend = _scored(given, found, w, u, t, whole)
        moved = float(np.abs(given.design @ step + turn[given.query]).max())
        damp = min(1.0, 2.0 / max(moved, TINY))
        w = w + damp * step
        u[here] += damp * turn[here]  # the mode at this t, as a step of t requires
        variance[here] = 1 / bend[here]
        if whole:
            evidence = found.evidence + 0.5 * float(
                (np.log(variance[here] / t**2) - np.square(u[here] / t)).sum()
            )
            told = 1 - variance[here] / t**2
            pull = (np.square(u[here]) + variance[here]) / t**2 - 1
            s, one = _stretched(s, found.spread_pull, found.spread_told)
            t, two = _stretched(t, pull.sum(), 2 * np.square(told).sum())
            moved = max(moved, one, two)
        if moved < (CLOSE if whole else CLOSE / 100):
            break
    return Prior(prior.shape, w, u, variance, s, t, evidence, prior.bent)


def _scored(
    given: _Given,
    found: "_Expectations",
    w: np.ndarray,
    u: np.ndarray,
    t: float,
    whole: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps of w (D,) and u (Q,), and the precision of u."""
    design, size = given.design, len(u)
    bend = given.by_query(found.bend, size) + t**-2
    first = given.by_query(found.pull, size) - u / t**2
    if not whole:
        return np.zeros(len(w)), first / bend, bend
    ridge = np.where(np.arange(len(w)) == 0, LOOSE, TIGHT)
    weighed = found.bend[:, None] * design
    both = given.by_query(weighed, size)
    curve = design.T @ weighed + np.diag(ridge) - (both.T / bend) @ both
    slope = design.T @ found.pull - ridge * w - both.T @ (first / bend)
    step = np.linalg.solve(curve, slope)
    return step, (first - both @ step) / bend, bend


@dataclass(frozen=True, eq=False)
class _Expectations:
    """Derivatives of the log marginal likelihood, and its value.

    `pull` and `bend` are the first and about the negative second derivative in m (P,).
    `spread_pull` and `spread_told` are the same derivatives in log s.
    """

    pull: np.ndarray
    bend: np.ndarray
    spread_pull: float
    spread_told: float
    evidence: float


def _expectations(
    shape: Shape, mean: np.ndarray, s: float, likelihood: np.ndarray
) -> _Expectations:
    spread, x = np.full(len(mean), s), np.broadcast_to(GRID[:, None], likelihood.shape)
    prior = shape.log(x, mean, spread)
    prior = prior - logsumexp(prior, axis=0)
    both = prior + likelihood
    evidence = logsumexp(both, axis=0)
    before, after = np.exp(prior), np.exp(both - evidence)
    statistic = shape.statistic(x, mean, spread)
    moments = []
    for value in (x, statistic):
        one, two = (weight * value for weight in (before, after))
        first = one.sum(axis=0), two.sum(axis=0)
        square = (one * value).sum(axis=0), (two * value).sum(axis=0)
        told = square[0] - first[0] ** 2 - square[1] + first[1] ** 2
        moments += [first[1] - first[0], np.maximum(told, 0.0)]
    rate = shape.rate(mean, spread)
    return _Expectations(
        rate * moments[0],
        np.square(rate) * moments[1] + TINY,
        float(moments[2].sum()),
        float(moments[3].sum()),
        float(evidence.sum()),
    )


def _stretched(spread: float, pull: float, told: float) -> tuple[float, float]:
    """A step of Fisher scoring in the logarithm of a spread, and its length."""
    move = float(np.clip(pull / max(told, 1.0), -0.5, 0.5))
    new = float(np.clip(spread * np.exp(move), *SPREADS))
    return new, abs(float(np.log(new / spread)))


def _whole_queries(query: np.ndarray, useful: np.ndarray) -> np.ndarray:
    """(P,) bool: useful pairs of evenly spaced queries, about `SAMPLE` in all."""
    names, count = np.unique(query[useful], return_counts=True)
    step = max(1.0, count.sum() / SAMPLE)
    taken = names[np.arange(0, len(names), step).astype(int)]
    return useful & np.isin(query, taken)


def posteriors(counts: Counts, prior: Around, level: float) -> np.ndarray:
    """(4, P) mean and standard deviation of attraction, and limits of an interval.

    Args:
        counts: Counts of P pairs.
        prior: Prior of the attraction of each of the P pairs.
        level: Posterior probability of the interval, which is the shortest with this
            probability.
    """
    found = np.empty((4, len(prior)))
    known = counts.exposure > 0
    found[:, ~known] = at_prior(prior.take(~known), level)
    rows = np.flatnonzero(known)
    for start in range(0, len(rows), PIECE):
        at = rows[start : start + PIECE]
        kept = np.zeros(len(prior), bool)
        kept[at] = True
        some, own = counts.some(kept), prior.take(at)
        middle, width = _mode(some, own)
        logits = middle + NODES[:, None] * width
        height = own.log(logits) + some.likelihood(logits)
        found[:, at] = _summed(logits, height, level)
    return found


def at_prior(prior: Around, level: float) -> np.ndarray:
    """(4, P) the results of `posteriors` for pairs without impressions."""
    logits = prior.shape.quantile(BINS[:, None], prior.mean, prior.spread)
    height = np.broadcast_to(prior.bent[:, None], logits.shape)
    return _summed(logits, height, level)


def _summed(logits: np.ndarray, height: np.ndarray, level: float) -> np.ndarray:
    """(4, P) mean, standard deviation and shortest interval of attraction."""
    weight = np.exp(height - logsumexp(height, axis=0))
    value = expit(logits)
    first = (weight * value).sum(axis=0)
    second = (weight * np.square(value - first)).sum(axis=0)
    below = np.cumsum(weight, axis=0) - weight / 2
    return np.stack([first, np.sqrt(second), *_shortest(below, logits, level)])


def _shortest(below: np.ndarray, logits: np.ndarray, level: float) -> np.ndarray:
    """(2, P) limits of the shortest interval of attraction with probability `level`.

    Most attractions are low, so with few impressions the posterior has no lower tail to
    cut off. An interval with equal tails would be longer. It would also contain the
    truth too often if many low attractions are equal, as with grades.
    """
    best = np.tile([[0.0], [np.inf]], below.shape[1])
    for tail in (1 - level) * TAILS:
        ends = (_quantile(below, logits, at) for at in (tail, tail + level))
        found = expit(np.stack([*ends]))
        shorter = np.diff(found, axis=0) < np.diff(best, axis=0)
        best = np.where(shorter, found, best)
    return best


def _mode(counts: Counts, prior: Around) -> tuple[np.ndarray, np.ndarray]:
    """(P,) posterior mode of the logit under the plain shape, and its width."""
    middle, shape = prior.mean, prior.shape
    for _ in range(20):
        own = shape.slopes(middle, prior.mean, prior.spread)
        pull, bend = np.add(counts.slopes(middle), own)
        move = np.clip(pull / bend, -1.0, 1.0)
        middle = middle + move
        if np.abs(move).max(initial=0.0) < 1e-3:
            break
    return middle, 1 / np.sqrt(bend)


def _quantile(below: np.ndarray, value: np.ndarray, at: float) -> np.ndarray:
    """(P,) value at which cumulative weights (N, P) reach `at`, interpolated."""
    step = np.clip((below < at).sum(axis=0), 1, len(below) - 1)
    pair = np.arange(below.shape[1])
    one, two = below[step - 1, pair], below[step, pair]
    share = np.clip((at - one) / np.maximum(two - one, 1e-300), 0.0, 1.0)
    return value[step - 1, pair] * (1 - share) + value[step, pair] * share
