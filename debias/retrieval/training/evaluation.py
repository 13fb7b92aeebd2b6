"""Evaluation over the whole catalogue, with every item scored for every user.

NumPy computes the scores in blocks of queries, so memory is bounded and matrix products
take most of the time. The rank of a target is 1 + (number of items with greater scores)
+ (number of other items with equal scores) / 2. Only the items that the policy of
repeats allows are counted (`debias.retrieval.data.repeats`). So if a collapsed model
gives all items equal scores, targets get the middle rank instead of the first rank.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from debias.retrieval.data.events import Events
from debias.retrieval.data.interactions import FIRST, ID, Interactions
from debias.retrieval.data.repeats import Repeat
from debias.retrieval.data.taken import is_taken

Scorer = Callable[[np.ndarray], np.ndarray]
CUTOFFS = (10, 50, 100)
TYPICAL = 2000  # most users whose mean is a typical user


def dot_scores(queries: np.ndarray, items: np.ndarray) -> np.ndarray:
    """(Q, N) inner products; with K vectors per query, the largest of K products.

    `queries` is (Q, d), or (Q, K, d) with K vectors per query. Zero vectors of a query
    are ignored, unless all vectors of the query are zero.

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
    repeat: str | Repeat = "exclude",
) -> tuple[np.ndarray, np.ndarray]:
    """Ranks of targets, with ties counted half, and the best items of each query.

    The rank of a target is 1 + (number of items with greater scores) + (number of other
    items with equal scores) / 2. Only items that the policy of repeats allows are
    counted, after the policy has modified the scores. If the policy excludes seen
    items, a seen target has an infinite rank.

    Args:
        score: Function from query numbers (B,) to scores (B, N) over the catalogue.
        query: (T,) int in 0..Q-1, the query of each target.
        target: (T,) int rows of the catalogue.
        seen: (rows, offsets). The items that query q has seen are
            `rows[offsets[q]:offsets[q + 1]]`, with repetition and in order of time.
        block: Number of queries to score at a time.
        top: Number of best items to list, at most the size of the catalogue.
        repeat: Policy for seen items: "exclude", "allow", or a `Repeat`.

    Returns:
        (T,) float64 ranks, and (Q, min(top, N)) int32 rows of the best items, by
        decreasing score. If a query has fewer than `top` allowed items, its last rows
        are -1.

    Raises:
        ValueError: A score is NaN, or shapes do not fit.

    >>> scores = np.array([[3.0, 2.0, 2.0, 1.0]])
    >>> ranks(lambda q: scores[q], np.zeros(3, int), np.array([0, 1, 3]),
    ...       (np.array([0]), np.array([0, 1])))[0].tolist()
    [inf, 1.5, 3.0]
    """
    repeat, rank, lists = Repeat.of(repeat), np.empty(len(query)), []
    for here in _blocks(query, target, seen, block):
        scores = _checked(np.array(score(here.queries)), here.queries)
        rank[here.events] = here.settled(scores, repeat)
        if top:
            lists.append(best(scores, top))
    queries = len(seen[1]) - 1
    items = np.concatenate(lists) if lists else np.empty((queries, 0), np.int32)
    return rank, items


def ranks_of_each(
    score: Callable[[np.ndarray], Iterable[np.ndarray]],
    query: np.ndarray,
    target: np.ndarray,
    seen: tuple[np.ndarray, np.ndarray],
    repeats: Sequence[Repeat],
) -> np.ndarray:
    """(R, T) ranks by R scorers that share computations; see `ranks`.

    Args:
        score: Function from query numbers (B,) to an iterator over R score matrices (B,
            N). `ranks_of_each` overwrites a matrix before it requests the next matrix.
        query, target, seen: See `ranks`.
        repeats: Policy of each scorer.

    >>> both = lambda q: (sign * np.array([[3.0, 2.0]]) for sign in (1, -1))
    >>> nothing = np.array([], int), np.array([0, 0])
    >>> ranks_of_each(both, np.array([0]), np.array([0]), nothing, 2 * [Repeat()])
    array([[1.],
           [2.]])
    """
    rank = np.empty((len(repeats), len(query)))
    for here in _blocks(query, target, seen):
        for row, (scores, repeat) in enumerate(
            zip(score(here.queries), repeats, strict=True)
        ):
            scores = _checked(scores, here.queries)
            rank[row, here.events] = here.settled(scores, repeat)
    return rank


class _Block(NamedTuple):
    """A block of queries with their events and taken items.

    Attributes:
        queries: (B,) ascending.
        events: (T,) indices of the events of these queries.
        place, wanted: (T,) query (an index below B) and item of each event.
        taken: (rows, offsets) of the items taken, like the argument `seen` of `ranks`.
    """

    queries: np.ndarray
    events: np.ndarray
    place: np.ndarray
    wanted: np.ndarray
    taken: tuple[np.ndarray, np.ndarray]

    def settled(self, scores: np.ndarray, repeat: Repeat) -> np.ndarray:
        """(T,) ranks under a policy of repeats; changes the scores in place."""
        repeat.settle(scores, self.taken)
        rank = half_tie_ranks(scores, self.place, self.wanted)
        if repeat.policy == "exclude":
            rank[is_taken(self.place, self.wanted, self.taken)] = np.inf
        return rank


def _blocks(
    query: np.ndarray,
    target: np.ndarray,
    seen: tuple[np.ndarray, np.ndarray],
    block: int = 512,
) -> Iterator[_Block]:
    rows, offsets = (np.asarray(part) for part in seen)
    queries = len(offsets) - 1
    _check_queries(query, target, queries)
    order = np.argsort(query, kind="stable")
    bounds = np.searchsorted(query[order], np.arange(0, queries + block, block))
    for number, start in enumerate(range(0, queries, block)):
        stop = min(start + block, queries)
        events = order[bounds[number] : bounds[number + 1]]
        ends = offsets[start : stop + 1]
        taken = rows[ends[0] : ends[-1]], ends - ends[0]
        yield _Block(
            np.arange(start, stop), events, query[events] - start, target[events], taken
        )


def half_tie_ranks(
    scores: np.ndarray, query: np.ndarray, target: np.ndarray
) -> np.ndarray:
    """(T,) float64 rank of each target in its row, with ties counted half.

    The rank is 1 + (number of greater scores) + (number of other equal scores) / 2.
    Removed items have the score minus infinity, so they do not tie with other items.

    Args:
        scores: (Q, N) without NaN. The function does not change the scores.
        query, target: (T,) row and column of each target.

    >>> scores = np.array([[3.0, 2.0, 2.0, 1.0]])
    >>> half_tie_ranks(scores, np.array([0, 0, 0]), np.array([0, 1, 3])).tolist()
    [1.0, 2.5, 4.0]
    """
    own = scores[query, target][:, None]
    alone = len(query) == len(scores) and (query == np.arange(len(query))).all()
    against = scores if alone else scores[query]  # avoids a copy if possible
    mask = against > own
    greater = _counts(mask)
    equal = _counts(np.equal(against, own, out=mask)) - 1
    return 1 + greater + np.where(np.isneginf(own[:, 0]), 0, equal) / 2


def _counts(mask: np.ndarray) -> np.ndarray:
    """(Q,) number of true cells per row, ten times as fast as `mask.sum(axis=1)`."""
    return np.fromiter(map(np.count_nonzero, mask), np.int64, len(mask))


def _check_queries(query: np.ndarray, target: np.ndarray, queries: int) -> None:
    if query.shape != target.shape or query.ndim != 1:
        raise ValueError(
            f"query and target must be (T,), got {query.shape} and {target.shape}"
        )
    if len(query) and not (query.min() >= 0 and query.max() < queries):
        raise ValueError(f"query must be in [0, {queries}), got {query.max()}")


def _checked(scores: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Raises ValueError if scores have the wrong shape or a NaN."""
    if scores.ndim != 2 or len(scores) != len(queries):
        raise ValueError(
            f"score must return ({len(queries)}, items), got {scores.shape}"
        )
    if np.isnan(scores.max(initial=-np.inf)):  # a maximum propagates NaN
        bad = queries[int(np.argmax(np.isnan(scores).any(axis=1)))]
        raise ValueError(f"score must be a number, got NaN for query {bad}")
    return scores


def best(scores: np.ndarray, k: int) -> np.ndarray:
    """The columns of the k largest scores in each row.

    Args:
        scores: (Q, N) without NaN.
        k: At least 1.

    Returns:
        (Q, min(k, N)) int32 columns, by decreasing score. Ties are ordered by column.
        Columns with the score minus infinity are replaced by -1.

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
    target: np.ndarray | None = None,
) -> dict[str, float]:
    """Ranking metrics of targets, averaged over queries.

    hr@k is the share of queries with a target of rank at most k. recall@k is the share
    of a query's targets that have rank at most k. ndcg@k is the sum of 1 / log2(1 +
    rank) over the targets of rank at most k, divided by the largest possible sum. mrr
    is 1 / best rank of a query's targets. mrr/10 is 1 / ceil(best rank / 10), as in the
    DAT article. recall, ndcg and mrr are means over queries.

    Queries without a target are not counted. Without any target, every metric is NaN.

    Args:
        rank: (T,) rank of each target. Excluded targets have infinite ranks.
        query: (T,) int, query of each target.
        cutoffs: The cutoffs k of the metrics.
        target: (T,) item of each target. Repeated targets of a query count once. If
            None, targets of a query with equal ranks count as one target.

    >>> both = recall_metrics(np.array([1.0, 12.0]), np.array([0, 1]), [10])
    >>> [round(both[name], 3) for name in ("hr@10", "ndcg@10", "mrr", "mrr/10")]
    [0.5, 0.5, 0.542, 0.75]
    """
    rank, query = np.asarray(rank), np.asarray(query)
    if len(rank):
        once = _distinct(query, rank if target is None else np.asarray(target))
        rank, query = rank[once], query[once]
    _, group, counts = np.unique(query, return_inverse=True, return_counts=True)
    if not len(rank):
        names = [f"{name}@{k}" for name in ("hr", "recall", "ndcg") for k in cutoffs]
        return dict.fromkeys([*names, "mrr", "mrr/10"], float("nan"))
    metrics = {}
    for k in cutoffs:
        inside = rank <= k
        hits = np.bincount(group, inside)
        metrics[f"hr@{k}"] = float((hits > 0).mean())
        metrics[f"recall@{k}"] = float((hits / counts).mean())
        ndcg = ndcg_by_query(rank, query, k, target=np.arange(len(rank)))
        metrics[f"ndcg@{k}"] = float(ndcg.mean())
    best = np.full(len(counts), np.inf)
    np.minimum.at(best, group, rank)
    metrics["mrr"] = float((1 / best).mean())
    metrics["mrr/10"] = float((1 / np.ceil(best / 10)).mean())
    return metrics


def _distinct(query: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Ascending indices of the first occurrence of each (query, key) pair."""
    order = np.lexsort((key, query))
    q, k = query[order], key[order]
    return np.sort(order[np.append(True, (q[1:] != q[:-1]) | (k[1:] != k[:-1]))])


def ndcg_by_query(
    rank: np.ndarray,
    query: np.ndarray,
    cutoff: int,
    target: np.ndarray | None = None,
) -> np.ndarray:
    """(Q,) ndcg@cutoff of each query that has a target, in order of query number.

    `recall_metrics` explains the arguments, and returns the mean of these values.

    >>> ndcg_by_query(np.array([1.0, 3.0, 9.0]), np.array([5, 7, 5]), 4).round(3)
    array([0.613, 0.5  ])
    """
    once = _distinct(query, rank if target is None else target)
    rank, query = rank[once], query[once]
    _, group, counts = np.unique(query, return_inverse=True, return_counts=True)
    ideal = np.cumsum(1 / np.log2(1 + np.arange(1, cutoff + 1)))
    gain = np.where(rank <= cutoff, 1 / np.log2(1 + rank), 0.0)
    total = np.bincount(group, gain, minlength=len(counts))
    return np.asarray(total / ideal[np.minimum(counts, cutoff) - 1])


def head_items(popularity: np.ndarray, share: float = 0.2) -> np.ndarray:
    """(N,) bool, marks the round(share * N) most popular items; row order breaks ties.

    >>> head_items(np.array([5, 1, 9, 1, 1]), 0.4).tolist()
    [True, False, True, False, False]
    """
    order = np.argsort(-popularity, kind="stable")
    head = np.zeros(len(popularity), bool)
    head[order[: round(share * len(order))]] = True
    return head


def evaluate_scores(
    score: Scorer,
    query: np.ndarray,
    target: np.ndarray,
    seen: tuple[np.ndarray, np.ndarray],
    popularity: np.ndarray,
    cutoffs: Sequence[int] = CUTOFFS,
    block: int = 512,
    repeat: str | Repeat = "exclude",
) -> dict[str, float]:
    """All metrics of a scorer (a tower or a baseline) over the whole catalogue.

    The function returns the metrics of `recall_metrics` and the following metrics:

        coverage@k         share of the catalogue that is among the k best items of at
                           least one query; k is the second cutoff, or the only one
        head_hr@k, ...     hr over targets in `head_items`, a fifth of the items
        tail_hr@k, ...     hr over all other targets

    The function warns if hr at a cutoff is below the hr of a ranking by popularity.

    Args:
        score, query, target, seen, block, repeat: See `ranks`.
        popularity: (N,) number of training events of each item.
        cutoffs: The cutoffs k of the metrics, in increasing order.

    Raises:
        ValueError: There is no target, or `ranks` raises an error.
    """
    if not len(query):
        raise ValueError("query must hold at least one target, got none")
    middle, repeat = cutoffs[min(1, len(cutoffs) - 1)], Repeat.of(repeat)
    rank, listed = ranks(score, query, target, seen, block, middle, repeat)
    metrics = recall_metrics(rank, query, cutoffs, target=target)
    shown = np.unique(listed[listed >= 0])
    metrics[f"coverage@{middle}"] = len(shown) / len(popularity)
    in_head = head_items(popularity)[target]
    for name, part in (("head", in_head), ("tail", ~in_head)):
        own = recall_metrics(rank[part], query[part], cutoffs, target=target[part])
        metrics |= {f"{name}_hr@{k}": own[f"hr@{k}"] for k in cutoffs}
    _warn_below_popularity(metrics, query, target, seen, popularity, cutoffs, repeat)
    return metrics


def _warn_below_popularity(
    metrics: Mapping[str, float],
    query: np.ndarray,
    target: np.ndarray,
    seen: tuple[np.ndarray, np.ndarray],
    popularity: np.ndarray,
    cutoffs: Sequence[int],
    repeat: Repeat,
) -> None:
    counts = popularity.astype(np.float32)
    # Counts have no scale in which to give a bonus.
    plain = "exclude" if repeat.policy == "exclude" else "allow"
    rank, _ = ranks(
        lambda q: np.broadcast_to(counts, (len(q), len(counts))),
        query,
        target,
        seen,
        repeat=plain,
    )
    worse = []
    for k in cutoffs:
        popular = recall_metrics(rank, query, [k], target=target)[f"hr@{k}"]
        if metrics[f"hr@{k}"] < popular:
            worse.append(f"hr@{k} {metrics[f'hr@{k}']:.4f} < {popular:.4f}")
    if worse:
        warnings.warn(
            f"the model is worse than popularity: {', '.join(worse)}", stacklevel=3
        )


class Encodes(Protocol):
    """Interface of the models that `evaluate` accepts, such as a `RetrievalModel`."""

    user: Any

    def user_vectors(self, features: Mapping[str, np.ndarray]) -> np.ndarray: ...

    def item_vectors(self, features: Mapping[str, np.ndarray]) -> np.ndarray: ...


class _Queries(NamedTuple):
    """The users of events, in the form that a model reads.

    Attributes:
        features: Input of the user tower, with one row per user.
        seen: (rows, offsets) of the items that each user has taken.
        query: (E,) index of the user of each event.
        unknown: Number of users that are not in the log.
    """

    features: dict[str, np.ndarray]
    seen: tuple[np.ndarray, np.ndarray]
    query: np.ndarray
    unknown: int


def evaluate(
    model: Encodes,
    log: Interactions,
    events: Events | Interactions,
    cutoffs: Sequence[int] = CUTOFFS,
    repeat: str | Repeat = "exclude",
    progress: Callable[[float], None] = lambda share: None,
) -> dict[str, float]:
    """Evaluates a model on events that it was not trained on.

    For each user in `events`, all items are ranked as in serving. The user vector comes
    from the user's history in `log`, and `repeat` is the policy for items taken before.
    Unknown users get the vector `typical_user`. An event on an unknown item counts as a
    miss. If repeats are excluded, an event on an item taken before also counts as a
    miss, even if the user's history has no other item.

    The function warns if `log` contains any of the events.

    Args:
        model: A `debias.retrieval.models.RetrievalModel`, or `Learner.served`.
        log: Earlier events, with the tables of users and items of the model.
        events: Later events, whose users and items are matched to `log` by raw ids. An
            item that a user takes several times counts once.
        cutoffs: The cutoffs k of the metrics.
        repeat: Policy for items taken before: "exclude", "allow", or a `Repeat`.
        progress: Function that is called with the share of users evaluated so far.

    Returns:
        The metrics of `recall_metrics`, averaged over users, and the counts "users",
        "events", "repeated" (events on items taken before), "unknown_users" and
        "unknown_items".

    Raises:
        ValueError: `events` is empty.
    """
    if isinstance(events, Interactions):
        events = Events.of(events)
    if not len(events.user):
        raise ValueError("events must hold at least one event, got none")
    queries = _queries(log, events.user, history_length(model))
    vectors = model.item_vectors(log.items.columns)
    users = model.user_vectors(queries.features)
    nobody = queries.features[ID] < FIRST
    if nobody.any():
        users[nobody] = 0.0
        users[(nobody, 0) if users.ndim == 3 else nobody] = typical_user(model, log)
    target = log.items.encode({ID: events.item})[0][ID] - FIRST
    there = target >= 0
    user = queries.features[ID][queries.query] - FIRST
    _warn_learned(log, user, target, events.time)
    rank, policy = np.full(len(target), np.inf), Repeat.of(repeat)

    def score(q: np.ndarray) -> np.ndarray:
        scores = dot_scores(users[q], vectors)
        ends = queries.seen[1][q[0] : q[-1] + 2]
        some = queries.seen[0][ends[0] : ends[-1]], ends - ends[0]
        policy.own_scores(scores, users[q], vectors, some)
        progress(float(q[-1] + 1) / len(users))
        return scores

    rank[there], _ = ranks(
        score,
        queries.query[there],
        target[there],
        queries.seen,
        repeat=policy,
    )
    again = is_taken(queries.query[there], target[there], queries.seen)
    _, name = np.unique(events.item, return_inverse=True)
    return {
        **recall_metrics(rank, queries.query, cutoffs, target=name),
        "users": len(users),
        "events": len(target),
        "repeated": int(again.sum()),
        "unknown_users": queries.unknown,
        "unknown_items": int((~there).sum()),
    }


def _warn_learned(
    log: Interactions, user: np.ndarray, item: np.ndarray, time: np.ndarray
) -> None:
    """Warns if events have the same user, item and time as events of the log."""
    size = np.int64(len(log.items) + 1)
    pair, learned = (u * size + i for u, i in ((user, item), (log.user, log.item)))
    mine = np.isin(learned, pair)  # few, except with many repeats
    known = set(zip(learned[mine].tolist(), log.time[mine].tolist(), strict=True))
    asked = zip(pair.tolist(), time.tolist(), strict=True)
    again = sum(event in known for event in asked)
    if again:
        warnings.warn(
            f"the model may have learned from {again:,} of these {len(user):,} "
            "events, so the result is not a valid evaluation; give later events, or "
            "hold out the last events from training (--hold-out)",
            stacklevel=3,
        )


def typical_user(model: Encodes, log: Interactions) -> np.ndarray:
    """(d,) mean vector of users, which represents a user without known features.

    The inner product of this vector with an item vector is the item's mean score over
    users. So this vector orders items roughly by popularity. The tower is not trained
    on users without id, history and features, so the tower's output for such users
    would order items at random. The mean has at most `TYPICAL` users, evenly spaced
    among the users with events. If users have several vectors, zero vectors are
    ignored.

    Args:
        model: A `debias.retrieval.models.RetrievalModel`.
        log: Earlier events.
    """
    active = np.unique(log.user)
    if not len(active):
        active = np.arange(len(log.users))
    count = min(TYPICAL, len(active))
    some = active[np.linspace(0, len(active) - 1, count).astype(int)]
    history, _ = log.histories(max(history_length(model), 1), some)
    vectors = model.user_vectors({**log.users.take(some), "history": history})
    rows = vectors.reshape(-1, vectors.shape[-1])
    rows = rows[rows.any(axis=1)]
    return rows.mean(axis=0) if len(rows) else np.zeros(vectors.shape[-1], np.float32)


def history_length(model: Encodes) -> int:
    """Number of history items that a model reads, 0 if it reads no history."""
    return int(model.user.history["length"]) if model.user.history else 0


def _queries(log: Interactions, user: np.ndarray, length: int) -> _Queries:
    names, query = np.unique(user, return_inverse=True)
    features, _ = log.users.encode({ID: names})
    row = features[ID] - FIRST
    known = row >= 0
    for name, column in log.users.take(row[known]).items():
        features[name][known] = column
    features["history"] = np.zeros((len(names), max(length, 1)), np.int32)
    features["history"][known], _ = log.histories(max(length, 1), row[known])
    taken, offsets = log.seen(row[known])
    counts = np.zeros(len(names), int)
    counts[known] = np.diff(offsets)
    seen = taken, np.append(0, np.cumsum(counts))
    return _Queries(features, seen, query, int((~known).sum()))
