"""The dual learning algorithm in tabular or linear form.

Source: Ai et al., Unbiased Learning to Rank with Unbiased Propensity Estimation, SIGIR
2018. The algorithm has two listwise softmax losses, one for scores f of the items and
one for scores g of the ranks. The scores of one loss determine the weights of the other
loss. If c_l is the click (0 or 1) at rank l, the losses are

    sum_l c_l w_l [-log softmax(f)_l],    w_l = min(cap, softmax(g)_1 / softmax(g)_l)
    sum_l c_l v_l [-log softmax(g)_l],    v_l = min(cap, softmax(f)_1 / softmax(f)_l)

If P(click) = theta_k r_i, then exp f = r and exp g = theta, up to scale, minimise both
losses. The weights are held constant while a loss is minimised. So the solution is a
point that is stationary for both losses, not a minimum of their sum.

In the tabular form, which has a free f for each pair, a stationary point may not exist.
If an item gets all clicks on the lists that show it, its f is infinite. If most items
have one or two clicks, the few lists with an item of infinite f dominate the losses. As
a result, g follows these few lists, and the weights grow without bound. The weights are
capped only if items have few clicks, measured by `Solution.clicks`. With capped
weights, the result is finite but biased, because f is fitted to the same clicks that it
weights.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import sparse

from debias.data import ClickLog
from debias.propensity.cells import Pairs, pairs, typical
from debias.propensity.pbm_maximum import accelerated
from debias.propensity.position_based import checked, squared

FLOOR = -20.0  # log attraction of an item that is never clicked
# Clicks that the tabular form needs on the item of the median click. On simulated logs
# with fewer, ranks were off by a factor of two or more, without a cap by up to 10^5.
FEW = 50
CAP = 10.0  # largest weight if there are fewer, as usual in inverse weighting
PIECE = 1 << 14  # lists per piece
CURVES = 3  # passes that compute the curvature
MOVE = 2.0  # largest move of f or g in one pass, in logits


@dataclass(frozen=True, eq=False)
class Pages:
    """The U distinct result lists of a log, with K ranks.

    Attributes:
        pair: (U, K) int64 index of each cell's pair; P at padding.
        mask: (U, K) bool, False at padding.
        pairs: The P (query, item) pairs of the log.
        clicked: (U * K, S) sparse matrix; an entry is 1 if the session clicked the rank
            of the list, else 0.
    """

    pair: np.ndarray
    mask: np.ndarray
    pairs: Pairs
    clicked: sparse.csr_array


def pages(log: ClickLog) -> Pages:
    """Groups the sessions that show the same list.

    >>> log = ClickLog([0, 0, 0], [[1, 2], [2, 1], [1, 2]], [[1, 0], [1, 0], [0, 1]])
    >>> found = pages(log)
    >>> found.pair.shape, (found.clicked @ np.ones(3)).sum()
    ((2, 2), np.float64(3.0))
    """
    known = pairs(log)
    pair = known.index(log)
    # Lists are compared by a 64-bit hash: a sum of random odd multiples.
    odd = np.random.default_rng(0).integers(2**62, size=log.list_size) * 2 + 1
    _, first, number = np.unique(
        (pair + 1) @ odd, return_index=True, return_inverse=True
    )
    # Lists of a query share pairs. Adjacent lists keep these in the cache.
    order = np.argsort(pair[first, 0], kind="stable")
    first, number = first[order], np.argsort(order)[number]
    session, rank = np.nonzero(log.click)
    clicked = sparse.csr_array(
        (np.ones(len(rank)), (number[session] * log.list_size + rank, session)),
        (len(first) * log.list_size, log.sessions),
    )
    return Pages(pair[first], log.mask[first], known, clicked)


class Solution(NamedTuple):
    """The result of dual learning.

    Attributes:
        state: (K + P,) scores g of the ranks, then scores f of the pairs. In the linear
            form, (K + F,): scores g, then the weights of f. The score g is 0 at rank 1
            and nan at ranks without clicks.
        move: Largest change of g that one more pass would make.
        clicks: Typical number of clicks of an item: half of all clicks are on items
            with at most this number of clicks.
    """

    state: np.ndarray
    move: float
    clicks: float


def dla(
    page: Pages,
    weight: np.ndarray | None = None,
    features: np.ndarray | None = None,
    start: np.ndarray | None = None,
    tolerance: float = 1e-6,
    iterations: int = 600,
) -> Solution:
    """Solves dual learning: finds the point that is stationary for both losses.

    Each pass multiplies exp g, and exp f in the tabular form, by the ratio of observed
    to expected weighted clicks. In the linear form, the weights of f take a Newton
    step. The curvature of the step comes from the first three passes. It affects the
    size of the step, but not the solution.

    Args:
        page: The lists, from `pages`.
        weight: (S,) weights of the sessions; None means 1.
        features: (P, F) features of the pairs, for a linear f; None for the tabular
            form.
        start: State of an earlier solution, from which to start.
        tolerance: Largest change of g in a pass at which iteration stops.
        iterations: Largest number of passes.
    """
    units, ranks = page.pair.shape
    sessions = page.clicked.shape[1]
    weight = np.ones(sessions) if weight is None else weight
    click = np.asarray(page.clicked @ weight, np.float64).reshape(units, ranks)
    some = click.any(axis=1)  # lists without a click have weight 0
    click, pair, mask = click[some], page.pair[some], page.mask[some]
    size = len(page.pairs)
    x = None if features is None else _table(features, size)
    curves: list[np.ndarray] = []
    dead = click.sum(axis=0) == 0
    clicks = typical(_by_pair(click, pair, size))
    cap = CAP if x is None and clicks < FEW else np.exp(-FLOOR)

    def beliefs(state: np.ndarray) -> Beliefs:
        score = state[ranks:] if x is None else x[:-1] @ state[ranks:]
        return _beliefs(pair, mask, state[:ranks], score, cap)

    def step(state: np.ndarray) -> np.ndarray:
        g, rest = state[:ranks], state[ranks:]
        own = beliefs(state)
        # f: weighted clicks of each item, and their expectation under softmax(f).
        seen = click * own.w
        total = seen.sum(axis=1, keepdims=True)
        expected = total * own.f
        if x is None:
            moved = rest + _log_ratio(
                *(_by_pair(v, pair, size) for v in (seen, expected))
            )
            moved = np.clip(moved, FLOOR, -FLOOR)
            moved -= np.log(np.exp(moved).mean())
        else:
            if len(curves) < CURVES:
                curves.append(_curve(x, pair, expected, total))
            moved = rest + _newton(x, pair, seen - expected, curves[-1])
        # g: likewise, by rank.
        liked = click * own.v
        wanted = liked.sum(axis=1, keepdims=True) * own.g
        g = g + _log_ratio(liked.sum(axis=0), wanted.sum(axis=0))
        return np.concatenate([np.where(dead, FLOOR, g - g[0]), moved])

    if start is None:
        start = np.zeros(ranks + (size if x is None else x.shape[1]))
    # Only g is checked for convergence: an item that is the only clicked one on its
    # lists has no finite f. If all ranks have equal clicks, g stays at first, so f must
    # move before.
    start = step(step(np.nan_to_num(start, nan=FLOOR)))
    state, _ = accelerated(
        step, start, tolerance, iterations, -np.inf, np.inf, watch=ranks
    )
    move = np.abs(step(state) - state)[:ranks].max()
    state[:ranks][dead] = np.nan
    return Solution(state, float(move), clicks)


def _log_ratio(observed: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """log(observed / expected) within +-`MOVE`; 0 for 0 / 0, and -1 for 0 / x."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratio = np.log(observed / expected)
    return np.nan_to_num(ratio, nan=0.0, neginf=-1.0).clip(-MOVE, MOVE)


def _by_pair(value: np.ndarray, pair: np.ndarray, size: int) -> np.ndarray:
    """(P,) sums over the cells (U, K) of each pair."""
    return np.bincount(pair.ravel(), value.ravel(), minlength=size + 1)[:size]


class Beliefs(NamedTuple):
    """Softmax values and weights of U lists, as arrays (U, K).

    Attributes:
        f, g: softmax of the scores of the items, and of the ranks.
        w, v: The weights w in the loss of f, computed from g, and the weights v in the
            loss of g, computed from f.
    """

    f: np.ndarray
    g: np.ndarray
    w: np.ndarray
    v: np.ndarray


def _beliefs(
    pair: np.ndarray, mask: np.ndarray, g: np.ndarray, score: np.ndarray, cap: float
) -> Beliefs:
    def softmax(logit: np.ndarray) -> np.ndarray:
        high = np.where(mask, logit, -np.inf)
        grown = np.exp(high - high.max(axis=1, keepdims=True))
        return grown / grown.sum(axis=1, keepdims=True)

    f = np.append(score, 0.0)[pair]
    lead = f[np.arange(len(f)), np.argmax(mask, axis=1)][:, None]
    g = np.broadcast_to(g, f.shape)
    most = np.log(cap)
    return Beliefs(
        softmax(f),
        softmax(g),
        np.exp(np.minimum(g[:, :1] - g, most)),
        np.exp(np.minimum(lead - f, most)),
    )


def dla_variance(page: Pages, state: np.ndarray, features: np.ndarray) -> np.ndarray:
    """(K,) variances of g in the linear form, by the delta method over sessions.

    Let psi be the negative gradients of the two losses in one session, psi_g by rank
    and psi_f by feature:

        psi_g,k = c_k v_k - (sum of c v) softmax(g)_k
        psi_f = X' (c_i w_i - (sum of c w) softmax(f)_i)

    At the solution, the sum of psi over sessions is 0. Let J be the Jacobian of this
    sum, including the derivatives of v and w. A session moves the solution by -J^-1
    psi. The variance is the sum of the squares of these moves over sessions.
    """
    units, ranks = page.pair.shape
    size = len(page.pairs)
    table = _table(features, size)
    dead = np.isnan(state[:ranks])
    g = np.where(dead, FLOOR, state[:ranks])
    own = _beliefs(page.pair, page.mask, g, table[:-1] @ state[ranks:], np.exp(-FLOOR))
    click = np.asarray(page.clicked.sum(axis=1)).reshape(units, ranks)
    blocks = _jacobian(page, own, click, table)
    # Rank 1 sets the scale, and ranks without a click have no parameter; f is
    # projected.
    free = np.flatnonzero(~dead)[1:]
    gg, gf, fg = blocks.gg[np.ix_(free, free)], blocks.gf[free], blocks.fg[:, free]
    jacobian = np.block([[gg, gf], [fg, blocks.ff]])
    jacobian -= 1e-9 * np.diag(np.abs(np.diag(jacobian)) + 1e-9)
    # The rows of J^-1 for g, by rank and by pair.
    solved = np.linalg.solve(jacobian.T, np.eye(len(jacobian), len(free))).T
    by_rank = np.zeros((len(free), ranks))
    by_rank[:, free] = solved[:, : len(free)]
    by_pair = solved[:, len(free) :] @ table.T
    # The effect of a click at a rank of a page, minus its expectation on the list.
    variance = np.zeros(ranks)
    for k, row, line in zip(free, by_rank, by_pair, strict=True):
        at = line[page.pair]
        hit = own.v * (row - own.g @ row[:, None])
        hit += own.w * (at - (own.f * at).sum(axis=1, keepdims=True))
        variance[k] = np.square(page.clicked.T @ hit.ravel()).sum()
    return variance


class Jacobian(NamedTuple):
    """Derivatives of psi_g and psi_f with respect to g and to the weights of f."""

    gg: np.ndarray
    gf: np.ndarray
    fg: np.ndarray
    ff: np.ndarray


def _jacobian(
    page: Pages, own: Beliefs, click: np.ndarray, table: np.ndarray
) -> Jacobian:
    """The blocks of J: (K, K), (K, F), (F, K) and (F, F).

    `table` (P + 1, F) holds the features of f. d psi_g,k / dg_j = -sum_l c v
    (softmax(g)_k [k = j] - softmax(g)_k softmax(g)_j). d v_l / df is v_l at the list's
    first pair and -v_l at its own. The same holds with f for g and w for v, except that
    the first rank does not move.
    """
    ranks = page.pair.shape[1]
    seen, liked = click * own.w, click * own.v
    much, more = seen.sum(axis=1), liked.sum(axis=1)
    first = page.pair[np.arange(len(page.pair)), np.argmax(page.mask, axis=1)]
    weighted = more[:, None] * own.g
    gg = own.g.T @ weighted - np.diag(weighted.sum(axis=0))
    # Sums over the pairs of each rank: v_k over f, and w_l over g.
    at = (page.pair * ranks + np.arange(ranks)).ravel()
    size = len(table) * ranks

    def read(value: np.ndarray) -> np.ndarray:
        own = np.bincount(at, value.ravel(), minlength=size)
        return own.reshape(-1, ranks).T @ table

    gf, fg = -read(liked), -read(seen).T
    mass = _by_pair(much[:, None] * own.f, page.pair, len(table) - 1)
    ff = -squared(table, np.append(mass, 0.0))
    for start in range(
        0, len(page.pair), PIECE
    ):  # features of all cells would fill the memory
        part = slice(start, start + PIECE)
        pair, g = page.pair[part], own.g[part]
        mean = _rows(own.f[part], pair, len(table)) @ table
        # v over f at the first pair of the list, and through the sum of c v.
        gf += (liked[part] - g * more[part, None]).T @ table[first[part]]
        gf += g.T @ (_rows(liked[part], pair, len(table)) @ table)
        # f at fixed weights, and w over g through the sum of c w.
        ff += squared(mean, much[part])
        fg += mean.T @ seen[part]
    return Jacobian(gg, gf, fg, ff)


def _rows(values: np.ndarray, pair: np.ndarray, size: int) -> sparse.csr_array:
    """(lists, size) sparse: the value of each cell in the column of its pair."""
    lists, places = pair.shape
    ends = np.arange(0, lists * places + 1, places)
    return sparse.csr_array((values.ravel(), pair.ravel(), ends), (lists, size))


def _table(features: np.ndarray, size: int) -> np.ndarray:
    """(P + 1, F) float64 features of the pairs, checked, with zeros for padding."""
    features = checked(features, size)
    table = np.zeros((size + 1, features.shape[1]))
    table[:size] = features
    return table


def _curve(
    table: np.ndarray, pair: np.ndarray, expected: np.ndarray, total: np.ndarray
) -> np.ndarray:
    """(F, F) curvature of the weighted listwise softmax loss."""
    share = np.divide(expected, total, out=np.zeros_like(expected), where=total > 0)
    mass = np.bincount(pair.ravel(), expected.ravel(), minlength=len(table))
    curve = squared(table, mass)
    for start in range(0, len(pair), PIECE):  # all cells would fill the memory
        part = slice(start, start + PIECE)
        mean = _rows(share[part], pair[part], len(table)) @ table
        curve -= squared(mean, total[part, 0])
    return curve


def _newton(
    table: np.ndarray, pair: np.ndarray, surprise: np.ndarray, curve: np.ndarray
) -> np.ndarray:
    """A Newton step of the weighted listwise softmax loss; no logit moves by over 2."""
    pull = np.bincount(pair.ravel(), surprise.ravel(), minlength=len(table))
    move = np.linalg.lstsq(curve, pull @ table, rcond=1e-10)[0]
    reach = np.abs(table @ move).max(initial=0.0)
    return move * min(1.0, 2.0 / max(reach, 1e-12))
