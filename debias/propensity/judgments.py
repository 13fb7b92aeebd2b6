"""Judgments from clicks: how attractive each item is to each query, without position.

P(click on pair i at place k) = theta_k gamma_i, with theta known, 1 at rank 1. Then
gamma_i is the click probability of pair i at rank 1. Its logit has a normal prior whose
mean follows the pair's query and how the log showed the item, and whose spread all
pairs share; both are estimated from the log (empirical Bayes). Pairs with many
impressions speak for themselves, others speak for their query.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit, logit, logsumexp, ndtri

from debias.data import ClickLog
from debias.propensity.cells import Cells, cells
from debias.propensity.places import Labels, Propensities

GRADES = 4  # the highest
ENDS = (0.01, 0.99)  # quantiles of attraction of the lowest grade and the highest
NODES = np.linspace(-6.0, 6.0, 49)  # of a posterior, in its standard deviations
GRID = np.linspace(-4.0, 7.0, 111)  # of the prior, in logits from its centre
SPREADS = np.geomspace(0.3, 2.4, 7)  # of the normal prior that EM starts from
WORTH = 50.0  # pairs that the normal prior is worth beside those of the log
PASSES = 60  # of EM, few enough to leave it smooth
STRENGTHS = np.geomspace(1.0, 1024.0, 6)  # of all queries over one
SAMPLE = 20_000  # pairs that the prior is fitted to
PIECE = 50_000  # pairs whose posteriors are held at once
TINY = 1e-9


@dataclass(frozen=True, eq=False)
class Judgments:
    """P (query, item) pairs in order of query, the most attractive first.

    Attributes:
        query, item: (P,) int64 numbers in the log.
        attraction: (P,) float64 posterior mean of the click probability at rank 1.
        standard_error: (P,) float64: the posterior's spread and the error of the
            propensities, which is taken to be the same at all places of a pair and so
            is an upper bound.
        low, high: (P,) float64 ends of the interval.
        impressions, clicks: (P,) int64; 0 for what was never shown.
        coec: (P,) float64 clicks over those expected by rank, nan without impressions:
            the measure of search engines, which mixes up rank and relevance.
        ctr: (P,) float64 clicks over impressions.
        spread: Of the prior, in logits.
        left_out: Share of impressions at places of unknown examination.
    """

    query: np.ndarray
    item: np.ndarray
    attraction: np.ndarray
    standard_error: np.ndarray
    low: np.ndarray
    high: np.ndarray
    impressions: np.ndarray
    clicks: np.ndarray
    coec: np.ndarray
    ctr: np.ndarray
    spread: float
    left_out: float

    def __len__(self) -> int:
        return len(self.item)

    def grades(self, highest: int = GRADES) -> np.ndarray:
        """(P,) int64 grades from 0 to `highest`, whose gain is linear in attraction.

        grade = log2(1 + (2^highest - 1) a), rounded, with a how far attraction is on
        its way from its 1% to its 99% quantile: NDCG's gain 2^grade - 1 is then linear
        in it. Where all pairs are alike, the highest.

        >>> log = ClickLog([0] * 40, [[0, 1]] * 40, [[1, 0], [1, 1]] * 20)
        >>> judge(log, Propensities.of([1.0, 0.5])).grades().tolist()
        [4, 0]
        """
        if not 1 <= highest <= 31:
            raise ValueError(f"highest must be in 1..31, got {highest}")
        low, high = np.quantile(self.attraction, ENDS)
        share = np.clip((self.attraction - low) / (high - low or 1.0), 0.0, 1.0)
        share = share if high > low else np.ones(len(self))
        return np.round(np.log2(1 + (2.0**highest - 1) * share)).astype(np.int64)

    def columns(self) -> dict[str, np.ndarray]:
        """The table as columns, one row a pair; numbers of query and item."""
        names = (
            *("query", "item", "attraction", "standard_error", "low", "high"),
            *("impressions", "clicks", "coec", "ctr"),
        )
        return {name: getattr(self, name) for name in names}


def judge(
    log: ClickLog,
    propensities: Propensities,
    *,
    names: Labels | None = None,
    scores: np.ndarray | None = None,
    offsets: np.ndarray | None = None,
    level: float = 0.95,
) -> Judgments:
    """Attraction of every pair that a log shows, by empirical Bayes.

    The posterior of x_i = logit gamma_i is proportional to
    prod_k (theta_k gamma_i)^c_ik (1 - theta_k gamma_i)^(n_ik - c_ik) N(x_i; m_i, s^2).
    m_i is the logit of the mean of the pair's query, itself drawn towards that of all
    queries, plus linear terms in log impressions and mean log rank of the pair within
    its query: a policy that knows something shows good items often and high, and a pair
    of one impression is no average pair. With `scores`, m_i is linear in these. The
    weights and s maximise the likelihood of the log.

    Args:
        log: The click log.
        propensities: Of its places; impressions at places of unknown examination are
            left out.
        names: Labels of codes 1, 2 and so on, by column, as in the propensities.
        scores: (items,) of a ranker: pairs are shrunk towards what they predict, and,
            with `offsets`, pairs never shown get that.
        offsets: (queries + 1,) of the ranking data, to judge all items of the queries
            in the log.
        level: Chance that an interval is to cover.

    Raises:
        ValueError: No click stands at a place of known examination; scores do not cover
            the items, or are not finite.

    Source of the prior: after Morris, Parametric Empirical Bayes Inference, JASA 1983.

    >>> log = ClickLog([0] * 40, [[0, 1], [1, 0]] * 20, [[1, 0], [0, 0]] * 20)
    >>> found = judge(log, Propensities.of([1.0, 0.5]))
    >>> found.item.tolist(), bool(found.attraction[0] > 0.5)
    ([0, 1], True)
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1), got {level}")
    place = propensities.at(log, names)
    theta = np.append(propensities.examination, np.nan)
    place = np.where(np.isnan(theta[place]), -1, place)
    known = place >= 0
    if not (known & log.click).any():
        raise ValueError(
            "no click stands at a rank of known examination: the propensities must "
            "tell some. `debias plan` says what to exchange where the log tells none"
        )
    counted = cells(log, "all", place)
    assert counted.names is not None
    query, item = counted.names.query, counted.names.item
    trust = np.zeros(len(theta)) if propensities.trust is None else propensities.trust
    model = _Model(counted, theta[counted.rank], trust[counted.rank])
    if scores is None:
        offset, design = _query_logits(model, query), _shown(log, query)
    else:
        every = _standard(scores, item)
        offset, design = np.zeros(len(item)), every[item]
    weights = model.prior(offset, design)
    mean = offset + design @ weights
    density = model.some(model.sample).density(mean[model.sample])
    found, error, low, high = _posteriors(model, mean, density, level)
    doubt = found * model.doubt(propensities.standard_error)
    reach = ndtri((1 + level) / 2) * doubt
    table = {
        **{"query": query, "item": item, "attraction": found},
        "standard_error": np.hypot(error, doubt),
        "low": np.maximum(found - np.hypot(found - low, reach), 0.0),
        "high": np.minimum(found + np.hypot(high - found, reach), 1.0),
        **_counts(log),
    }
    if scores is not None and offsets is not None:
        unseen = _unseen(query, item, np.asarray(offsets))
        more = _at_prior(every[unseen[1]] @ weights, density, level)
        table = _with_unseen(table, *unseen, more)
    order = np.lexsort((table["item"], -table["attraction"], table["query"]))
    return Judgments(
        **{name: value[order] for name, value in table.items()},
        spread=float(np.sqrt(density @ np.square(GRID - density @ GRID))),
        left_out=float(1 - known.sum() / log.mask.sum()),
    )


class _Model:
    """Counts of pairs at places whose examination is known, and posteriors of them."""

    def __init__(self, counted: Cells, theta: np.ndarray, trust: np.ndarray):
        self.counted, self.theta, self.trust = counted, theta, trust
        self.exposure = counted.by_pair(counted.shown * theta)
        self.clicks = counted.by_pair(counted.clicked - counted.shown * trust)
        self.sample = _sample(self.exposure > 0)

    def some(self, kept: np.ndarray) -> "_Model":
        """The pairs that `kept` (P,) bool keeps."""
        inside = kept[self.counted.pair]
        return _Model(self.counted.only(inside), self.theta[inside], self.trust[inside])

    def likelihood(self, gamma: np.ndarray) -> np.ndarray:
        """(P,) log-likelihood of the clicks of each pair."""
        counted = self.counted
        p = np.clip(self.trust + self.theta * gamma[counted.pair], TINY, 1 - TINY)
        rest = counted.shown - counted.clicked
        return counted.by_pair(counted.clicked * np.log(p) + rest * np.log1p(-p))

    def slopes(self, gamma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(P,) score and Fisher information of the logit of attraction."""
        counted = self.counted
        p = np.clip(self.trust + self.theta * gamma[counted.pair], TINY, 1 - TINY)
        pull = self.theta * (counted.clicked - counted.shown * p) / (p * (1 - p))
        bend = counted.shown * np.square(self.theta) / (p * (1 - p))
        slope = gamma * (1 - gamma)
        return slope * counted.by_pair(pull), np.square(slope) * counted.by_pair(bend)

    def prior(self, offset: np.ndarray, design: np.ndarray) -> np.ndarray:
        """(D,) weights w of the greatest likelihood of logits offset + design w."""
        w = np.zeros(design.shape[1])
        for _ in range(20):
            first, second = self.slopes(expit(offset + design @ w))
            curve = (design.T * second) @ design + np.eye(len(w))
            move = np.linalg.solve(curve, design.T @ first - w)
            w += move * min(1.0, 2.0 / max(np.abs(design @ move).max(), TINY))
            if np.abs(move).max() < 1e-6:
                break
        return w

    def posterior(
        self, mean: np.ndarray, density: np.ndarray, level: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(P,) mean, standard deviation and tails of attraction, by quadrature."""
        logits, weight, _ = self._nodes(mean, density)
        value = expit(logits)
        first = (weight * value).sum(axis=0)
        second = (weight * np.square(value - first)).sum(axis=0)
        below = np.cumsum(weight, axis=0) - weight / 2
        tails = ((1 - level) / 2, (1 + level) / 2)
        low, high = (expit(_quantile(below, logits, tail)) for tail in tails)
        return first, np.sqrt(second), low, high

    def evidence(self, mean: np.ndarray, density: np.ndarray) -> float:
        """Log marginal likelihood of all pairs."""
        return float(self._nodes(mean, density)[2].sum())

    def _nodes(
        self, mean: np.ndarray, density: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Logit and posterior weight of each node (N, P), and evidence (P,)."""
        shift = density @ GRID
        spread = np.sqrt(density @ np.square(GRID - shift))
        centre = middle = mean + shift
        for _ in range(12):
            first, second = self.slopes(expit(middle))
            bend = second + spread**-2
            move = (first - (middle - centre) * spread**-2) / bend
            middle = middle + np.clip(move, -1.0, 1.0)
        width = 1 / np.sqrt(bend)
        logits = middle + NODES[:, None] * width
        height = np.interp(logits - mean, GRID, np.log(density))
        height += np.array([self.likelihood(expit(each)) for each in logits])
        total = logsumexp(height, axis=0)
        step = np.log((NODES[1] - NODES[0]) * width)
        return logits, np.exp(height - total), total + step

    def density(self, mean: np.ndarray) -> np.ndarray:
        """(grid,) prior of logits around their mean: weights of `GRID`, by EM."""
        normal = max(map(_normal, SPREADS), key=lambda one: self.evidence(mean, one))
        density = normal
        seen = np.array([self.likelihood(expit(mean + each)) for each in GRID])
        seen = np.exp(seen - seen.max(axis=0))
        for _ in range(PASSES):
            both = density[:, None] * seen
            held = (both / both.sum(axis=0)).sum(axis=1)
            density = (held + WORTH * normal) / (len(mean) + WORTH)
        return np.maximum(density, 1e-12)

    def doubt(self, error: np.ndarray) -> np.ndarray:
        """(P,) relative error of attraction by that of the propensities.

        d log gamma / d log theta_k is minus the share of place k in the exposure.
        """
        counted = self.counted
        relative = np.append(np.nan_to_num(error), 0.0)[counted.rank] / self.theta
        weighed = counted.by_pair(counted.shown * self.theta * relative)
        return weighed / np.maximum(self.exposure, TINY)


def _posteriors(
    model: _Model, mean: np.ndarray, density: np.ndarray, level: float
) -> np.ndarray:
    """(4, P) mean, standard deviation and tails of attraction, piece by piece.

    Pairs that stand at no place of known examination have their prior.
    """
    found = np.array(_at_prior(mean, density, level))
    useful = np.flatnonzero(model.exposure > 0)
    for start in range(0, len(useful), PIECE):
        kept = np.zeros(len(mean), bool)
        kept[useful[start : start + PIECE]] = True
        found[:, kept] = model.some(kept).posterior(mean[kept], density, level)
    return found


def _sample(useful: np.ndarray) -> np.ndarray:
    """(P,) bool, `SAMPLE` of the useful pairs at most, evenly spaced."""
    at = np.flatnonzero(useful)
    kept = np.zeros(len(useful), bool)
    kept[at[np.linspace(0, len(at) - 1, min(len(at), SAMPLE)).astype(int)]] = True
    return kept


def _quantile(below: np.ndarray, value: np.ndarray, at: float) -> np.ndarray:
    """(P,) where the cumulated weights (N, P) pass `at`, linear between nodes."""
    step = np.clip((below < at).sum(axis=0), 1, len(below) - 1)
    pair = np.arange(below.shape[1])
    one, two = below[step - 1, pair], below[step, pair]
    share = np.clip((at - one) / np.maximum(two - one, 1e-300), 0.0, 1.0)
    return value[step - 1, pair] * (1 - share) + value[step, pair] * share


def _query_logits(model: "_Model", query: np.ndarray) -> np.ndarray:
    """(P,) logit of the mean attraction of each pair's query.

    m_q = (clicks of q + t m) / (exposure of q + t), m that of all queries and t the
    strength that makes the log most likely.
    """
    size = int(query.max()) + 1
    exposure = np.bincount(query, model.exposure, size)
    clicks = np.maximum(np.bincount(query, model.clicks, size), 0.0)
    overall = clicks.sum() / exposure.sum()

    def means(strength: float) -> np.ndarray:
        mean = (clicks + strength * overall) / (exposure + strength)
        return logit(np.clip(mean, 1e-4, 1 - 1e-4))[query]

    kept = model.sample
    some = model.some(kept)
    strength = max(STRENGTHS, key=lambda t: some.evidence(means(t)[kept], _normal(0.8)))
    return means(strength)


def _shown(log: ClickLog, query: np.ndarray) -> np.ndarray:
    """(P, 3) how a log showed its pairs: 1, and within the query log impressions and
    mean log rank, both over their means.

    A policy that knows something shows good items often and high.
    """
    counted = cells(log)
    shown = counted.by_pair(counted.shown)
    rank = counted.by_pair(counted.shown * np.log1p(counted.rank)) / shown
    found = np.stack([np.ones(len(shown)), np.log(shown), rank], axis=1)
    for column in found.T[1:]:
        mean = np.bincount(query, column) / np.maximum(np.bincount(query), 1)
        column -= mean[query]
    return found


def _normal(spread: float) -> np.ndarray:
    """(grid,) weights of a normal prior."""
    found = np.exp(-0.5 * np.square(GRID / spread)) + 1e-12
    return found / found.sum()


def _standard(scores: np.ndarray, item: np.ndarray) -> np.ndarray:
    """(items, 2) 1 and the scores, in the mean and spread of the shown items."""
    values = np.asarray(scores, float)
    if values.ndim != 1 or len(values) <= item.max():
        raise ValueError(
            f"scores must be one number for each of {item.max() + 1} items, got shape "
            f"{values.shape}"
        )
    if not np.isfinite(values).all():
        at = int(np.argmin(np.isfinite(values)))
        raise ValueError(f"scores must be finite, got {values[at]} of item {at}")
    some = values[item]
    scaled = (values - some.mean()) / (some.std() or 1.0)
    return np.stack([np.ones(len(values)), scaled], axis=1)


def _counts(log: ClickLog) -> dict[str, Any]:
    """Impressions, clicks, COEC and click rate of each pair over all ranks.

    COEC is clicks over the clicks that the mean item of each rank would have had.
    """
    counted = cells(log)
    by_rank = counted.by_rank(counted.clicked) / np.maximum(
        counted.by_rank(counted.shown), 1
    )
    shown, clicked = counted.by_pair(counted.shown), counted.by_pair(counted.clicked)
    expected = counted.by_pair(counted.shown * by_rank[counted.rank])
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "impressions": shown.astype(np.int64),
            "clicks": clicked.astype(np.int64),
            "coec": clicked / expected,
            "ctr": clicked / shown,
        }


def _unseen(
    query: np.ndarray, item: np.ndarray, offsets: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Query and number of the items that queries of the log have and never showed."""
    owner = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    kept = np.isin(owner, query)
    kept[item] = False
    return owner[kept], np.flatnonzero(kept)


def _at_prior(
    mean: np.ndarray, density: np.ndarray, level: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Mean, standard deviation and tails of attraction by the prior alone."""
    first, second = np.zeros((2, len(mean)))
    for weight, apart in zip(density, GRID, strict=True):
        value = expit(mean + apart)
        first += weight * value
        second += weight * np.square(value)
    second = np.maximum(second - np.square(first), 0.0)
    below = np.cumsum(density) - density / 2
    ends = np.interp([(1 - level) / 2, (1 + level) / 2], below, GRID)
    low, high = expit(mean + ends[:, None])
    return first, np.sqrt(second), low, high


def _with_unseen(
    table: dict[str, np.ndarray],
    query: np.ndarray,
    item: np.ndarray,
    known: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
) -> dict[str, np.ndarray]:
    none, nan = np.zeros(len(item), np.int64), np.full(len(item), np.nan)
    names = ("attraction", "standard_error", "low", "high")
    more = {"query": query, "item": item, **dict(zip(names, known, strict=True))}
    more |= {"impressions": none, "clicks": none, "coec": nan, "ctr": nan}
    return {name: np.concatenate([table[name], more[name]]) for name in table}
