"""Evaluation over the whole catalogue: every item is scored for every query.

Plain NumPy, in blocks of queries, so that memory is bounded and the time is that of
matrix products. The rank of a target is 1 + #greater + half of #equal among the items
that the query has not seen: a collapsed model that scores all items alike gets the
middle rank, not the first.
"""

import warnings
from collections.abc import Callable, Sequence

import numpy as np

Scorer = Callable[[np.ndarray], np.ndarray]
CUTOFFS = (10, 50, 100)


def dot_scores(queries: np.ndarray, items: np.ndarray) -> np.ndarray:
    """(Q, N) inner products; of several vectors a query, (Q, K, d), the largest.

    A vector of several that is all zero stands for none and is passed over, unless
    there is no other.

    >>> dot_scores(np.array([[[1.0, 0.0], [0.0, 0.0]]]), -np.eye(2)).tolist()
    [[-1.0, 0.0]]
    """
    if queries.ndim == 2:
        return queries @ items.T
    empty = np.asarray(~queries.any(axis=-1))
    empty[:, 0] &= False
    best = queries[:, 0] @ items.T
    for k in range(1, queries.shape[1]):
        scores = queries[:, k] @ items.T
        np.maximum(best, np.where(empty[:, k, None], -np.inf, scores), out=best)
    return best


def ranks(
    score: Scorer,
    query: np.ndarray,
    target: np.ndarray,
    seen: tuple[np.ndarray, np.ndarray],
    block: int = 512,
    top: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Half-tie rank of each target, and each query's best unseen items.

    rank = 1 + #{unseen: score > s} + #{other unseen: score = s} / 2. A target that is
    itself among the seen items is ranked all the same, against the unseen.

    Args:
        score: Maps query numbers (B,) to scores (B, N) over the catalogue.
        query: (T,) int, in 0..Q-1: the query that each target belongs to.
        target: (T,) int rows of the catalogue.
        seen: (rows, offsets): query q has seen `rows[offsets[q]:offsets[q + 1]]`.
        block: Queries scored at a time.
        top: How many best items to list; more than the catalogue has is cut to it.

    Returns:
        (T,) float64 ranks; (Q, min(top, N)) int32 rows in falling order of score, -1
        where a query has fewer unseen items.

    Raises:
        ValueError: A score is NaN; shapes do not fit.

    >>> scores = np.array([[3.0, 2.0, 2.0, 1.0]])
    >>> ranks(lambda q: scores[q], np.zeros(3, int), np.array([0, 1, 3]),
    ...       (np.array([0]), np.array([0, 1])))[0].tolist()
    [1.0, 1.5, 3.0]
    """
    rows, offsets = seen
    if query.shape != target.shape or query.ndim != 1:
        raise ValueError(
            f"query and target must be (T,), got {query.shape} and {target.shape}"
        )
    queries = len(offsets) - 1
    if len(query) and not (query.min() >= 0 and query.max() < queries):
        raise ValueError(f"query must be in [0, {queries}), got {query.max()}")
    order = np.argsort(query, kind="stable")
    bounds = np.searchsorted(query[order], np.arange(0, queries + block, block))
    rank, lists = np.empty(len(query)), []
    for number, start in enumerate(range(0, queries, block)):
        stop = min(start + block, queries)
        scores = np.array(score(np.arange(start, stop)))  # a copy: it is written to
        if scores.ndim != 2 or len(scores) != stop - start:
            raise ValueError(
                f"score must return ({stop - start}, items), got {scores.shape}"
            )
        if np.isnan(scores).any():
            bad = start + int(np.argmax(np.isnan(scores).any(axis=1)))
            raise ValueError(f"score must be a number, got NaN for query {bad}")
        here = order[bounds[number] : bounds[number + 1]]
        own = scores[query[here] - start, target[here]]
        lengths = np.diff(offsets[start : stop + 1])
        scores[
            np.repeat(np.arange(stop - start), lengths),
            rows[offsets[start] : offsets[stop]],
        ] = -np.inf
        against = scores[query[here] - start]
        against[np.arange(len(here)), target[here]] = -np.inf
        greater = (against > own[:, None]).sum(axis=1)
        equal = (against == own[:, None]).sum(axis=1)
        rank[here] = 1 + greater + np.where(np.isneginf(own), 0, equal) / 2
        if top:
            lists.append(best(scores, top))
    items = np.concatenate(lists) if lists else np.empty((queries, 0), np.int32)
    return rank, items


def best(scores: np.ndarray, k: int) -> np.ndarray:
    """The columns of each row's k largest scores.

    Args:
        scores: (Q, N) without NaN.
        k: At least 1.

    Returns:
        (Q, min(k, N)) int32 in falling order of score, equal ones by column; -1 in
        place of columns of score minus infinity.

    >>> best(np.array([[1.0, 2.0, 2.0, -np.inf]]), 2).tolist()
    [[1, 2]]
    """
    k = min(k, scores.shape[1])
    if not k:
        return np.empty((len(scores), 0), np.int32)
    least = np.partition(scores, -k, axis=1)[:, -k]
    chosen = np.empty((len(scores), k), np.int32)
    for own, row, at_least in zip(chosen, scores, least, strict=True):
        columns = np.flatnonzero(row >= at_least)
        order = np.argsort(-row[columns], kind="stable")[:k]
        own[:] = np.where(np.isneginf(row[columns[order]]), -1, columns[order])
    return chosen


def recall_metrics(
    rank: np.ndarray,
    query: np.ndarray,
    cutoffs: Sequence[int] = CUTOFFS,
    scale: int = 10,
) -> dict[str, float]:
    """Means over queries of what their targets' ranks are worth.

    hr@k is the share of queries with a target of rank at most k; recall@k the mean
    share of a query's targets there; ndcg@k the sum of 1 / log2(1 + rank) there over
    the largest that so many targets can have; mrr the mean of 1 / best rank; and
    `mrr/scale` the mean of 1 / ceil(best rank / scale), the form of the DAT article.

    Queries without a target are not counted. Without any, all are NaN.

    >>> both = recall_metrics(np.array([1.0, 12.0]), np.array([0, 1]), [10])
    >>> [round(both[name], 3) for name in ("hr@10", "ndcg@10", "mrr", "mrr/10")]
    [0.5, 0.5, 0.542, 0.75]
    """
    _, group, counts = np.unique(query, return_inverse=True, return_counts=True)
    if not len(rank):
        names = [f"{name}@{k}" for name in ("hr", "recall", "ndcg") for k in cutoffs]
        return dict.fromkeys([*names, "mrr", f"mrr/{scale}"], float("nan"))
    metrics = {}
    ideal = np.cumsum(1 / np.log2(1 + np.arange(1, max(*counts, 1) + 1)))
    for k in cutoffs:
        inside = rank <= k
        hits = np.bincount(group, inside)
        gain = np.bincount(group, np.where(inside, 1 / np.log2(1 + rank), 0.0))
        metrics[f"hr@{k}"] = float((hits > 0).mean())
        metrics[f"recall@{k}"] = float((hits / counts).mean())
        metrics[f"ndcg@{k}"] = float((gain / ideal[np.minimum(counts, k) - 1]).mean())
    best = np.full(len(counts), np.inf)
    np.minimum.at(best, group, rank)
    metrics["mrr"] = float((1 / best).mean())
    metrics[f"mrr/{scale}"] = float((1 / np.ceil(best / scale)).mean())
    return metrics


def head_items(popularity: np.ndarray, share: float = 0.2) -> np.ndarray:
    """(N,) bool: the round(share * N) most popular items; ties by row.

    >>> head_items(np.array([5, 1, 9, 1, 1]), 0.4).tolist()
    [True, False, True, False, False]
    """
    order = np.argsort(-popularity, kind="stable")
    head = np.zeros(len(popularity), bool)
    head[order[: round(share * len(order))]] = True
    return head


def evaluate(
    score: Scorer,
    query: np.ndarray,
    target: np.ndarray,
    seen: tuple[np.ndarray, np.ndarray],
    popularity: np.ndarray,
    cutoffs: Sequence[int] = CUTOFFS,
    block: int = 512,
    head_share: float = 0.2,
) -> dict[str, float]:
    """All metrics of one retrieval model.

    Beside `recall_metrics`: coverage@k, the share of the catalogue that stands in at
    least one query's k best unseen items, for the second of the cutoffs (or the only
    one); and, where `popularity` is given, every hr also over the head and over the
    tail, whose targets are outside the most popular `head_share` of the items. A model
    whose hr falls below that of ranking by popularity is warned of.

    Args:
        score, query, target, seen, block: As in `ranks`.
        popularity: (N,) counts of the training events of each item.
        cutoffs: The k, rising.

    Raises:
        ValueError: As `ranks`; also where there is no target at all.
    """
    if not len(query):
        raise ValueError("query must hold at least one target, got none")
    middle = cutoffs[min(1, len(cutoffs) - 1)]
    rank, listed = ranks(score, query, target, seen, block, middle)
    metrics = recall_metrics(rank, query, cutoffs)
    shown = np.unique(listed[listed >= 0])
    metrics[f"coverage@{middle}"] = len(shown) / len(popularity)
    in_head = head_items(popularity, head_share)[target]
    for name, part in (("head", in_head), ("tail", ~in_head)):
        own = recall_metrics(rank[part], query[part], cutoffs)
        metrics |= {f"{name}_hr@{k}": own[f"hr@{k}"] for k in cutoffs}
    worse = []
    counts = popularity.astype(np.float32)
    by_count, _ = ranks(
        lambda q: np.broadcast_to(counts, (len(q), len(counts))),
        query,
        target,
        seen,
        block,
    )
    for k in cutoffs:
        popular = recall_metrics(by_count, query, [k])[f"hr@{k}"]
        if metrics[f"hr@{k}"] < popular:
            worse.append(f"hr@{k} {metrics[f'hr@{k}']:.4f} < {popular:.4f}")
    if worse:
        warnings.warn(
            f"the model falls below popularity: {', '.join(worse)}", stacklevel=2
        )
    return metrics
