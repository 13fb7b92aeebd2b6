"""Off-policy estimates of the clicks that another ranking policy would get.

`cascade_ips` uses propensities of the logging policy, and `examination_ips` uses
examination by rank. `debias.propensity.slates` has estimators with further inputs:
predicted clicks, or the average placements of items.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import norm

from debias.data import ClickLog, RankingData
from debias.metrics import effective_sample_size
from debias.metrics.statistics import grouped_standard_error
from debias.propensity.impressions import choose_clip

WORTH = 0.1  # effective share of the weights that a chosen clip keeps

FEW = 20  # queries; below, sessions are the units of standard errors


class OffPolicy(NamedTuple):
    """Estimated clicks per session under another policy, with diagnostics.

    Attributes:
        estimator: Name of the estimator.
        value: Estimated clicks per session, with the normal interval `low` to `high`.
        logged: Clicks per session in the log.
        gain: `value` minus `logged`. The confidence interval of this paired difference
            is from `gain_low` to `gain_high`.
        effective: Effective sample size, (sum w)^2 / sum w^2. In the cascade
            estimators, w are the weights of sessions at the rank where this size is
            smallest. In the pseudo-inverse estimator, w are the weights of sessions; in
            the other estimators, w are the weights of clicks.
        clipped: Share of clipped weights. Clipping biases the estimate towards the
            logging policy.
        clip: Largest weight.
        unclipped: Estimated clicks per session without a clip.
        unsupported: Share of the other policy's placements that the log never shows.
            The estimate assumes that these placements get no clicks. The share is 0 if
            unknown.
    """

    estimator: str
    value: float
    low: float
    high: float
    logged: float
    gain: float
    gain_low: float
    gain_high: float
    effective: float
    clipped: float
    clip: float = np.inf
    unclipped: float = np.nan
    unsupported: float = 0.0


def plackett_luce(
    log: ClickLog, data: RankingData, scores: ArrayLike, temperature: float
) -> np.ndarray:
    """(S, L) probability that a Plackett-Luce policy puts each item at its rank.

    P(item at rank k | items above) = w_i / sum of w over the query's remaining items,
    where w_i = exp(z_i / temperature). Here z is the score, centred within its query
    and divided by the standard deviation of all centred scores. The result is 1 at
    padding.

    Args:
        log: The shown lists.
        data: All items of the log's queries, which are the policy's candidates.
        scores: (items,) scores of the policy.
        temperature: Number above 0. At a temperature near 0, the policy sorts by score.

    >>> data = RankingData([[0.0], [1.0]], None, [0, 2])
    >>> log = ClickLog([0], [[1, 0]], [[1, 0]])
    >>> plackett_luce(log, data, [0.0, np.log(3.0)], temperature=2 / np.log(3)).round(6)
    array([[0.75, 1.  ]])
    """
    own, left = shown_and_left(log, data, item_weights(data, scores, temperature))
    return np.where(log.mask, own / np.where(left > 0, left, 1.0), 1.0)


def shown_and_left(
    log: ClickLog, data: RankingData, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(S, L) weight of the item at each rank, and sum over the items not shown above.

    `weight` (items,) is the result of `item_weights`.
    """
    total = np.add.reduceat(weight, data.offsets[:-1])[log.query]
    own = np.where(log.mask, weight[log.item], 0.0)
    above = np.cumsum(own, axis=1) - own
    # The remaining weight includes at least the items shown from here on, despite
    # rounding.
    below = np.cumsum(own[:, ::-1], axis=1)[:, ::-1]
    return own, np.maximum(total[:, None] - above, below)


def item_weights(
    data: RankingData, scores: ArrayLike, temperature: float
) -> np.ndarray:
    """(items,) weights w_i of `plackett_luce`, 1 for the best item of each query.

    Raises:
        ValueError: The temperature is not above 0, or `scores` does not have one finite
            value per item.
    """
    if not 0 < temperature < np.inf:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    scores = np.asarray(scores, float)
    if scores.shape != (data.items,) or not np.isfinite(scores).all():
        raise ValueError(
            f"scores must be {data.items} finite numbers, one for each item"
        )
    starts = data.offsets[:-1]
    centred = scores - np.repeat(
        np.add.reduceat(scores, starts) / data.sizes, data.sizes
    )
    logit = centred / ((centred.std() or 1.0) * temperature)
    logit -= np.repeat(np.maximum.reduceat(logit, starts), data.sizes)
    return np.exp(logit)


def cascade_ips(
    log: ClickLog,
    chance: np.ndarray,
    clip: float | None = 10.0,
    confidence: float = 0.95,
    normalised: bool = True,
) -> OffPolicy:
    """Estimates another policy's clicks per session from logging propensities.

    The weight of session s at rank k is w_sk = min(clip, prod_{j<=k} chance_sj / p_sj),
    where p is the log's `logging_propensity`. With clicks c_sk, the estimate is sum_k
    (sum_s w_sk c_sk / sum_s w_sk), which is self-normalised at each rank. A
    self-normalised estimate is consistent (except for clipping) if a click does not
    depend on lower ranks. Without normalisation, the estimate is sum_k sum_s w_sk c_sk
    / S. The estimate without normalisation is unbiased (except for clipping) and has
    more variance. It equals the inverse propensity weighting (IPW) of other libraries.
    Source: McInerney et al., Counterfactual Evaluation of Slate Recommendations with
    Sequential Reward Interactions, KDD 2020. The delta method gives a normal interval.
    The interval treats queries as independent if the log has at least 20 queries, and
    sessions as independent otherwise.

    Args:
        log: A log with `logging_propensity`.
        chance: (S, L) probability that the other policy puts the shown item at its
            rank, given the items above.
        clip: Largest weight. None chooses the largest clip at which the effective
            number of the weights above 0 is at least a tenth of their number; see
            `debias.propensity.choose_clip`.
        confidence: Confidence level of the intervals.
        normalised: Whether to divide by the sum of weights instead of the number of
            sessions.

    Raises:
        ValueError: The log has no propensities, all propensities are 1, or all weights
            at a rank are 0. Or a probability is outside [0, 1], `clip` is below 1, or
            `confidence` is not in (0, 1).

    >>> log = ClickLog([0, 0], [[0], [1]], [[1], [0]], logging_propensity=[[.5], [.5]])
    >>> found = cascade_ips(log, np.array([[0.9], [0.1]]))
    >>> round(found.value, 6), found.logged, round(found.effective, 3)
    (0.9, 0.5, 1.22)
    """
    chances = log.logging_propensity
    if chances is not None and (chances[log.mask] == 1).all():
        raise ValueError(
            "every logging_propensity is 1: the log of a deterministic policy cannot "
            "evaluate another policy"
        )
    check_options(clip, confidence)
    raw, clip = cascade_weights(log, chance, clip)
    weight = np.minimum(raw, clip)
    total = weight.sum(axis=0)
    if not (total > 0).all():
        rank = int(np.argmin(total > 0)) + 1
        raise ValueError(
            f"the other policy never shows the logged items down to rank {rank}: "
            "give it a higher temperature"
        )
    if normalised:
        rates = (weight * log.click).sum(axis=0) / total
        influence = (weight * (log.click - rates) / (total / len(log))).sum(axis=1)
        value = float(rates.sum())
        unclipped = float(((raw * log.click).sum(axis=0) / raw.sum(axis=0)).sum())
    else:
        earned = (weight * log.click).sum(axis=1)
        value = float(earned.mean())
        influence = earned - value
        unclipped = float((raw * log.click).sum(axis=1).mean())
    return estimated(
        f"{'self-normalised' if normalised else 'plain'} clipped cascade IPS",
        value,
        influence,
        log,
        float((total**2 / (weight**2).sum(axis=0)).min()),
        raw,
        clip,
        unclipped,
        confidence,
    )


def cascade_weights(
    log: ClickLog, chance: np.ndarray, clip: float | None
) -> tuple[np.ndarray, float]:
    """(S, L) unclipped weights of `cascade_ips`, and the clip.

    Raises:
        ValueError: The log has no propensities, or a probability is outside [0, 1].
    """
    if log.logging_propensity is None:
        raise ValueError("log has no column logging_propensity")
    ratio = checked_chance(chance, log) / log.logging_propensity
    raw = np.cumprod(np.where(log.mask, ratio, 1.0), axis=1, dtype=float)
    return raw, chosen_clip(raw[log.mask]) if clip is None else clip


def chosen_clip(weights: np.ndarray) -> float:
    """The largest clip, at least 1, that keeps a tenth of the weights effective."""
    used = weights[weights > 0]
    return max(choose_clip(used, WORTH), 1.0) if used.size else 1.0


def examination_ips(
    log: ClickLog,
    scores: ArrayLike,
    examination: ArrayLike,
    clip: float | None = 10.0,
    confidence: float = 0.95,
) -> OffPolicy:
    """Estimates clicks per session for lists sorted by score, from examination.

    The estimate is mean_s sum_i c_si min(clip, theta_new(i) / theta_shown(i)). Here
    c_si is the click on item i in session s. The values theta_shown(i) and theta_new(i)
    are the examination of the item's rank in the log and after sorting. The estimate is
    unbiased (except for clipping) if clicks follow the position-based model with this
    examination. Source: Joachims et al., Unbiased Learning-to-Rank with Biased
    Feedback, WSDM 2017. The interval is a normal interval. It treats queries as
    independent if the log has at least 20 queries, and sessions as independent
    otherwise. Items with equal scores keep the logged order.

    Args:
        log: The click log.
        scores: (items,) scores by which the other policy sorts.
        examination: (L,) examination by rank, in (0, 1]. Only ratios matter, so divide
            estimates that exceed 1 by their largest value.
        clip: Largest weight. None chooses the largest clip at which the effective
            number of clicks is at least a tenth of the number of clicks.
        confidence: Confidence level of the intervals.

    Raises:
        ValueError: A score of a shown item is not finite, an examination is outside
            (0, 1], `clip` is below 1, or `confidence` is not in (0, 1).

    >>> log = ClickLog([0, 0], [[0, 1], [0, 1]], [[0, 1], [1, 0]])
    >>> found = examination_ips(log, [0.0, 1.0], [1.0, 0.5])
    >>> found.value, found.logged  # (1 / .5 + .5 / 1) / 2
    (1.25, 1.0)
    """
    theta = checked_examination(examination, log.list_size)
    scores = checked_scores(scores, log)
    check_options(clip, confidence)
    shown = np.where(log.mask, scores[log.item], -np.inf)
    order = np.argsort(-shown, axis=1, kind="stable")
    place = np.argsort(order, axis=1, kind="stable")
    # Lists with holes use their own places, from the top.
    places = np.argsort(~log.mask, axis=1, kind="stable")
    raw = theta[np.take_along_axis(places, place, axis=1)] / theta
    if clip is None:
        clip = chosen_clip(raw[log.click])
    weight = np.where(log.mask, np.minimum(raw, clip), 0.0)
    earned = (weight * log.click).sum(axis=1)
    used = weight[log.click]
    return estimated(
        "clipped IPS by examination",
        float(earned.mean()),
        earned - earned.mean(),
        log,
        effective_sample_size(used) if used.any() else 0.0,
        raw,
        clip,
        float(np.where(log.click, raw, 0.0).sum(axis=1).mean()),
        confidence,
    )


def checked_examination(examination: ArrayLike, ranks: int) -> np.ndarray:
    theta = np.asarray(examination, float)
    if theta.shape != (ranks,):
        raise ValueError(
            f"examination must be one number for each of {ranks} ranks, got shape "
            f"{theta.shape}"
        )
    wrong = np.flatnonzero(~((theta > 0) & (theta <= 1)))
    if wrong.size:
        raise ValueError(
            f"examination must be in (0, 1], got {theta[wrong[0]]:g} at rank "
            f"{wrong[0] + 1}; only ratios matter, so divide by the largest"
        )
    return theta


def checked_scores(scores: ArrayLike, log: ClickLog) -> np.ndarray:
    values = np.asarray(scores, float)
    if values.ndim != 1:
        raise ValueError(
            f"scores must be one number per item, got shape {values.shape}"
        )
    log.check(len(values))
    wrong = log.mask & ~np.isfinite(values[log.item])
    if wrong.any():
        item = log.item[wrong][0]
        raise ValueError(f"scores must be finite, got {values[item]} of item {item}")
    return values


def checked_chance(chance: np.ndarray, log: ClickLog) -> np.ndarray:
    values = np.asarray(chance, float)
    if values.shape != log.item.shape:
        raise ValueError(
            f"chance must have the shape {log.item.shape} of the log, got "
            f"{values.shape}"
        )
    wrong = log.mask & ~((values >= 0) & (values <= 1))
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise ValueError(
            f"chance must be in [0, 1], got {values[row, column]} at row {row}, column "
            f"{column}"
        )
    return values


def check_options(clip: float | None, confidence: float) -> None:
    if clip is not None and not clip >= 1:
        raise ValueError(f"clip must be at least 1, got {clip}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be in (0, 1), got {confidence}")


def estimated(
    estimator: str,
    value: float,
    influence: np.ndarray,
    log: ClickLog,
    effective: float,
    raw: np.ndarray,
    clip: float,
    unclipped: float,
    confidence: float,
) -> OffPolicy:
    """Adds intervals, computed from each session's contribution to the error.

    `raw` (S, L) holds the unclipped weights of the cells.
    """
    clicks = log.click.sum(axis=1)
    logged = float(clicks.mean())
    z = float(norm.ppf((1 + confidence) / 2))
    # Sessions of a query are dependent.
    few = len(np.unique(log.query)) < FEW
    units = np.arange(len(log)) if few else log.query
    reach = z * grouped_standard_error(influence, units)
    apart = z * grouped_standard_error(influence - (clicks - logged), units)
    gain = value - logged
    return OffPolicy(
        estimator,
        value,
        value - reach,
        value + reach,
        logged,
        gain,
        gain - apart,
        gain + apart,
        effective,
        float((raw > clip)[log.mask].mean()),
        float(clip),
        unclipped,
    )
