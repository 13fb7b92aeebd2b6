"""Off-policy estimators that use predicted clicks or placements of items.

| estimator | needs | unbiased if |
|---|---|---|
| `cascade_dr` | propensities, predicted clicks | clicks do not depend on lower ranks |
| `pbm_ips` | examination, placements under both policies | clicks are position-based |
| `pseudo_inverse` | placements under both policies | clicks of a list add up by rank |
"""

import numpy as np
from numpy.typing import ArrayLike

from debias.data import ClickLog, RankingData
from debias.metrics import effective_sample_size
from debias.propensity.off_policy import (
    OffPolicy,
    cascade_weights,
    check_options,
    checked_examination,
    chosen_clip,
    estimated,
    item_weights,
    shown_and_left,
)

DRAWS = 256  # lists of a policy whose placements are counted


def placements(
    data: RankingData,
    scores: ArrayLike,
    temperature: float,
    ranks: int,
    draws: int = DRAWS,
    seed: int = 0,
    log: ClickLog | None = None,
) -> np.ndarray:
    """(items, ranks) share of a policy's lists in which an item is at a rank.

    The share is counted in `draws` lists of each query, drawn from
    `off_policy.plackett_luce`. The standard error of a share p is the square root of p
    (1 - p) / draws.

    Args:
        data: All items of the queries.
        scores: (items,).
        temperature: See `plackett_luce`.
        ranks: L, the number of ranks in a list.
        draws: Number of lists per query.
        seed: Random seed of the draws.
        log: Log whose lists the policy fills. Lists are drawn for its queries only, and
            each rank is filled as often as in the query's sessions, so that short lists
            stay short. Items of other queries get 0. None means full lists for all
            queries.

    Raises:
        ValueError: `scores` or `temperature` is invalid (see `plackett_luce`), `draws`
            or `ranks` is below 1, or `log` has other ranks.

    >>> data = RankingData([[0.0], [1.0]], None, [0, 2])
    >>> placements(data, [0.0, 5.0], temperature=0.01, ranks=2).tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    >>> log = ClickLog([0, 0], [[0, 1], [1, -1]], [[0, 1], [1, 0]])
    >>> placements(data, [0.0, 5.0], temperature=0.01, ranks=2, log=log).tolist()
    [[0.0, 0.5], [1.0, 0.0]]
    """
    if draws < 1 or ranks < 1:
        raise ValueError(f"draws and ranks must be at least 1, got {draws} and {ranks}")
    with np.errstate(divide="ignore"):
        logit = np.log(item_weights(data, scores, temperature))
    rng, query = np.random.default_rng(seed), data.query_of_item()
    rank = np.arange(data.items) - np.repeat(data.offsets[:-1], data.sizes)
    item = np.arange(data.items)
    if log is not None:
        if log.list_size != ranks:
            raise ValueError(f"the log has {log.list_size} ranks, got ranks={ranks}")
        item = np.flatnonzero(np.isin(query, log.query))
    logit, query, rank = logit[item], query[item], rank[item]
    shown, count = rank < ranks, np.zeros((data.items, ranks))
    for _ in range(draws):
        # Sorting logits with Gumbel noise draws from Plackett-Luce.
        order = item[np.lexsort((-(logit + rng.gumbel(size=len(item))), query))]
        count[order[shown], rank[shown]] += 1
    share = count / draws
    return share if log is None else _as_filled(share, data.query_of_item(), log)


def _as_filled(share: np.ndarray, query: np.ndarray, log: ClickLog) -> np.ndarray:
    """Moves the shares (items, L) of full lists to the ranks that a log fills.

    The item that a full list has at rank j is the j-th item of a shorter list, or of a
    list with empty ranks, or is left out.
    """
    number = np.cumsum(log.mask, axis=1) - 1  # of the items above
    sessions = np.bincount(log.query, minlength=query.max() + 1)
    found = np.zeros_like(share)
    for j in range(log.list_size):
        row, rank = np.nonzero(log.mask & (number == j))
        filled = np.zeros((len(sessions), log.list_size))
        np.add.at(filled, (log.query[row], rank), 1)
        filled /= np.maximum(sessions, 1)[:, None]
        found += share[:, j, None] * filled[query]
    return found


def logged_placements(log: ClickLog, items: int) -> np.ndarray:
    """(items, L) share of a query's sessions that showed an item at a rank.

    >>> log = ClickLog([0, 0], [[1, 0], [1, 2]], [[0, 0], [1, 0]])
    >>> logged_placements(log, items=3).tolist()
    [[0.0, 0.5], [1.0, 0.0], [0.0, 0.5]]
    """
    log.check(items)
    count = np.zeros((items, log.list_size))
    row, rank = np.nonzero(log.mask)
    np.add.at(count, (log.item[row, rank], rank), 1)
    sessions = np.zeros(items)
    asked = np.bincount(log.query)
    sessions[log.item[row, rank]] = asked[log.query[row]]
    return count / np.maximum(sessions, 1)[:, None]


def guesses(
    log: ClickLog,
    data: RankingData,
    scores: ArrayLike,
    temperature: float,
    click: np.ndarray,
    draws: int = DRAWS,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Computes `taken` and `expected` of `cascade_dr` for a Plackett-Luce policy.

    Let q(i, k) be the predicted `click` of item i at rank k, and a_k the item that the
    log shows at rank k. Let h_k be the predicted clicks below rank k, averaged over the
    other policy's lists of the query. Then

        taken = q(a_k, k) + h_k,
        expected = E[q(a_k, k) | items above] + h_k.

    The expectation under the other policy is exact, and h_k comes from `placements`.
    With these values, `cascade_dr` is unbiased for any prediction.

    Args:
        log: The shown lists.
        data: All items of the queries.
        scores, temperature: Parameters of the other policy; see
            `off_policy.plackett_luce`.
        click: (items, L) predicted P(click) of each item at each rank.
        draws, seed: See `placements`.

    Raises:
        ValueError: `scores`, `temperature` or `draws` is invalid (see `placements`), or
            a prediction is outside [0, 1].
    """
    click = np.asarray(click, float)
    if click.shape != (data.items, log.list_size):
        raise ValueError(
            f"click must have shape ({data.items}, {log.list_size}), one value for "
            f"each item and rank, got {click.shape}"
        )
    if not ((click >= 0) & (click <= 1)).all():
        raise ValueError("click must be probabilities in [0, 1]")
    weight = item_weights(data, scores, temperature)
    starts, mask = data.offsets[:-1], log.mask
    own, left = shown_and_left(log, data, weight)
    gain = np.add.reduceat(weight[:, None] * click, starts)[log.query]
    expected = np.zeros(mask.shape)
    for k in range(log.list_size):
        worth = own * np.where(mask, click[log.item, k], 0.0)
        rest = gain[:, k] - worth[:, :k].sum(axis=1)
        rest = np.clip(rest, worth[:, k:].sum(axis=1), left[:, k])
        expected[:, k] = rest / np.where(left[:, k] > 0, left[:, k], 1.0)
    share = placements(data, scores, temperature, log.list_size, draws, seed, log)
    by_rank = np.add.reduceat(share * click, starts)[log.query]
    rest_below = np.cumsum(by_rank[:, ::-1], axis=1)[:, ::-1] - by_rank
    taken = np.where(mask, click[log.item, np.arange(log.list_size)], 0.0) + rest_below
    return np.where(mask, taken, 0.0), np.where(mask, expected + rest_below, 0.0)


def cascade_dr(
    log: ClickLog,
    chance: np.ndarray,
    taken: np.ndarray,
    expected: np.ndarray,
    clip: float | None = 10.0,
    confidence: float = 0.95,
) -> OffPolicy:
    """Doubly robust cascade estimate of another policy's clicks per session.

    With the weights w_sk = min(clip, prod_{j<=k} chance_sj / p_sj) of `cascade_ips`,
    and w_s0 = 1,

        value = mean_s sum_k [w_sk (c_sk - taken_sk) + w_s,k-1 expected_sk].

    The values taken_sk must be a function of the items at ranks 1 to k. The values
    expected_sk must be the mean of taken_sk over the items that the other policy may
    put at rank k. The estimator is then unbiased under the same conditions as
    `cascade_ips` without normalisation. Better predictions reduce its variance. Source:
    Kiyohara et al., Doubly Robust Off-Policy Evaluation for Ranking Policies under the
    Cascade Behavior Model, WSDM 2022. The interval is computed as in `cascade_ips`.

    Args:
        log: A log with `logging_propensity`.
        chance: (S, L) probability that the other policy puts the shown item at its
            rank, given the items above.
        taken: (S, L) predicted clicks at rank k and below, given the items at ranks 1
            to k.
        expected: (S, L) mean of `taken` under the other policy. `guesses` returns
            `taken` and `expected`.
        clip: Largest weight. None chooses the clip as in `cascade_ips`.
        confidence: Confidence level of the intervals.

    Raises:
        ValueError: The log has no propensities, or an array has a wrong shape or a
            value out of range.

    >>> log = ClickLog([0, 0], [[0], [1]], [[1], [0]], logging_propensity=[[.5], [.5]])
    >>> chance = np.array([[0.9], [0.1]])
    >>> found = cascade_dr(log, chance, [[0.8], [0.1]], [[0.73], [0.73]])
    >>> round(found.value, 6)  # (1.8 * .2 + .73 - .2 * .1 + .73) / 2
    0.9
    """
    check_options(clip, confidence)
    raw, clip = cascade_weights(log, chance, clip)
    guess = [np.asarray(each, float) for each in (taken, expected)]
    for name, each in zip(("taken", "expected"), guess, strict=True):
        if each.shape != log.item.shape or not np.isfinite(each[log.mask]).all():
            raise ValueError(
                f"{name} must be finite numbers of shape {log.item.shape}, got shape "
                f"{each.shape}"
            )

    def earned(weight: np.ndarray) -> np.ndarray:
        before = np.concatenate([np.ones((len(log), 1)), weight[:, :-1]], axis=1)
        terms = weight * (log.click - guess[0]) + before * guess[1]
        return np.where(log.mask, terms, 0.0).sum(axis=1)

    weight = np.minimum(raw, clip)
    each = earned(weight)
    total = weight.sum(axis=0)
    return estimated(
        "clipped doubly robust cascade",
        float(each.mean()),
        each - each.mean(),
        log,
        float((total**2 / np.maximum((weight**2).sum(axis=0), 1e-300)).min()),
        raw,
        clip,
        float(earned(raw).mean()),
        confidence,
    )


def pbm_ips(
    log: ClickLog,
    target: np.ndarray,
    examination: ArrayLike,
    logged: np.ndarray | None = None,
    clip: float | None = 10.0,
    confidence: float = 0.95,
) -> OffPolicy:
    """Estimates another policy's clicks per session from the examination of items.

    A click on item i has the weight min(clip, sum_k theta_k target_ik / sum_k theta_k
    logged_ik). The ratio is the expected examination of the item under the other
    policy, divided by the expected examination in the log. The estimate is the sum of
    the weights of all clicks, divided by the number of sessions. The estimate is
    unbiased (except for clipping) if clicks follow the position-based model with this
    examination. Weights of single items have less variance than weights of whole lists.
    Source: Li et al., Offline Evaluation of Ranking Policies with Click Models, KDD
    2018. The interval treats placements and examination as known.

    Args:
        log: The click log.
        target: (items, L) share of lists in which the other policy shows an item at a
            rank, from `placements`. If lists differ in length, give `placements` the
            log.
        examination: (L,) examination by rank, in (0, 1]; only ratios matter.
        logged: (items, L) share of lists in which the logging policy shows an item at a
            rank. None counts this share in the log.
        clip: Largest weight. None chooses the largest clip at which the effective
            number of clicks is at least a tenth of the number of clicks with a weight
            above 0.
        confidence: Confidence level of the intervals.

    Raises:
        ValueError: A share is outside [0, 1], arrays differ in shape, the log shows an
            item that `logged` excludes, or an option is out of range.

    >>> log = ClickLog([0, 0], [[0, 1], [1, 0]], [[1, 0], [0, 1]])
    >>> always = np.array([[1.0, 0.0], [0.0, 1.0]])  # item 0 first
    >>> round(pbm_ips(log, always, [1.0, 0.5]).value, 4)  # 2 clicks, 1 / .75 each
    1.3333
    """
    theta = checked_examination(examination, log.list_size)
    check_options(clip, confidence)
    target = _checked_shares("target", target, log)
    if logged is None:
        logged = logged_placements(log, len(target))
    logged = _checked_shares("logged", logged, log, len(target))
    new, old = target @ theta, logged @ theta
    shown = np.unique(log.item[log.mask])
    if not (old[shown] > 0).all():
        item = shown[np.argmin(old[shown] > 0)]
        raise ValueError(
            f"logged says that item {item} is never shown, but the log shows it"
        )
    ratio = np.divide(new, old, out=np.zeros(len(new)), where=old > 0)
    raw = np.where(log.mask, ratio[log.item], 0.0)
    if clip is None:
        clip = chosen_clip(raw[log.click])
    weight = np.minimum(raw, clip)
    earned = (weight * log.click).sum(axis=1)
    used = weight[log.click]
    found = estimated(
        "clipped IPS by examined placements",
        float(earned.mean()),
        earned - earned.mean(),
        log,
        effective_sample_size(used) if used.any() else 0.0,
        raw,
        clip,
        float((raw * log.click).sum(axis=1).mean()),
        confidence,
    )
    return found._replace(unsupported=_unsupported(log, new, theta))


def pseudo_inverse(
    log: ClickLog,
    target: np.ndarray,
    lists: ClickLog | None = None,
    confidence: float = 0.95,
) -> OffPolicy:
    """Estimates another policy's clicks per session by the pseudo-inverse.

    Let 1_s be the indicator vector of the (item, rank) pairs in the list of session s.
    Let Gamma = E[1_s 1_s'] over the lists that the logging policy shows to the query.
    Then

        weight_s = target' Gamma^+ 1_s,   value = mean_s weight_s clicks_s.

    The estimate is unbiased under two conditions. First, the expected clicks of a list
    are a sum of terms for (item, rank) pairs. Second, the log shows every (item, rank)
    pair that the other policy shows. The weights may be negative. Source: Swaminathan
    et al., Off-policy Evaluation for Slate Recommendation, NIPS 2017. The interval
    treats Gamma as known.

    Args:
        log: The click log.
        target: (items, L) share of lists in which the other policy shows an item at a
            rank, from `placements`. If lists differ in length, give `placements` the
            log.
        lists: Lists drawn from the logging policy, to estimate Gamma. More lists give a
            better estimate. The clicks in these lists are ignored. None uses the lists
            of the log, which must then have several sessions for each (item, rank)
            pair. With fewer sessions, Gamma^+ selects the least-squares solution with
            the smallest norm, and the interval is too short.
        confidence: Confidence level of the intervals.

    Raises:
        ValueError: A share is outside [0, 1], `lists` lack a query of the log, or the
            confidence is not in (0, 1).

    >>> log = ClickLog([0, 0], [[0], [1]], [[1], [0]])
    >>> found = pseudo_inverse(log, np.array([[0.9], [0.1]]))
    >>> round(found.value, 6)  # Gamma = diag(.5, .5): weights 1.8 and .2
    0.9
    """
    check_options(None, confidence)
    target = _checked_shares("target", target, log)
    lists = log if lists is None else lists
    weight, covered = np.zeros(len(log)), np.zeros(len(log))
    of_query = _rows_by_query(lists)
    for query, rows in _rows_by_query(log).items():
        if query not in of_query:
            raise ValueError(
                f"lists must have every query of the log, but lack {query}"
            )
        drawn = lists.item[of_query[query]]
        weight[rows], covered[rows] = _pair_weights(drawn, log.item[rows], target)
    clicks = log.click.sum(axis=1)
    earned = weight * clicks
    value = float(earned.mean())
    found = estimated(
        "pseudo-inverse",
        value,
        earned - value,
        log,
        float(weight.sum() ** 2 / max((weight**2).sum(), 1e-300)),
        np.zeros(log.item.shape),
        np.inf,
        value,
        confidence,
    )
    return found._replace(unsupported=max(0.0, 1.0 - float(covered.mean())))


def _pair_weights(
    drawn: np.ndarray, asked: np.ndarray, target: np.ndarray
) -> tuple[np.ndarray, float]:
    """target' Gamma^+ 1_s of the lists `asked` (S, L) of a query.

    Gamma comes from the lists `drawn` (D, L). The second result is the share of the
    target's placements that these lists show.
    """
    ranks = drawn.shape[1]
    code = np.where(drawn >= 0, drawn * ranks + np.arange(ranks), -1)
    pairs, number = np.unique(code[code >= 0], return_inverse=True)
    shown = np.zeros((len(drawn), len(pairs)))
    shown[np.nonzero(code >= 0)[0], number] = 1.0
    goal = target[pairs // ranks, pairs % ranks]
    if len(drawn) >= len(pairs):
        values, vectors = np.linalg.eigh(shown.T @ shown)
    else:  # eigenvectors of nonzero eigenvalues
        _, singular, rows = np.linalg.svd(shown, full_matrices=False)
        values, vectors = singular**2, rows.T
    kept = values > 1e-10 * values.max()
    inner = (vectors[:, kept].T @ goal) * len(drawn) / values[kept]
    each = vectors[:, kept] @ inner
    own = np.where(asked >= 0, asked * ranks + np.arange(ranks), -1)
    place = np.minimum(np.searchsorted(pairs, own), len(pairs) - 1)
    weight = np.where(pairs[place] == own, each[place], 0.0).sum(axis=1)
    return weight, float(goal.sum() / (drawn >= 0).sum(axis=1).mean())


def _rows_by_query(log: ClickLog) -> dict[int, np.ndarray]:
    order = np.argsort(log.query, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(log.query[order])) + 1)
    return {int(log.query[rows[0]]): rows for rows in parts}


def _unsupported(log: ClickLog, new: np.ndarray, theta: np.ndarray) -> float:
    """Share of another policy's examination that falls on items not in the log."""
    seen = total = 0.0
    for rows in _rows_by_query(log).values():
        shown = np.unique(log.item[rows])
        seen += len(rows) * new[shown[shown >= 0]].sum()
        total += (log.mask[rows] @ theta).sum()
    return max(0.0, float(1.0 - seen / total))


def _checked_shares(
    name: str, shares: np.ndarray, log: ClickLog, items: int | None = None
) -> np.ndarray:
    """Checks (items, L) shares, and converts them to floats."""
    values = np.asarray(shares, float)
    wanted = values.shape[:1] if items is None else (items,)
    if values.ndim != 2 or values.shape != (*wanted, log.list_size):
        raise ValueError(
            f"{name} must have a row for each item and {log.list_size} ranks, got "
            f"shape {values.shape}"
        )
    log.check(len(values))
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"{name} must be shares in [0, 1]")
    return values
