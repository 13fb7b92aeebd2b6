"""The dual learning algorithm in tabular or linear form.

Ai et al., Unbiased Learning to Rank with Unbiased Propensity Estimation, SIGIR 2018.
Two listwise softmax losses, f of the items and g of the ranks, each weighted by what
the other believes:

    sum_l c_l w_l [-log softmax(f)_l],    w_l = softmax(g)_1 / softmax(g)_l
    sum_l c_l v_l [-log softmax(g)_l],    v_l = softmax(f)_1 / softmax(f)_l

Where P(click) = theta_k r_i, exp f = r and exp g = theta up to scale solve both. The
weights are held fixed while a loss is minimised, so that what is sought is a point
where neither loss wants to move, not a minimum of their sum.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import sparse
from scipy.sparse import linalg

from debias.data import ClickLog
from debias.propensity.cells import Pairs, pairs
from debias.propensity.pbm_maximum import accelerated
from debias.propensity.position_based import design

FLOOR = -20.0  # log attraction of an item that is never clicked


@dataclass(frozen=True, eq=False)
class Pages:
    """The distinct result lists of a log, U of them, K ranks.

    Attributes:
        pair: (U, K) int64, the number of pairs at padding.
        mask: (U, K) bool.
        shape: The number of pairs.
        clicked: (U * K, S) sparse, 1 where a session clicked a rank of its page.
    """

    pair: np.ndarray
    mask: np.ndarray
    pairs: Pairs
    clicked: sparse.csr_array


def pages(log: ClickLog) -> Pages:
    """Collapses the sessions that show the same list.

    >>> log = ClickLog([0, 0, 0], [[1, 2], [2, 1], [1, 2]], [[1, 0], [1, 0], [0, 1]])
    >>> found = pages(log)
    >>> found.pair.shape, (found.clicked @ np.ones(3)).sum()
    ((2, 2), np.float64(3.0))
    """
    known = pairs(log)
    pair = known.index(log)
    # Lists are told apart by a 64-bit hash: a sum of random odd multiples.
    odd = np.random.default_rng(0).integers(2**62, size=log.list_size) * 2 + 1
    _, first, number = np.unique(
        (pair + 1) @ odd, return_index=True, return_inverse=True
    )
    session, rank = np.nonzero(log.click)
    clicked = sparse.csr_array(
        (np.ones(len(rank)), (number[session] * log.list_size + rank, session)),
        (len(first) * log.list_size, log.sessions),
    )
    return Pages(pair[first], log.mask[first], known, clicked)


def dla(
    page: Pages,
    weight: np.ndarray | None = None,
    features: np.ndarray | None = None,
    start: np.ndarray | None = None,
    tolerance: float = 1e-6,
    iterations: int = 600,
) -> np.ndarray:
    """The point where neither loss wants to move.

    Each pass rescales exp g, and exp f in the tabular form, by observed over expected
    weighted clicks; the linear form takes a Newton step.

    Args:
        page: The lists.
        weight: (S,) weights of the sessions; 1 without.
        features: (P, F) of each pair for f linear in them; tabular without.
        start: Where to begin, as returned by an earlier call.
        tolerance: Stops once a pass moves g by no more.
        iterations: Most passes.

    Returns:
        (K + P,) or (K + F,): g, 0 at rank 1 and nan where nothing is clicked, then f
        or its weights.
    """
    units, ranks = page.pair.shape
    sessions = page.clicked.shape[1]
    weight = np.ones(sessions) if weight is None else weight
    click = np.asarray(page.clicked @ weight, np.float64).reshape(units, ranks)
    some = click.any(axis=1)  # lists without a click weigh nothing
    click, pair, mask = click[some], page.pair[some], page.mask[some]
    size = len(page.pairs)
    x = None if features is None else design(features, size)[:, :-1]
    dead = click.sum(axis=0) == 0

    def gain(observed: np.ndarray, expected: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.log(observed / expected)
        return np.nan_to_num(ratio, nan=0.0, neginf=-1.0).clip(-2.0, 2.0)

    def step(state: np.ndarray) -> np.ndarray:
        g, rest = state[:ranks], state[ranks:]
        told = _beliefs(pair, mask, g, rest if x is None else x @ rest)
        seen, liked = click * told.w, click * told.v
        total = seen.sum(axis=1, keepdims=True)
        expected = total * told.f
        if x is None:
            flat = pair.ravel()
            count = [
                np.bincount(flat, each.ravel(), minlength=size + 1)[:size]
                for each in (seen, expected)
            ]
            moved = np.maximum(rest + gain(*count), FLOOR)
            moved -= np.log(np.exp(moved).mean())
        else:
            moved = rest + _newton(x, pair, seen, expected, total)
        wanted = liked.sum(axis=1, keepdims=True) * told.g
        g = g + gain(liked.sum(axis=0), wanted.sum(axis=0))
        return np.concatenate([np.where(dead, FLOOR, g - g[0]), moved])

    if start is None:
        start = np.zeros(ranks + (size if x is None else x.shape[1]))
    # Only g is watched: an item that alone is clicked on its lists has no finite f.
    start = np.nan_to_num(start, nan=FLOOR)
    state, _ = accelerated(
        step, start, tolerance, iterations, -np.inf, np.inf, watch=ranks
    )
    state[:ranks][dead] = np.nan
    return state


class Beliefs(NamedTuple):
    """What g and f say of each list, (U, K) each.

    Attributes:
        f, g: softmax of the scores of the items, and of the ranks.
        w, v: The weights that g gives to the loss of f, and f to that of g.
    """

    f: np.ndarray
    g: np.ndarray
    w: np.ndarray
    v: np.ndarray


def _beliefs(
    pair: np.ndarray, mask: np.ndarray, g: np.ndarray, score: np.ndarray
) -> Beliefs:
    def softmax(logit: np.ndarray) -> np.ndarray:
        high = np.where(mask, logit, -np.inf)
        grown = np.exp(high - high.max(axis=1, keepdims=True))
        return grown / grown.sum(axis=1, keepdims=True)

    f = np.append(score, 0.0)[pair]
    lead = f[np.arange(len(f)), np.argmax(mask, axis=1)][:, None]
    return Beliefs(
        softmax(f),
        softmax(np.broadcast_to(g, f.shape)),
        np.exp((g[0] - g).clip(max=-FLOOR)),
        np.exp((lead - f).clip(max=-FLOOR)),
    )


def dla_variance(
    page: Pages, state: np.ndarray, features: np.ndarray | None = None
) -> np.ndarray:
    """(K,) variances of g by the delta method, sessions independent.

    The point solves sum of psi = 0 over sessions, with psi_g,k = c_k v_k - (sum of
    c v) softmax(g)_k by rank and psi_f,i = c_i w_i - (sum of c w) softmax(f)_i by pair.
    With J their Jacobian, weights v and w included, a session moves the point by
    -J^-1 psi; its variance is the sum of squares. In the linear form psi_f and J are
    projected onto the features.
    """
    units, ranks = page.pair.shape
    size = len(page.pairs)
    x = None if features is None else design(features, size)[:, :-1]
    dead = np.isnan(state[:ranks])
    g = np.where(dead, FLOOR, state[:ranks])
    score = state[ranks:] if x is None else x @ state[ranks:]
    told = _beliefs(page.pair, page.mask, g, score)
    click = np.asarray(page.clicked.sum(axis=1)).reshape(units, ranks)
    seen, liked = click * told.w, click * told.v
    much, more = seen.sum(axis=1), liked.sum(axis=1)
    lead = np.argmax(page.mask, axis=1)
    first = page.pair[np.arange(units), lead]

    def spread(
        row: np.ndarray, column: np.ndarray, value: np.ndarray, shape: tuple[int, int]
    ) -> sparse.csr_array:
        at = tuple(np.broadcast_to(each, value.shape).ravel() for each in (row, column))
        return sparse.csr_array((value.ravel(), at), shape)

    rank = np.broadcast_to(np.arange(ranks), page.pair.shape)
    inside = (size + 1, size + 1)  # padding is a pair of its own, dropped at the end
    # How psi_g moves with g and with f, and psi_f with f and with g.
    gg = told.g.T @ (more[:, None] * told.g) - np.diag((more[:, None] * told.g).sum(0))
    both = (ranks, size + 1)
    gf = spread(rank, first[:, None], liked, both) - spread(
        rank, page.pair, liked, both
    )
    gf -= spread(rank, first[:, None], told.g * more[:, None], both)
    gf += spread(
        rank[:, :, None],
        page.pair[:, None, :],
        told.g[:, :, None] * liked[:, None, :],
        both,
    )
    ff = spread(
        page.pair[:, :, None],
        page.pair[:, None, :],
        much[:, None, None] * told.f[:, :, None] * told.f[:, None, :],
        inside,
    )
    ff -= spread(page.pair, page.pair, much[:, None] * told.f, inside)
    fg = spread(page.pair, rank, -seen, both[::-1])
    fg += spread(
        page.pair[:, :, None],
        rank[:, None, :],
        told.f[:, :, None] * seen[:, None, :],
        both[::-1],
    )
    free = np.flatnonzero(~dead)[1:]
    gg, gf = gg[np.ix_(free, free)], gf[free][:, :size]
    fg, ff = fg[:size][:, free], ff[:size, :size]
    if x is not None:
        keep = np.arange(x.shape[1])
        gf, fg, ff = gf @ x, x.T @ fg, x.T @ (ff @ x)
    else:
        keep = _free_pairs(page, np.bincount(page.pair.ravel(), click.ravel())[:size])
        gf, fg, ff = gf[:, keep], fg[keep], ff[keep][:, keep]
    jacobian = sparse.block_array([[sparse.csr_array(gg), gf], [fg, ff]]).tocsc()
    jacobian -= 1e-9 * sparse.diags_array(np.abs(jacobian.diagonal()) + 1e-9)
    unit = np.eye(jacobian.shape[0], len(free))
    solved = linalg.splu(jacobian.T.tocsc()).solve(unit).T  # rows of J^-1 for g
    by_rank = np.zeros((len(free), ranks))
    by_rank[:, free] = solved[:, : len(free)]
    by_pair = np.zeros((len(free), size + 1))
    if x is None:
        by_pair[:, keep] = solved[:, len(free) :]
    else:
        by_pair[:, :size] = solved[:, len(free) :] @ x.T
    # What a click at a rank of a page does, less what its list expected of it.
    variance = np.zeros(ranks)
    for k, row, line in zip(free, by_rank, by_pair, strict=True):
        at = line[page.pair]
        hit = told.v * (row - told.g @ row[:, None])
        hit += told.w * (at - (told.f * at).sum(axis=1, keepdims=True))
        variance[k] = np.square(page.clicked.T @ hit.ravel()).sum()
    return variance


def _free_pairs(page: Pages, clicks: np.ndarray) -> np.ndarray:
    """Pairs whose f is free: only differences within a query count, so that the one
    most clicked of each query stays put; those never clicked have no finite f.
    """
    query = page.pairs.query
    order = np.lexsort((-clicks, query))
    held = order[np.r_[True, np.diff(query[order]) > 0]]
    free = clicks > 0
    free[held] = False
    return np.flatnonzero(free)


def _newton(
    x: np.ndarray,
    pair: np.ndarray,
    seen: np.ndarray,
    expected: np.ndarray,
    total: np.ndarray,
) -> np.ndarray:
    """A Newton step of the weighted listwise softmax loss; no logit moves over 2."""
    table = np.vstack([x, np.zeros(x.shape[1])])
    flat = pair.ravel()
    pull = np.bincount(flat, (seen - expected).ravel(), minlength=len(table))
    mass = np.bincount(flat, expected.ravel(), minlength=len(table))
    share = np.divide(expected, total, out=np.zeros_like(expected), where=total > 0)
    mean = np.einsum("ul,ulf->uf", share, table[pair])
    curve = (table.T * mass) @ table - (mean.T * total[:, 0]) @ mean
    move = np.linalg.lstsq(curve, table.T @ pull, rcond=1e-10)[0]
    reach = np.abs(table @ move).max(initial=0.0)
    return move * min(1.0, 2.0 / max(reach, 1e-12))
