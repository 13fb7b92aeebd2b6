"""Ranking metrics with the exact expectation over all orders of tied items."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

Cutoff = int | Sequence[int] | None

# Ragged lists are padded together if the ratio of their lengths is below this.
_LENGTH_RATIO = 1.25
# Up to this length, comparing all pairs of a list is faster than sorting it.
_COUNTED_LENGTH = 32
_BLOCK = 1 << 17  # cells that are processed at once, so that they fit into a cache


# Inside, arrays are (list_size, lists), because lists are short and many.


class _Lists(NamedTuple):
    """Checked lists, padded to the same size."""

    labels: np.ndarray  # (list_size, lists), 0 at padding
    scores: np.ndarray  # (list_size, lists), nan at padding, which beats nobody
    length: np.ndarray  # (lists,)
    rows: np.ndarray  # (lists,) index of each list


class _Ranks(NamedTuple):
    """The rank of each item, and the size of its group of ties."""

    first: np.ndarray  # (list_size, lists), number of items with higher scores
    tied: np.ndarray  # (tied lists,) indices of lists with ties
    size: np.ndarray  # (list_size, tied lists), number of items with this score


def _ranks(lists: _Lists) -> _Ranks:
    scores, list_size = lists.scores, len(lists.scores)
    if list_size <= _COUNTED_LENGTH:
        first = np.zeros(scores.shape, dtype=np.int8)
        for i in range(list_size):
            for j in range(i):
                first[i] += (scores[j] > scores[i]).view(np.int8)
                first[j] += (scores[i] > scores[j]).view(np.int8)
    else:
        rows = -np.ascontiguousarray(scores.T)
        rows[np.isnan(rows)] = np.inf  # sorting nan is half as fast
        order = np.argsort(rows, axis=1)
        rows = np.take_along_axis(rows, order, 1)
        place = np.broadcast_to(np.arange(list_size, dtype=np.int32), rows.shape)
        same = (rows[:, 1:] == rows[:, :-1]) & (rows[:, 1:] < np.inf)
        if same.any():
            place = place.copy()
            place[:, 1:][same] = 0
            place = np.maximum.accumulate(place, axis=1)
        places = np.empty_like(order, dtype=np.int32)
        np.put_along_axis(places, order, place, 1)
        first = np.ascontiguousarray(places.T)
        first[np.isnan(scores)] = 0
    # Without ties, the places of n items are 0 to n - 1. A tie lowers their sum.
    total = first.sum(axis=0, dtype=np.min_scalar_type(list_size**2))
    tied = np.flatnonzero(total != lists.length * (lists.length - 1) // 2)
    if not len(tied):
        return _Ranks(first, tied, np.empty((list_size, 0), dtype=np.int64))
    group = first[:, tied].astype(np.int64) + list_size * np.arange(len(tied))
    valid = ~np.isnan(scores[:, tied])
    sizes = np.bincount(group[valid], minlength=list_size * len(tied))
    return _Ranks(first, tied, sizes[group])


def _summed(values: np.ndarray, ranks: _Ranks, worth: np.ndarray) -> np.ndarray:
    """Expected sum over items of value times worth of the rank, `(lists, cutoffs)`.

    `values` are 0 at padding, and `worth` is `(list_size, cutoffs)`. A tied item has
    the mean worth of the ranks of its group.
    """
    columns = [
        np.einsum("lq,lq->q", values, column.take(ranks.first))
        for column in np.ascontiguousarray(worth.T)
    ]
    total = np.stack(columns, axis=1)
    if len(ranks.tied):
        upto = np.vstack([np.zeros((1, worth.shape[1])), np.cumsum(worth, axis=0)])
        first = ranks.first[:, ranks.tied].astype(np.int64)
        mean = (upto[first + ranks.size] - upto[first]) / ranks.size[..., None]
        total[ranks.tied] = np.einsum("lq,lqk->qk", values[:, ranks.tied], mean)
    return total


def _of_first(relevant: np.ndarray, ranks: _Ranks, worth: np.ndarray) -> np.ndarray:
    """Expected worth of the rank of the first relevant item, `(lists, cutoffs)`.

    Let the first relevant item be tied in a group of m items, of which r are relevant.
    With p_0 = r / m, the probability that j irrelevant items of the group come first is
    p_j = p_{j-1} (m - r - j + 1) / (m - j).
    """
    # The best place of a relevant item; lists without one get nan at the end.
    nobody = len(worth)
    first = np.where(relevant, ranks.first, nobody).min(axis=0)
    none = first == nobody
    first = np.where(none, 0, first).astype(np.int64)
    value = worth[first]
    if len(ranks.tied):
        # For lists with ties: the group at that place has r relevant of m items.
        first = first[ranks.tied]
        group = relevant[:, ranks.tied] & (ranks.first[:, ranks.tied] == first)
        r = np.maximum(group.sum(axis=0), 1)[:, None]
        m = np.where(group, ranks.size, 1).max(axis=0)[:, None]
        # p_j by ratios; 0 from j = m - r + 1 on, when no other items are left.
        j = np.arange(1, m.max())
        ratio = np.clip(m - r - j + 1, 0, None) / np.maximum(m - j, 1)
        p = np.cumprod(np.hstack([r / m, ratio]), axis=1)
        # The first relevant item is j places below the first item of its group.
        reached = np.minimum(first[:, None] + np.arange(p.shape[1]), nobody - 1)
        value[ranks.tied] = np.einsum("lj,ljk->lk", p, worth[reached])
    value[none] = np.nan
    return value


def _cutoffs(k: Cutoff) -> list[int | None]:
    several = isinstance(k, Sequence | np.ndarray)
    cutoffs: list[int | None] = list(k) if several else [k]  # type: ignore
    for cutoff in cutoffs:
        if cutoff is not None and (cutoff != int(cutoff) or cutoff < 1):
            raise ValueError(f"k must be an integer of at least 1, got {cutoff}")
    return cutoffs


def _cut(worth: np.ndarray, cutoffs: Sequence[int | None]) -> np.ndarray:
    """Worth of each rank, 0 beyond the cutoff, `(list_size, cutoffs)`."""
    rank = np.arange(1, len(worth) + 1)
    columns = [worth * (rank <= (np.inf if k is None else k)) for k in cutoffs]
    return np.stack(columns, axis=1)


def _refuse(
    rows: np.ndarray, labels: np.ndarray, scores: np.ndarray, valid: np.ndarray | None
) -> None:
    """Raises ValueError for the first list with a cell that cannot be ranked."""
    wrong = {"; mask items without a score": ("scores", ~np.isfinite(scores))}
    if labels.dtype.kind in "fi":
        cells = ~((labels >= 0) & (labels < np.inf))
        wrong[" numbers >= 0; mark padding by -1 or by a mask"] = ("labels", cells)
    for advice, (name, cells) in wrong.items():
        cells = cells if valid is None else cells & valid
        if cells.any():
            row = int(rows[np.flatnonzero(cells.any(axis=1))[0]])
            raise ValueError(f"{name} of list {row} are not all finite{advice}")


def _checked(
    rows: np.ndarray, labels: np.ndarray, scores: np.ndarray, valid: np.ndarray | None
) -> _Lists:
    """Checks lists and fills their padding; `rows` name the lists in errors."""
    # One pass: any invalid value shows in a sum or in the extremes.
    with np.errstate(all="ignore"):
        fine = np.isfinite(scores.sum()) and labels.min() >= 0 and labels.max() < np.inf
    if not fine:
        _refuse(rows, labels, scores, valid)
    if valid is None:
        length = np.full(len(labels), labels.shape[1])
    else:
        length = valid.sum(axis=1)
        labels = np.where(valid, labels, np.zeros((), labels.dtype))
        scores = np.where(valid, scores, np.array(np.nan, scores.dtype))
    labels, scores = np.ascontiguousarray(labels.T), np.ascontiguousarray(scores.T)
    return _Lists(labels, scores, length, rows)


def _from_padded(
    labels: np.ndarray, scores: np.ndarray, valid: np.ndarray
) -> Iterator[tuple[np.ndarray, _Lists]]:
    step = max(1, _BLOCK // max(1, labels.shape[1]))
    for start in range(0, len(labels), step):
        at = slice(start, start + step)
        rows = np.arange(*at.indices(len(labels)))
        some = None if valid[at].all() else valid[at]
        yield rows, _checked(rows, labels[at], scores[at], some)


def _from_ragged(
    labels: np.ndarray, scores: np.ndarray, offsets: np.ndarray
) -> Iterator[tuple[np.ndarray, _Lists]]:
    """Groups lists of similar length, and pads each group."""
    lengths = np.diff(offsets)
    filled = np.flatnonzero(lengths)
    kind = np.floor(np.log(lengths[filled]) / np.log(_LENGTH_RATIO))
    for one in np.unique(kind):
        alike = filled[kind == one]
        column = np.arange(lengths[alike].max())
        for rows in np.array_split(alike, 1 + len(alike) * len(column) // _BLOCK):
            valid = column < lengths[rows, None]
            item = np.where(valid, offsets[rows, None] + column, offsets[rows, None])
            some = None if valid.all() else valid
            yield rows, _checked(rows, labels[item], scores[item], some)


def _checked_offsets(offsets: ArrayLike, items: int) -> np.ndarray:
    bounds = np.asarray(offsets)
    if bounds.ndim != 1 or len(bounds) == 0 or bounds.dtype.kind not in "iu":
        raise ValueError(
            "offsets must be integers of shape (lists + 1,), got "
            f"{bounds.dtype} {bounds.shape}"
        )
    bounds = bounds.astype(np.int64)
    if bounds[0] != 0 or bounds[-1] != items or (np.diff(bounds) < 0).any():
        raise ValueError(
            f"offsets must increase from 0 to {items}, the number of items"
        )
    return bounds


Metric = Callable[[_Lists, Sequence[int | None]], np.ndarray]


def _per_list(
    metric: Metric,
    labels: ArrayLike,
    scores: ArrayLike,
    k: Cutoff,
    mask: ArrayLike | None,
    offsets: ArrayLike | None,
) -> np.ndarray:
    """Values of a metric for either layout, `(lists,)` or `(lists, len(k))`."""
    labels, scores = np.asarray(labels), np.asarray(scores)
    if scores.dtype.kind != "f":
        scores = scores.astype(float)
    cutoffs = _cutoffs(k)
    if labels.shape != scores.shape:
        raise ValueError(
            "labels and scores must have the same shape, got "
            f"{labels.shape} and {scores.shape}"
        )
    if labels.ndim != (2 if offsets is None else 1):
        raise ValueError(
            "labels must have shape (lists, list_size), or (items,) with offsets, "
            f"got {labels.shape}"
        )
    if offsets is None:
        valid = np.asarray(labels != -1 if mask is None else mask, dtype=bool)
        if valid.shape != labels.shape:
            raise ValueError(
                f"mask must have the shape of labels {labels.shape}, got {valid.shape}"
            )
        count, batches = len(labels), _from_padded(labels, scores, valid)
    else:
        if mask is not None:
            raise ValueError(
                "mask is for padded lists, offsets for ragged lists: give only one"
            )
        bounds = _checked_offsets(offsets, len(labels))
        count, batches = len(bounds) - 1, _from_ragged(labels, scores, bounds)
        if labels.size and (np.diff(bounds) == bounds[1]).all():  # of equal length
            shape = (count, int(bounds[1]))
            labels, scores = labels.reshape(shape), scores.reshape(shape)
            batches = _from_padded(labels, scores, np.ones(shape, dtype=bool))
    value = np.full((count, len(cutoffs)), np.nan)
    if labels.size:
        for rows, lists in batches:
            value[rows] = metric(lists, cutoffs)
    return value if isinstance(k, Sequence | np.ndarray) else value[:, 0]


_GRADES = 8  # integer labels below this number are processed by tables
_ENDLESS = 1024  # 2 to this power exceeds float64


def _graded(labels: np.ndarray) -> np.ndarray | None:
    grades = labels.astype(np.uint8) if labels.max() < _GRADES else None
    return grades if grades is not None and (grades == labels).all() else None


def _gains(lists: _Lists, grades: np.ndarray | None) -> np.ndarray:
    """Gains 2^y - 1."""
    if grades is None:
        if lists.labels.max() >= _ENDLESS:
            row = lists.rows[lists.labels.max(axis=0).argmax()]
            raise ValueError(
                f"labels of list {row} must be below {_ENDLESS}, for the gain 2^y - 1 "
                f"to be finite, got {lists.labels.max()}"
            )
        return np.exp2(lists.labels.astype(float)) - 1.0
    return ((1 << grades) - 1).astype(float)  # fits into a byte


def _best(
    gains: np.ndarray, grades: np.ndarray | None, discounts: np.ndarray
) -> np.ndarray:
    """DCG of the ideal order, `(lists, cutoffs)`; integer grades need no sort.

    In the ideal order, the n_g items of grade g or more fill the first n_g ranks. Grade
    g adds 2^g - 2^(g-1) to the gain of each of these ranks.
    """
    if grades is None:
        return np.sort(gains.T, axis=1)[:, ::-1] @ discounts
    upto = np.vstack([np.zeros((1, discounts.shape[1])), np.cumsum(discounts, axis=0)])
    best = np.zeros((grades.shape[1], discounts.shape[1]))
    small = np.min_scalar_type(len(grades))  # a small type adds many values at a time
    for grade in range(1, int(grades.max()) + 1):
        count = (grades >= grade).view(np.uint8).sum(axis=0, dtype=small)
        best += 2.0 ** (grade - 1) * upto.take(count, axis=0)
    return best


def _discounts(list_size: int, cutoffs: Sequence[int | None]) -> np.ndarray:
    return _cut(1.0 / np.log2(np.arange(2, list_size + 2)), cutoffs)


def _dcg(gains: np.ndarray, lists: _Lists, discounts: np.ndarray) -> np.ndarray:
    value = _summed(gains, _ranks(lists), discounts)
    value[~gains.any(axis=0)] = np.nan
    return value


def dcg(
    labels: ArrayLike,
    scores: ArrayLike,
    k: Cutoff = 10,
    mask: ArrayLike | None = None,
    offsets: ArrayLike | None = None,
) -> np.ndarray:
    """Discounted cumulative gain: sum over ranks r <= k of (2^y_r - 1) / log2(1 + r).

    Args:
        labels: Grades >= 0. `debias.metrics` explains layouts, padding and ties.
        scores: Scores in the shape of `labels`. The highest score ranks first.
        k: One cutoff, a sequence of cutoffs, or None for the whole list.
        mask: Boolean mask of the cells with items, in a padded layout. None means the
            cells whose label is not -1.
        offsets: Offsets of the lists in a ragged layout.

    Returns:
        Values `(lists,)`, or `(lists, len(k))` if `k` is a sequence.

    Source: Järvelin and Kekäläinen, Cumulated Gain-based Evaluation of IR Techniques,
    TOIS 2002, with the gain of Burges et al., ICML 2005; ties after McSherry and
    Najork, ECIR 2008.

    >>> dcg([[0, 2]], [[1.0, 0.0]]).round(6).tolist()  # 3 / log2(3)
    [1.892789]
    """

    def metric(lists: _Lists, cutoffs: Sequence[int | None]) -> np.ndarray:
        discounts = _discounts(len(lists.labels), cutoffs)
        return _dcg(_gains(lists, _graded(lists.labels)), lists, discounts)

    return _per_list(metric, labels, scores, k, mask, offsets)


def ndcg(
    labels: ArrayLike,
    scores: ArrayLike,
    k: Cutoff = 10,
    mask: ArrayLike | None = None,
    offsets: ArrayLike | None = None,
) -> np.ndarray:
    """NDCG@k, which is DCG@k divided by the DCG@k of the ideal order.

    The arguments are those of `dcg`.

    >>> ndcg([[0, 1], [0, 0]], [[1.0, 0.0], [1.0, 0.0]], k=[1, 2]).round(6).tolist()
    [[0.0, 0.63093], [nan, nan]]
    >>> ndcg([0, 1, 1], [0.0, 0.0, 5.0], k=1, offsets=[0, 2, 3]).tolist()  # a tie
    [0.5, 1.0]
    """

    def metric(lists: _Lists, cutoffs: Sequence[int | None]) -> np.ndarray:
        grades = _graded(lists.labels)
        gains = _gains(lists, grades)
        discounts = _discounts(len(gains), cutoffs)
        best = _best(gains, grades, discounts)
        with np.errstate(invalid="ignore"):  # nan over 0 where nothing is relevant
            return _dcg(gains, lists, discounts) / best

    return _per_list(metric, labels, scores, k, mask, offsets)


def _relevant(lists: _Lists, threshold: float) -> np.ndarray:
    return (lists.labels >= threshold) & ~np.isnan(lists.scores)


def mrr(
    labels: ArrayLike,
    scores: ArrayLike,
    k: Cutoff = None,
    mask: ArrayLike | None = None,
    offsets: ArrayLike | None = None,
    relevant: float = 1.0,
) -> np.ndarray:
    """Reciprocal rank of the first item with label >= `relevant`; 0 if beyond rank k.

    The other arguments are those of `dcg`.

    >>> mrr([[0, 0, 1]], [[3.0, 2.0, 1.0]]).round(6).tolist()
    [0.333333]
    >>> mrr([[0, 1]], [[0.0, 0.0]]).tolist()  # (1 + 1/2) / 2
    [0.75]
    """

    def metric(lists: _Lists, cutoffs: Sequence[int | None]) -> np.ndarray:
        worth = _cut(1.0 / np.arange(1, len(lists.labels) + 1), cutoffs)
        return _of_first(_relevant(lists, relevant), _ranks(lists), worth)

    return _per_list(metric, labels, scores, k, mask, offsets)


def hit_rate(
    labels: ArrayLike,
    scores: ArrayLike,
    k: Cutoff = 10,
    mask: ArrayLike | None = None,
    offsets: ArrayLike | None = None,
    relevant: float = 1.0,
) -> np.ndarray:
    """Whether the first k ranks contain an item with label >= `relevant`.

    The other arguments are those of `dcg`.

    >>> hit_rate([[0, 0, 1]], [[3.0, 2.0, 1.0]], k=[2, 3]).tolist()
    [[0.0, 1.0]]
    """

    def metric(lists: _Lists, cutoffs: Sequence[int | None]) -> np.ndarray:
        worth = _cut(np.ones(len(lists.labels)), cutoffs)
        return _of_first(_relevant(lists, relevant), _ranks(lists), worth)

    return _per_list(metric, labels, scores, k, mask, offsets)


def _found(
    lists: _Lists, cutoffs: Sequence[int | None], threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """Expected number of relevant items in the top k, and in the list (nan if none)."""
    hits = _relevant(lists, threshold).astype(float)
    total = hits.sum(axis=0)[:, None]
    total[total == 0] = np.nan
    return _summed(hits, _ranks(lists), _cut(np.ones(len(hits)), cutoffs)), total


def precision(
    labels: ArrayLike,
    scores: ArrayLike,
    k: Cutoff = 10,
    mask: ArrayLike | None = None,
    offsets: ArrayLike | None = None,
    relevant: float = 1.0,
) -> np.ndarray:
    """Share of the first k ranks whose item has label >= `relevant`.

    The number of relevant items is divided by k, even if the list is shorter than k.
    TF-Ranking divides by the length of a list that is shorter than k. With k = None,
    the divisor is the length of the list. The other arguments are those of `dcg`.

    >>> precision([[1, 0, 1]], [[3.0, 2.0, 1.0]], k=[1, 2]).tolist()
    [[1.0, 0.5]]
    """

    def metric(lists: _Lists, cutoffs: Sequence[int | None]) -> np.ndarray:
        found, total = _found(lists, cutoffs, relevant)
        own = np.maximum(lists.length, 1)
        size = [own if k is None else np.full_like(own, k) for k in cutoffs]
        return np.where(np.isnan(total), np.nan, found / np.stack(size, axis=1))

    return _per_list(metric, labels, scores, k, mask, offsets)


def recall(
    labels: ArrayLike,
    scores: ArrayLike,
    k: Cutoff = 10,
    mask: ArrayLike | None = None,
    offsets: ArrayLike | None = None,
    relevant: float = 1.0,
) -> np.ndarray:
    """Share of the items with label >= `relevant` that are in the first k ranks.

    The other arguments are those of `dcg`.

    >>> recall([[1, 0, 1]], [[3.0, 2.0, 1.0]], k=[1, 3]).tolist()
    [[0.5, 1.0]]
    """

    def metric(lists: _Lists, cutoffs: Sequence[int | None]) -> np.ndarray:
        found, total = _found(lists, cutoffs, relevant)
        return found / total

    return _per_list(metric, labels, scores, k, mask, offsets)
