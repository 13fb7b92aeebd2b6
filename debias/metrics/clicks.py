"""Metrics of click predictions, and of rankings evaluated by clicks."""

import numpy as np
from numpy.typing import ArrayLike

from debias.metrics.ranking import Cutoff, mrr, recall
from debias.metrics.statistics import estimate


def _sessions(
    clicks: ArrayLike, others: ArrayLike, mask: ArrayLike | None, name: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Checked clicks (bool), the other array, and the mask of items."""
    clicks, others = np.asarray(clicks), np.asarray(others)
    if clicks.ndim != 2 or clicks.shape != others.shape:
        raise ValueError(
            f"clicks and {name} must have the same shape (sessions, list_size), got "
            f"{clicks.shape} and {others.shape}"
        )
    valid = clicks != -1 if mask is None else np.asarray(mask, dtype=bool)
    if valid.shape != clicks.shape:
        raise ValueError(
            f"mask must have the shape of clicks {clicks.shape}, got {valid.shape}"
        )
    clicked = clicks == 1
    if not (clicked | (clicks == 0) | ~valid).all():
        raise ValueError(
            "clicks must be 0 or 1 where an item was displayed, -1 at padding"
        )
    return clicked & valid, others, valid


def _log_likelihood(
    clicks: ArrayLike,
    predictions: ArrayLike,
    mask: ArrayLike | None,
    from_logits: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """The result of `item_log_likelihood`, and the mask of items."""
    clicked, z, valid = _sessions(clicks, predictions, mask, "predictions")
    z = np.where(valid, z, 0.0).astype(z.dtype if z.dtype.kind == "f" else float)
    if np.isnan(z).any():
        row = int(np.flatnonzero(np.isnan(z).any(axis=1))[0])
        raise ValueError(f"predictions of session {row} are not numbers")
    if from_logits:
        z = np.where(clicked, z, -z)
        value = np.minimum(z, 0) - np.log1p(np.exp(-np.abs(z)))
    else:
        if ((z < 0) | (z > 1)).any():
            row = int(np.flatnonzero(((z < 0) | (z > 1)).any(axis=1))[0])
            raise ValueError(
                f"predictions of session {row} are not probabilities; for logits, set "
                "from_logits=True"
            )
        with np.errstate(divide="ignore"):
            value = np.where(clicked, np.log(z), np.log1p(-z))
    return np.where(valid, value, np.zeros((), value.dtype)), valid


def item_log_likelihood(
    clicks: ArrayLike,
    predictions: ArrayLike,
    mask: ArrayLike | None = None,
    from_logits: bool = True,
) -> np.ndarray:
    """Log-probability of each observed click or skip in nats, 0 at padding.

    For a click c and a predicted probability p, the value is c log p + (1 - c) log(1 -
    p). Log-likelihoods are never clipped: a wrong prediction with p = 0 or p = 1 gives
    -inf. Log-likelihoods from logits are exact in both tails.

    Args:
        clicks: `(sessions, list_size)` clicks, 0 or 1, or bool.
        predictions: Click logits or probabilities, in the shape of `clicks`.
        mask: Boolean mask of the cells with items. None means the cells whose click is
            not -1.
        from_logits: bool. Whether `predictions` are logits.

    Returns:
        `(sessions, list_size)` values <= 0.

    >>> item_log_likelihood([[1, 0, -1]], [[0.0, 0.0, 5.0]]).round(6).tolist()
    [[-0.693147, -0.693147, 0.0]]
    """
    return _log_likelihood(clicks, predictions, mask, from_logits)[0]


def session_log_likelihood(
    clicks: ArrayLike,
    predictions: ArrayLike,
    mask: ArrayLike | None = None,
    from_logits: bool = True,
) -> np.ndarray:
    """Sum of `item_log_likelihood` over each session, in nats, `(sessions,)`.

    The sum is the log-likelihood of a session if the model treats clicks as
    independent, or if each prediction is conditional on the clicks above. The clicks of
    a mixture depend on each other, so pass the logits from
    `debias.losses.conditional_logits`.

    >>> session_log_likelihood([[1, 0, -1]], [[0.0, 0.0, 5.0]]).round(6).tolist()
    [-1.386294]
    """
    value = item_log_likelihood(clicks, predictions, mask, from_logits)
    return value.sum(axis=1, dtype=float)


def click_log_likelihood(
    clicks: ArrayLike,
    predictions: ArrayLike,
    mask: ArrayLike | None = None,
    from_logits: bool = True,
) -> float:
    """Mean of `item_log_likelihood` over all shown items, in nats; nan without items.

    >>> round(click_log_likelihood([[1, 0, -1]], [[0.0, 0.0, 5.0]]), 6)
    -0.693147
    """
    value, shown = _log_likelihood(clicks, predictions, mask, from_logits)
    return float(value.sum(dtype=float) / shown.sum()) if shown.any() else float("nan")


def perplexity_per_rank(
    clicks: ArrayLike,
    predictions: ArrayLike,
    mask: ArrayLike | None = None,
    from_logits: bool = True,
) -> np.ndarray:
    """Click perplexity 2^-(mean log2-likelihood) at each rank, `(list_size,)`.

    Perplexity 1 is a perfect prediction, and 2 is a coin flip. The value is nan at a
    rank without items. The arguments are those of `item_log_likelihood`, with columns
    in display order. Dupret and Piwowarski, SIGIR 2008, and PyClick use this metric.

    >>> perplexity_per_rank([[1, 0]], [[0.5, 0.25]], from_logits=False).round(6)
    array([2.      , 1.333333])
    """
    value, shown = _log_likelihood(clicks, predictions, mask, from_logits)
    with np.errstate(invalid="ignore"):  # 0 / 0 where nothing was shown
        return np.exp(-value.sum(axis=0, dtype=float) / shown.sum(axis=0))


def perplexity(
    clicks: ArrayLike,
    predictions: ArrayLike,
    mask: ArrayLike | None = None,
    from_logits: bool = True,
) -> float:
    """Mean of `perplexity_per_rank` over the ranks that have items.

    >>> round(perplexity([[1, 0]], [[0.5, 0.25]], from_logits=False), 6)
    1.666667
    """
    value = perplexity_per_rank(clicks, predictions, mask, from_logits)
    value = value[~np.isnan(value)]
    return float(value.mean()) if len(value) else float("nan")


def click_mrr(
    clicks: ArrayLike, scores: ArrayLike, mask: ArrayLike | None = None
) -> float:
    """Mean reciprocal rank of the first click after re-ranking each list by `scores`.

    The mean is over the sessions with a click, and is nan if no session has a click.
    For values per session, use `mrr`. Clicks have position bias, so this metric favours
    rankers that keep the logged order.

    >>> click_mrr([[0, 1], [0, 0]], [[0.1, 0.9], [0.1, 0.9]])
    1.0
    """
    clicked, scores, valid = _sessions(clicks, scores, mask, "scores")
    return estimate(mrr(clicked.astype(np.int8), scores, mask=valid)).mean


def click_share(
    clicks: ArrayLike,
    scores: ArrayLike,
    k: Cutoff = 1,
    mask: ArrayLike | None = None,
) -> float | np.ndarray:
    """Share of all clicks in the first k ranks after re-ranking by `scores`.

    Returns one number, or `(len(k),)` if `k` is a sequence. The value is nan without
    clicks. `debias.metrics` explains ties, and `click_mrr` explains the bias of the
    metric.

    >>> click_share([[1, 0, 1], [0, 0, 1]], [[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]], k=2)
    0.3333333333333333
    """
    clicked, scores, valid = _sessions(clicks, scores, mask, "scores")
    total = clicked.sum(axis=1)
    share = recall(clicked.astype(np.int8), scores, k, mask=valid)
    some = total > 0
    if not some.any():
        return np.nan * share[0] if share.ndim == 2 else float("nan")
    value = (total[some] @ share[some]) / total.sum()
    return value if share.ndim == 2 else float(value)


def concordant_pairs(
    clicks: ArrayLike,
    scores: ArrayLike,
    stratum: ArrayLike,
    mask: ArrayLike | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts correctly ordered pairs of a clicked and an unclicked item per stratum.

    Use a stratum for each combination of query and position. All items of a stratum
    then have the same examination probability, so an item with more clicks is more
    attractive. This comparison has no position bias and needs no propensities, if
    P(click) is the examination of the position times the attraction of the item.

    Args:
        clicks: `(sessions, list_size)` clicks, 0 or 1, or bool.
        scores: Finite scores, in the shape of `clicks`. A pair with equal scores counts
            one half.
        stratum: Stratum number of each cell, an int of 0 or more, in the shape of
            `clicks`.
        mask: Boolean mask of the cells with items. None means the cells whose click is
            not -1.

    Returns:
        Three arrays `(K,)`, with an entry for each of the K strata that have items: the
        stratum numbers, the counts of correctly ordered pairs, and the counts of all
        pairs. Both counts are divided by the number of cells in the stratum. So every
        cell has the same weight, even if a query has many sessions.

    Source: the AUC within groups of Zhu et al., Optimized Cost per Click in Taobao
    Display Advertising, KDD 2017, with groups of equal examination.

    >>> clicks, scores = [[1, 0], [0, 0], [0, 1]], [[0.9, 0.1], [0.2, 0.5], [0.9, 0.3]]
    >>> stratum, concordant, pairs = concordant_pairs(clicks, scores, [[0, 1]] * 3)
    >>> stratum.tolist(), (3 * concordant).tolist(), (3 * pairs).round().tolist()
    ([0, 1], [1.5, 1.0], [2.0, 2.0])
    """
    clicked, others, valid = _sessions(clicks, scores, mask, "scores")
    group = np.asarray(stratum)
    if group.shape != valid.shape:
        raise ValueError(
            f"stratum must have the shape of clicks {valid.shape}, got {group.shape}"
        )
    s, c, g = others[valid].astype(float), clicked[valid], group[valid]
    if not np.isfinite(s).all():
        raise ValueError("scores must be finite: mask the items that have none")
    order = np.lexsort((s, g))
    s, c, g = s[order], c[order], g[order]
    found, start, size = np.unique(g, return_index=True, return_counts=True)
    number = np.repeat(np.arange(len(found)), size)
    # Mann-Whitney: the ranks of clicked cells in their stratum, with mean ranks for
    # ties, minus their ranks among themselves.
    rank = np.arange(1.0, len(g) + 1) - start[number]
    tied = np.cumsum(np.diff(g, prepend=-1).astype(bool) | (np.diff(s, prepend=0) != 0))
    tied -= 1 if len(tied) else 0
    middle = (np.bincount(tied, rank) / np.maximum(np.bincount(tied), 1))[tied]
    ones = np.bincount(number, c, len(found))
    sums = np.bincount(number, middle * c, len(found))
    return found, (sums - ones * (ones + 1) / 2) / size, ones * (size - ones) / size


def click_concordance(
    clicks: ArrayLike,
    scores: ArrayLike,
    stratum: ArrayLike,
    mask: ArrayLike | None = None,
) -> float:
    """Share of correctly ordered pairs in `concordant_pairs`; 0.5 is chance level.

    The value is nan if no stratum has both a clicked and an unclicked item.

    >>> click_concordance([[1], [0]], [[0.9], [0.2]], [[0], [0]])
    1.0
    """
    _, concordant, pairs = concordant_pairs(clicks, scores, stratum, mask)
    total = pairs.sum()
    return float(concordant.sum() / total) if total else float("nan")
