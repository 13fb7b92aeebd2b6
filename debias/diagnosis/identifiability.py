"""Tests whether a log identifies examination; each test returns a verdict.

An item that was shown at two ranks links these ranks: the ratio of its click rates
estimates the ratio of examination. A model can compare two ranks only if a chain of
links connects them. Source: Chen et al., Identifiability Matters: Revealing the Hidden
Recoverable Condition in Unbiased Learning to Rank, ICML 2024.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph
from scipy.stats import chi2, norm

from debias.data import ClickLog
from debias.diagnosis.finding import Finding, Grade, detectable
from debias.metrics import effective_sample_size
from debias.propensity.cells import Cells, cells, components, products
from debias.propensity.estimate import estimate
from debias.propensity.examination import Examination

WEAK = 0.25  # standard error of a log ratio: its 95% interval is a factor of 1.6 wide
# Relevant ratio between click rate and examination. By most published curves, one rank
# further down costs as much, so raw rates would misplace an item by one rank.
MATTERS = 1.5
TINY = 1e-12
NEAR = 1e-3  # nats below the maximum, from which one step reaches it


@dataclass(frozen=True, eq=False)
class Connectivity(Finding):
    """Graph of K ranks, in which an item shown at two ranks links these ranks.

    Attributes:
        pairs: (K, K) int64 number of (query, item) pairs shown at both ranks; on the
            diagonal, number of pairs shown at the rank.
        error: (K, K) float64 standard error of the log ratio of examination at two
            ranks. The error is sqrt(1 / c_k + 1 / c_l). Here c_k and c_l are the clicks
            at ranks k and l on pairs shown at both ranks. The clicks of a pair are
            scaled to its smaller number of impressions at the two ranks. The error is
            inf if c_k or c_l is 0, and 0 on the diagonal.
        component: (K,) int64 index of each rank's connected component; -1 for ranks
            without items. Components are numbered in the order of their first rank.
        swaps: Pairs of ranks, from 1, whose items should be exchanged. All components
            become connected if the items are exchanged in some sessions. Each pair
            consists of the nearest ranks of two components.
        weakest: The two ranks, from 1, of the least precise link in the minimum
            spanning tree by `error`; None without links.
    """

    pairs: np.ndarray
    error: np.ndarray
    component: np.ndarray
    swaps: tuple[tuple[int, int], ...]
    weakest: tuple[int, int] | None

    @property
    def connected(self) -> bool:
        """Whether all ranks with items are connected."""
        return not self.swaps


def connectivity(log: ClickLog, minimum: int = 1, source: str = "all") -> Connectivity:
    """Finds which ranks share (query, item) pairs, and how precise each link is.

    Args:
        log: The click log.
        minimum: Smallest number of impressions at which a pair counts as shown at a
            rank.
        source: "all" uses all changes of an item's rank; "swap" uses only swaps that
            the log marks.

    >>> shown = [[1, 2, 3], [2, 1, 3], [4, 5, 6]]
    >>> log = ClickLog([0, 0, 1], shown, np.eye(3, dtype=bool))
    >>> found = connectivity(log)
    >>> found.component.tolist(), found.swaps
    ([0, 0, 1], ((2, 3),))
    """
    if minimum < 1:
        raise ValueError(f"minimum must be at least 1, got {minimum}")
    counted = cells(log, source)
    ranks, enough = counted.ranks, counted.shown >= minimum
    place = (counted.pair[enough], counted.rank[enough])
    shown = sparse.csc_array((counted.shown[enough], place), (counted.pairs, ranks))
    rate = counted.clicked[enough] / counted.shown[enough]
    rate = sparse.csc_array((rate, place), (counted.pairs, ranks))
    pairs, error = np.zeros((2, ranks, ranks))
    for k in range(ranks):
        own = shown[:, [k]].toarray()
        weight = shown.minimum(sparse.csc_array(np.broadcast_to(own, shown.shape)))
        pairs[k] = (weight > 0).sum(axis=0)
        mine = weight.T @ rate[:, [k]].toarray().ravel()
        other = weight.multiply(rate).sum(axis=0)
        with np.errstate(divide="ignore"):
            error[k] = np.sqrt(1 / mine + 1 / other)
    np.fill_diagonal(error, 0.0)
    component = _components(counted, enough)
    used = component >= 0
    weakest, worst = _weakest(error, used)
    swaps = _swaps(component)
    judged = _judge(component, swaps, weakest, worst)
    return Connectivity(
        pairs.astype(np.int64), error, component, swaps, weakest, **vars(judged)
    )


def _components(counted: Cells, enough: np.ndarray) -> np.ndarray:
    kept = counted.only(enough)
    label = components(kept)
    used = kept.by_rank(kept.shown) > 0
    label[used] = np.unique(label[used], return_inverse=True)[1]
    label[~used] = -1
    return label


def _swaps(component: np.ndarray) -> tuple[tuple[int, int], ...]:
    """The swaps of nearest ranks that connect all components."""
    used = np.flatnonzero(component >= 0)
    apart = np.not_equal.outer(component[used], component[used])
    distance = np.abs(used[:, None] - used) + 0.0
    # Ranks of one component are joined already, so their edges cost almost nothing.
    cost = np.where(apart, distance, 1e-3)
    np.fill_diagonal(cost, 0.0)
    tree = csgraph.minimum_spanning_tree(sparse.csr_array(cost)).tocoo()
    chosen = [
        tuple(sorted((int(used[i]) + 1, int(used[j]) + 1)))
        for i, j in zip(*tree.coords, strict=True)
        if apart[i, j]
    ]
    return tuple((a, b) for a, b in sorted(chosen))


def spanning_tree(error: np.ndarray, used: np.ndarray) -> sparse.coo_array:
    """The links of smallest errors that connect the used ranks, as (ranks, ranks)."""
    cost = np.where(np.isfinite(error) & used & used[:, None], error, 0.0)
    return csgraph.minimum_spanning_tree(sparse.csr_array(cost)).tocoo()


def _weakest(
    error: np.ndarray, used: np.ndarray
) -> tuple[tuple[int, int] | None, float]:
    """The link with the largest error in the spanning tree of smallest errors."""
    tree = spanning_tree(error, used)
    if tree.nnz == 0:
        return None, np.inf
    at = int(np.argmax(tree.data))
    one, other = (int(each[at]) + 1 for each in tree.coords)
    return (min(one, other), max(one, other)), float(tree.data[at])


def _judge(
    component: np.ndarray,
    swaps: tuple[tuple[int, int], ...],
    weakest: tuple[int, int] | None,
    worst: float,
) -> Finding:
    count = component.max(initial=-1) + 1
    pair = f"{weakest[0]} and {weakest[1]}" if weakest else ""
    grade: Grade = "bad"
    if swaps:
        groups = [words(np.flatnonzero(component == c) + 1) for c in range(count)]
        exchanges = ", ".join(f"{a} with {b}" for a, b in swaps)
        verdict = f"Not identified: no item links the ranks {'; '.join(groups)}."
        step = (
            f"Exchange the items of ranks {exchanges} in a small share of sessions; "
            "if that is impossible, let similar ranks share a bias "
            "(debias.propensity.merge_places)."
        )
    elif weakest is None and count == 1 and (component >= 0).sum() == 1:
        verdict, step = "One rank only: there is nothing to compare.", "Log more ranks."
    elif weakest is None:
        verdict = "Not identified: no link has clicks at both ends."
        step = "Collect more clicks."
    elif worst > WEAK:
        grade = "caution"
        verdict = (
            f"Weakly connected: the weakest link, between ranks {pair}, has a standard "
            f"error of {worst:.2f}."
        )
        step = (
            f"Exchange the items of ranks {pair} in more sessions, or log for longer."
        )
    else:
        grade = "good"
        verdict = (
            f"Connected: all ranks are linked. The weakest link, between ranks {pair}, "
            f"has a standard error of {worst:.2f}."
        )
        step = "Estimate examination; nothing needs to be randomised."
    return Finding(verdict=verdict, next_step=step, grade=grade)


def words(ranks: np.ndarray) -> str:
    """Formats ascending ranks as ranges; "" without ranks.

    >>> words(np.array([1, 2, 3, 5]))
    '1-3, 5'
    """
    if not ranks.size:
        return ""
    runs = np.split(ranks, np.flatnonzero(np.diff(ranks) > 1) + 1)
    return ", ".join(f"{r[0]}-{r[-1]}" if len(r) > 1 else f"{r[0]}" for r in runs)


@dataclass(frozen=True, eq=False)
class Profile(Finding):
    """Loss of likelihood if a rank's bias is changed and all else is refitted.

    Attributes:
        position: (K,) int64 rank from 1.
        bias: (K,) float64 fitted bias on the logit scale, 0 at rank 1.
        deltas: (D,) float64 changes of the bias.
        statistic: (K, D) float64, twice the loss of log-likelihood; 0 at rank 1, the
            reference. Compare the statistic with chi-squared with one degree of
            freedom.
        identified: (K,) bool, whether the test rejects the smallest increase and the
            smallest decrease of the bias.
    """

    position: np.ndarray
    bias: np.ndarray
    deltas: np.ndarray
    statistic: np.ndarray
    identified: np.ndarray


def profile(
    log: ClickLog,
    deltas: Sequence[float] = (-3.0, -1.5, 1.5, 3.0),
    level: float = 0.95,
    source: str = "all",
) -> Profile:
    """Tests by profile likelihood which ranks' biases are identified in practice.

    In the additive tabular model, logit P(click at rank k on pair i) = theta_k +
    gamma_i with theta_1 = 0. For each rank, theta_k is fixed at its estimate plus a
    change, and all other parameters are refitted. A rank is identified if the
    likelihood falls significantly for the smallest increase and for the smallest
    decrease of theta_k. Three kinds of pairs contain no information about theta and are
    left out: pairs shown at only one rank, pairs never clicked, and pairs always
    clicked.

    Raises:
        ValueError: `deltas` are not finite numbers of both signs, or `level` is not in
            (0, 1).

    >>> log = ClickLog([0] * 80, [[0, 1], [1, 0]] * 40, [[1, 0], [1, 0], [0, 1], [1, 1],
    ...     [0, 0]] * 16)
    >>> profile(log).identified.tolist()
    [True, True]
    """
    moves = np.sort(np.asarray(deltas, float))
    if not (moves.size and moves[0] < 0 < moves[-1]) or not np.isfinite(moves).all():
        raise ValueError(f"deltas must be finite and of both signs, got {deltas}")
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1), got {level}")
    counted = _telling(cells(log, source))
    ranks = counted.ranks
    unfitted = np.full(counted.pairs, np.nan)
    free = counted.by_rank(counted.shown) > 0
    free[0] = False
    theta, gamma, best = _additive(counted, np.zeros(ranks), free, unfitted)
    statistic = np.zeros((ranks, len(moves)))
    for k in np.flatnonzero(free):
        rest = free.copy()
        rest[k] = False
        for side in (np.flatnonzero(moves < 0)[::-1], np.flatnonzero(moves >= 0)):
            moved, own = theta, gamma
            for d in side:  # from near to far, each started from the one before
                start = moved.copy()
                start[k] = theta[k] + moves[d]
                moved, own, found = _additive(counted, start, rest, own)
                statistic[k, d] = 2 * (best - found)
    statistic = np.maximum(statistic, 0.0)
    critical = chi2.ppf(level, 1)
    below = int(np.flatnonzero(moves < 0)[-1])
    above = int(np.flatnonzero(moves > 0)[0])
    shown = np.any(log.mask, axis=0)
    identified = np.all(statistic[:, [below, above]] > critical, axis=1)
    identified[0] = shown[0]
    theta[~free] = np.nan
    theta[0] = 0.0
    judged = _judge_profile(identified, shown, moves[above])
    return Profile(
        *(np.arange(1, ranks + 1), theta, moves, statistic, identified), **vars(judged)
    )


def _judge_profile(identified: np.ndarray, shown: np.ndarray, move: float) -> Finding:
    """The verdict, given for which ranks a change of the bias by `move` is rejected."""
    lost = np.flatnonzero(shown & ~identified) + 1
    grade: Grade = "bad"
    if not shown[1:].any():
        verdict, step = "One rank only: there is nothing to compare.", "Log more ranks."
    elif lost.size:
        verdict = (
            f"Not identified in practice: the clicks do not contradict moving the bias "
            f"of rank {words(lost)} by {move:g} logits."
        )
        step = "Exchange items between these ranks and the others, or log for longer."
    else:
        grade = "good"
        verdict = (
            "Identified in practice: the clicks contradict moving the bias of any rank "
            f"by {move:g} logits."
        )
        step = "Estimate examination; the intervals show the precision."
    return Finding(verdict=verdict, next_step=step, grade=grade)


def _telling(counted: Cells) -> Cells:
    """The cells of the pairs that contain information about theta, renumbered."""
    clicked, shown = counted.by_pair(counted.clicked), counted.by_pair(counted.shown)
    several = counted.by_pair(np.ones(len(counted.pair))) > 1
    return counted.only((several & (clicked > 0) & (clicked < shown))[counted.pair])


def _additive(
    counted: Cells, theta: np.ndarray, free: np.ndarray, gamma: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """Maximises the likelihood over gamma and the free theta by Newton's method.

    The likelihood is concave, and steps that do not raise it are halved. A gamma that
    is NaN starts at the logit of the pair's click rate.
    """
    clicked, shown = counted.by_pair(counted.clicked), counted.by_pair(counted.shown)
    rate = (clicked + 0.5) / (shown + 1)
    gamma = np.where(np.isnan(gamma), np.log(rate / (1 - rate)), gamma)
    inner = np.ix_(free, free)
    value, p = _predicted(counted, theta, gamma)
    for _ in range(100):
        pull = counted.clicked - counted.shown * p
        weight = counted.shown * p * (1 - p) + TINY
        own, total = counted.by_pair(pull), counted.by_pair(weight)
        part = weight / np.sqrt(total)[counted.pair]
        curve = np.diag(counted.by_rank(weight)) - products(counted, part)
        slope = counted.by_rank(pull - weight * (own / total)[counted.pair])
        step = np.zeros_like(theta)
        # Parameters that no click determines have no slope; a ridge keeps them
        # unchanged.
        ridge = 1e-9 * np.diag(curve).max(initial=TINY) * np.eye(int(free.sum()))
        step[free] = np.linalg.solve(curve[inner] + ridge, slope[free])
        rise = (own - counted.by_pair(weight * step[counted.rank])) / total
        # Far from the maximum, a full step overshoots.
        reach = max(np.abs(step).max(initial=0), np.abs(rise).max(initial=0), TINY)
        scale = min(1.0, 4.0 / reach)
        # Slope times step is twice the gain of the parabola, which is exact near the
        # maximum.
        hoped = float(own @ rise + counted.by_rank(pull)[free] @ step[free]) / 2
        if scale == 1.0 and hoped < NEAR:
            return theta + step, gamma + rise, value + hoped
        gain = -np.inf
        while scale > 1e-6:
            moved = theta + scale * step, gamma + scale * rise
            found, renewed = _predicted(counted, *moved)
            gain = found - value
            if gain >= 0:
                break
            scale /= 2
        if not gain > 0:
            break
        (theta, gamma), value, p = moved, found, renewed
    return theta, gamma, value


def _predicted(
    counted: Cells, theta: np.ndarray, gamma: np.ndarray
) -> tuple[float, np.ndarray]:
    """Log-likelihood of the additive model, and P(click) (M,) of each cell."""
    z = theta[counted.rank] + gamma[counted.pair]
    low = np.exp(-np.abs(z))
    p = np.where(z > 0, 1.0, low) / (1 + low)
    soft = np.maximum(z, 0) + np.log1p(low)
    return float(counted.clicked @ z - counted.shown @ soft), p


@dataclass(frozen=True, eq=False)
class Overlap(Finding):
    """How often a (query, item) pair is shown at more than one of the K ranks.

    Attributes:
        moving: Share of impressions whose pair was shown at more than one rank.
        usual: Share of impressions in which a pair is at its most frequent rank.
        effective: (K,) effective sample size at each rank, divided by the impressions
            there; nan at ranks without items. The weight of an impression is 1 / (share
            of its pair's impressions at this rank), clipped at `clip`.
        logged: Effective sample size of the sessions, divided by the number of
            sessions; nan without logging propensities. The weight of a session is 1 /
            logging propensity of its list, clipped at `clip`.
    """

    moving: float
    usual: float
    effective: np.ndarray
    logged: float


def overlap(log: ClickLog, clip: float = 100.0) -> Overlap:
    """Measures how much the logging policy moves items between ranks.

    >>> overlap(ClickLog([0, 0], [[1, 2], [2, 1]], [[1, 0], [1, 0]])).effective.tolist()
    [1.0, 1.0]
    """
    if not clip >= 1:
        raise ValueError(f"clip must be at least 1, got {clip}")
    counted = cells(log)
    total = counted.by_pair(counted.shown)
    several = counted.by_pair(np.ones(len(counted.pair))) > 1
    moving = float(total[several].sum() / total.sum())
    most = np.zeros(counted.pairs)
    np.maximum.at(most, counted.pair, counted.shown)
    usual = float(most.sum() / total.sum())
    weight = np.minimum(total[counted.pair] / counted.shown, clip)
    first = counted.by_rank(counted.shown * weight)
    second = counted.by_rank(counted.shown * weight**2)
    shown = counted.by_rank(counted.shown)
    with np.errstate(invalid="ignore", divide="ignore"):
        effective = first**2 / second / shown
    logged = np.nan
    if log.logging_propensity is not None:
        odds = 1 / np.maximum(log.list_propensity, 1e-300)
        logged = effective_sample_size(np.minimum(odds, clip)) / log.sessions
    grade: Grade = "caution"
    if moving == 0:
        grade = "bad"
        verdict = "Deterministic: every item has one rank, and weights have no effect."
        step = "Randomise: exchange neighbouring items in a small share of sessions."
    elif np.nanmin(effective) < 0.1 or moving < 0.1:
        verdict = (
            f"Thin overlap: {moving:.0%} of impressions are of items that move. With "
            "weights, the effective sample at the worst rank is "
            f"{np.nanmin(effective):.0%} of its impressions."
        )
        step = "Prefer harvesting or a model to weighting; clip weights if you weight."
    else:
        grade = "good"
        verdict = (
            f"Good overlap: {moving:.0%} of impressions are of items that move. With "
            "weights, the effective sample at the worst rank is "
            f"{np.nanmin(effective):.0%} of its impressions."
        )
        step = "You can use estimators that compare each item with itself."
    return Overlap(
        moving,
        usual,
        effective,
        float(logged),
        verdict=verdict,
        next_step=step,
        grade=grade,
    )


@dataclass(frozen=True, eq=False)
class Confounding(Finding):
    """Comparison of raw click rates with estimated examination at each of K ranks.

    Attributes:
        position: (K,) int64 rank from 1.
        ctr: (K,) float64 click rate relative to rank 1.
        examination: (K,) float64 examination estimated by `method`; nan at ranks whose
            examination the log does not identify.
        z: (K,) float64 difference log(ctr) - log(examination), divided by the standard
            error of the difference; 0 at rank 1. The standard error treats `ctr` and
            `examination` as independent estimates.
        flagged: (K,) bool, whether `ctr` and `examination` differ significantly, after
            correction for tests at several ranks.
        detectable: (K,) float64 smallest ratio of `ctr` to `examination` that is
            flagged with 80% power; 1 at rank 1, nan if unknown.
    """

    position: np.ndarray
    ctr: np.ndarray
    examination: np.ndarray
    z: np.ndarray
    flagged: np.ndarray
    detectable: np.ndarray


def confounding(
    log: ClickLog,
    method: str = "adjacent_chain",
    level: float = 0.95,
    known: Mapping[str, Examination] | None = None,
) -> Confounding:
    """Finds ranks at which raw click rates differ from examination.

    Args:
        log: The click log.
        method: Name of an estimator of examination in `debias.propensity.ESTIMATORS`.
        level: Confidence level. In a log without confounding, the probability that any
            rank is flagged is at most 1 - `level` (Bonferroni's bound).
        known: Estimates already computed from this log, by method.
    """
    known = known or {}
    raw, free = (known.get(m) or estimate(log, m) for m in ("ctr", method))
    with np.errstate(divide="ignore", invalid="ignore"):
        gap = np.log(raw.examination) - np.log(free.examination)
        errors = [e.standard_error / e.examination for e in (raw, free)]
        error = np.hypot(*errors)
        z = np.where(raw.position == 1, 0.0, gap / error)
    critical = norm.ppf(1 - (1 - level) / 2 / max(1, len(z) - 1))
    flagged = np.abs(np.nan_to_num(z)) > critical
    reach = np.exp([detectable(each, critical) for each in error])
    reach = np.where(np.isnan(z), np.nan, reach)
    if flagged.any():
        found = _judge_confounded(raw, free, np.where(flagged, gap, 0.0), method)
    else:
        found = _judge_unconfounded(z, reach, np.any(log.mask, axis=0))
    return Confounding(
        raw.position,
        raw.examination,
        free.examination,
        z,
        flagged,
        reach,
        **vars(found),
    )


def _judge_confounded(
    raw: Examination, free: Examination, gap: np.ndarray, method: str
) -> Finding:
    """The verdict on log ratios, which are 0 at ranks that are not flagged."""
    worst = int(np.argmax(np.abs(gap)))
    verdict = (
        f"Confounded at rank {words(np.flatnonzero(gap) + 1)}: rank {worst + 1} is "
        f"clicked {raw.examination[worst]:.2f} times as often as rank 1 but examined "
        f"{free.examination[worst]:.2f} times as often."
    )
    step = f"Do not read click rates as examination; use {method}."
    return Finding(verdict=verdict, next_step=step, grade="caution")


def _judge_unconfounded(z: np.ndarray, reach: np.ndarray, shown: np.ndarray) -> Finding:
    """The verdict if no rank is flagged."""
    if not shown[1:].any():
        verdict, step = "Unknown: one rank allows no comparison.", "Log more ranks."
        return Finding(verdict=verdict, next_step=step, grade="unknown")
    unknown = np.isnan(z) & shown
    blind = shown & ~unknown & (reach > MATTERS)
    if unknown.any():
        at = words(np.flatnonzero(unknown) + 1)
        verdict = f"Unknown: at rank {at}, nothing can be compared."
        step = "Randomise these ranks; see the connectivity of the log."
        return Finding(verdict=verdict, next_step=step, grade="unknown")
    if blind.any():
        verdict = (
            f"Unknown: at rank {words(np.flatnonzero(blind) + 1)}, this log cannot "
            "show whether click rates mislead by a factor below "
            f"{reach[blind].max():.1f}, and a factor of {MATTERS} matters."
        )
        step = "Use an estimate of examination, not click rates, or log for longer."
        return Finding(verdict=verdict, next_step=step, grade="unknown")
    verdict = (
        "No confounding found: click rates by rank agree with harvesting. A factor of "
        f"{np.nanmax(reach):.2f} would have been found (80% power)."
    )
    step = "You can use either; harvesting stays valid if the policy changes."
    return Finding(verdict=verdict, next_step=step, grade="good")
