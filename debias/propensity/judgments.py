"""Judgments from clicks: the debiased attraction of each item for each query.

P(click on pair i at place k) = theta_k gamma_i, where examination theta_k is known, and
1 at rank 1. So gamma_i is the click probability of pair i at rank 1. The prior of
gamma_i is fitted to the log (empirical Bayes). The prior depends on the query, and on
how often and at which ranks the log showed the item. If a pair has many impressions,
its clicks dominate the posterior. If a pair has few impressions, the prior dominates.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtri

from debias.data import ClickLog
from debias.propensity.attraction import (
    Counts,
    at_prior,
    fit_prior,
    posteriors,
    with_queries,
)
from debias.propensity.cells import cells
from debias.propensity.places import Labels, Propensities, known_places

GRADES = 4  # highest grade
FEW = 4.0  # pseudo-impressions of the mean rank of a log
ENOUGH = 20  # clicks that fitting a prior needs
ENDS = (0.01, 0.99)  # quantiles of attraction for the lowest and the highest grade


@dataclass(frozen=True, eq=False)
class Judgments:
    """P (query, item) pairs, sorted by query and decreasing attraction.

    Attributes:
        query, item: (P,) int64 index of the query, and index of the item, in the log.
        attraction: (P,) float64 posterior mean of the click probability at rank 1.
        standard_error: (P,) float64 standard error of attraction, from the posterior
            and the errors of the propensities. The errors of the propensities are
            assumed to be fully correlated across the places of a pair, so the standard
            error is an upper bound.
        low, high: (P,) float64 limits of the shortest interval with the posterior
            probability `level`, widened by the errors of the propensities.
        impressions, clicks: (P,) int64 counts; 0 for pairs that were never shown.
        coec: (P,) float64 clicks divided by the clicks of an average item at the same
            ranks; nan without impressions. COEC (clicks over expected clicks) is usual
            in search engines, but confounds rank and relevance.
        ctr: (P,) float64 clicks over impressions.
        prior: Shape of the prior, "normal" or "beta"; the shape with the higher
            likelihood is chosen.
        spread: Spread of the prior: s on the logit scale, or phi^-1/2 of Beta(phi mu,
            phi (1 - mu)).
        left_out: Share of impressions at places with unknown examination.
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
    prior: str
    spread: float
    left_out: float

    def __len__(self) -> int:
        return len(self.item)

    def grades(self, highest: int = GRADES) -> np.ndarray:
        """(P,) int64 grades from 0 to `highest`, with NDCG gains linear in attraction.

        The grade is log2(1 + (2^highest - 1) a), rounded. Here a is attraction, scaled
        so that its 1% quantile is 0 and its 99% quantile is 1, and clipped to [0, 1].
        NDCG's gain 2^grade - 1 is then linear in attraction. If all pairs have equal
        attraction, all get the highest grade.

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

    def shuffled(self, seed: int = 0) -> np.ndarray:
        """(P,) int64 order of the rows: by query, and random within each query.

        Tree learners break ties of scores by the order of the rows. If rows are sorted
        by attraction, metrics are too high as long as scores tie, and training stops
        too early.
        """
        order = np.random.default_rng(seed).permutation(len(self))
        return order[np.argsort(self.query[order], kind="stable")]

    def columns(self) -> dict[str, np.ndarray]:
        """The table as columns, one row per pair, with indices of queries and items."""
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
    fresh: np.ndarray | None = None,
    level: float = 0.95,
) -> Judgments:
    """Estimates the attraction of every pair in a log by empirical Bayes.

    The posterior of gamma_i is proportional to its prior times prod_k (theta_k
    gamma_i)^c_ik (1 - theta_k gamma_i)^(n_ik - c_ik). Here n_ik and c_ik are the
    impressions and clicks of pair i at place k. If the propensities have a trust bias
    beta_k, P(click) is beta_k + theta_k gamma_i instead of theta_k gamma_i. The prior
    is logistic normal or Beta; the shape with the higher likelihood is chosen. The
    centre of the prior is m_i = d_i w + u, where u is an effect of the query. The
    covariates d_i are the log share of the query's sessions that showed the item, and
    the mean log rank of the item. These covariates matter because a good policy shows
    good items often and high. If `scores` are given, d_i is the score of the item
    instead. The coefficients w, the spread of u and the spread of the prior maximise
    the marginal likelihood of the log; see `debias.propensity.attraction`.

    Args:
        log: The click log.
        propensities: Estimated examination at each place of the log. Impressions at
            places with unknown examination are left out.
        names: For each column that defines places, the labels of the codes 1, 2 and so
            on. The propensities must use the same labels.
        scores: (items,) scores of a ranker. Attractions are shrunk towards their
            predictions from the scores. With `offsets`, pairs that were never shown get
            the prediction from their score.
        offsets: (queries + 1,) `offsets` of the ranking data: query q has the items
            offsets[q] to offsets[q + 1] - 1. With `scores` and `offsets`, all items of
            the log's queries are judged.
        fresh: (S,) bool, sessions that were not used to train the scores. The prior is
            fitted to the fresh sessions, so that its spread includes the error of the
            scores on new clicks. All sessions are used if `fresh` is None, or if the
            fresh sessions have fewer than 20 clicks.
        level: Confidence level of the intervals.

    Raises:
        ValueError: No click is at a place with known examination. Or `scores` do not
            cover the items, or are not finite.

    Source: after Morris, Parametric Empirical Bayes Inference, JASA 1983.

    >>> log = ClickLog([0] * 40, [[0, 1], [1, 0]] * 20, [[1, 0], [0, 0]] * 20)
    >>> found = judge(log, Propensities.of([1.0, 0.5]))
    >>> found.item.tolist(), bool(found.attraction[0] > 0.5)
    ([0, 1], True)
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1), got {level}")
    place = known_places(propensities, log, names)
    counts, query, item = _counted(log, place, propensities)
    every = None if scores is None else _standard(scores, item)
    design = _shown(log, query) if every is None else every[item]
    prior = None
    if every is not None and fresh is not None and _enough(log, place, fresh):
        told, *where = _counted(log.take(fresh), place[fresh], propensities)
        prior = fit_prior(told, where[0], every[where[1]])
    prior = prior or fit_prior(counts, query, design)
    prior = with_queries(prior, counts, query, design)
    found, error, low, high = posteriors(counts, prior.around(design, query), level)
    doubt = found * counts.doubt(propensities.standard_error)
    reach = ndtri((1 + level) / 2) * doubt
    table = {
        **{"query": query, "item": item, "attraction": found},
        "standard_error": np.hypot(error, doubt),
        "low": np.maximum(found - np.hypot(found - low, reach), 0.0),
        "high": np.minimum(found + np.hypot(high - found, reach), 1.0),
        **_counts(log),
    }
    if every is not None and offsets is not None:
        unseen = _unseen(query, item, np.asarray(offsets))
        more = at_prior(prior.around(every[unseen[1]], unseen[0]), level)
        table = _with_unseen(table, *unseen, more)
    order = np.lexsort((table["item"], -table["attraction"], table["query"]))
    return Judgments(
        **{name: value[order] for name, value in table.items()},
        prior=type(prior.shape).__name__.lower(),
        spread=prior.spread,
        left_out=float(1 - (place >= 0).sum() / log.mask.sum()),
    )


def _counted(
    log: ClickLog, place: np.ndarray, propensities: Propensities
) -> tuple[Counts, np.ndarray, np.ndarray]:
    """Counts of the pairs of a log, given places (S, L); their query and item (P,)."""
    counted = cells(log, "all", place)
    assert counted.names is not None
    theta = propensities.examination
    trust = np.zeros(len(theta)) if propensities.trust is None else propensities.trust
    counts = Counts(counted, theta[counted.rank], trust[counted.rank])
    return counts, counted.names.query, counted.names.item


def _enough(log: ClickLog, place: np.ndarray, fresh: np.ndarray) -> bool:
    """Whether the sessions `fresh` (S,) bool have enough clicks to fit a prior."""
    if np.shape(fresh) != (log.sessions,) or np.asarray(fresh).dtype != bool:
        raise ValueError(
            f"fresh must be {log.sessions} bools, one per session, got shape "
            f"{np.shape(fresh)} of {np.asarray(fresh).dtype}"
        )
    return int((log.click & (place >= 0))[fresh].sum()) >= ENOUGH


def _shown(log: ClickLog, query: np.ndarray) -> np.ndarray:
    """(P, 3) features of how a log showed its pairs.

    The features are 1, the log share of the query's sessions, and the mean log rank.
    The last two are standardised. With few impressions, the mean log rank is shrunk
    towards the mean of all pairs. A policy that knows the items shows good items often
    and high.
    """
    counted = cells(log)
    shown = counted.by_pair(counted.shown)
    ranks = counted.by_pair(counted.shown * np.log1p(counted.rank))
    rank = (ranks + FEW * ranks.sum() / shown.sum()) / (shown + FEW)
    share = np.log((shown + 0.5) / (np.bincount(log.query)[query] + 1))
    return np.stack([np.ones(len(shown)), _scaled(share), _scaled(rank)], axis=1)


def _scaled(values: np.ndarray) -> np.ndarray:
    """Scales values to mean 0 and spread 1."""
    return (values - values.mean()) / (values.std() or 1.0)


def _standard(scores: np.ndarray, item: np.ndarray) -> np.ndarray:
    """(items, 2) 1, and the scores scaled by mean and spread of the shown items."""
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

    COEC is clicks divided by the expected clicks of an average item at the same ranks.
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
    """Query and index of each item of the log's queries that was never shown."""
    owner = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    kept = np.isin(owner, query)
    kept[item] = False
    return owner[kept], np.flatnonzero(kept)


def _with_unseen(
    table: dict[str, np.ndarray],
    query: np.ndarray,
    item: np.ndarray,
    known: np.ndarray,
) -> dict[str, np.ndarray]:
    none, nan = np.zeros(len(item), np.int64), np.full(len(item), np.nan)
    names = ("attraction", "standard_error", "low", "high")
    more = {"query": query, "item": item, **dict(zip(names, known, strict=True))}
    more |= {"impressions": none, "clicks": none, "coec": nan, "ctr": nan}
    return {name: np.concatenate([table[name], more[name]]) for name in table}
