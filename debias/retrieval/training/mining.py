"""Hard negatives for a retrieval model, selected by a ranker.

A click model ranks the retrieved items. If the click model ranks a retrieved item low,
the retrieval model overestimates the item's relevance. When such overestimated items
are negatives, the retrieval model learns to lower their scores.
"""

from collections.abc import Callable

import numpy as np

from debias.retrieval.data.negatives import Listed, Sampler, from_ranking
from debias.retrieval.training.evaluation import Scorer, ranks

PAIRS = 1 << 16  # pairs scored at once

PairScorer = Callable[[np.ndarray], np.ndarray]


def rescored(
    retrieval: Scorer,
    score: PairScorer,
    seen: tuple[np.ndarray, np.ndarray],
    top: int = 500,
) -> np.ndarray:
    """The retrieved items of each user, in the order of a ranker.

    Args:
        retrieval: Function from rows of users (B,) to scores (B, N) over the catalogue.
        score: Function from (P, 2) float32 pairs (row of a user, row of an item) to
            scores (P,) or (P, 1). Use the method `score` of a click model whose
            relevance tower is a `debias.retrieval.models.PairRelevance`.
        seen: (rows, offsets) of the items that each user took. Items that a user took
            are not retrieved for this user.
        top: Length of the retrieved list.

    Returns:
        (users, min(top, N)) int32 rows, in the order of the ranker. Ties keep the
        retrieved order. If a user has fewer than `top` unseen items, the row is padded
        with -1.

    Raises:
        ValueError: A score of the ranker is NaN. The message names the user.

    >>> retrieval = lambda users: np.array([[3.0, 2.0, 1.0, 0.0]])
    >>> nothing = np.empty(0, int), np.array([0, 0])
    >>> rescored(retrieval, lambda pairs: pairs[:, 1], nothing, top=3).tolist()
    [[2, 1, 0]]
    """
    none = np.empty(0, int)
    _, best = ranks(retrieval, none, none, seen, top=top)
    user, place = np.nonzero(best >= 0)
    pairs = np.stack([user, best[user, place]], axis=1).astype(np.float32)
    values = np.full(best.shape, -np.inf)
    starts = range(0, len(pairs), PAIRS)
    parts = [np.ravel(score(pairs[start : start + PAIRS])) for start in starts]
    values[user, place] = np.concatenate(parts) if parts else 0.0
    if np.isnan(values).any():
        bad = int(np.argmax(np.isnan(values).any(axis=1)))
        raise ValueError(f"score must be a number, got NaN for user {bad}")
    # Places without an item are at the end of the retrieved list, and stay there.
    order = np.argsort(-values, axis=1, kind="stable")
    return np.take_along_axis(best, order, axis=1)


def by_ranker(
    retrieval: Scorer,
    score: PairScorer,
    seen: tuple[np.ndarray, np.ndarray],
    fallback: Sampler,
    first: int = 101,
    last: int = 500,
) -> Listed:
    """A sampler of hard negatives: retrieved items that a ranker does not rank high.

    The ranker orders the `last` best unseen items of the retrieval model, and the
    sampler draws from the ranks `first` to `last`. Items above rank `first` are left
    out, because they may be relevant but not taken yet.

    Source: Huang et al., Embedding-based Retrieval in Facebook Search, KDD 2020, 6.1.

    Args:
        retrieval, score, seen: See `rescored`.
        fallback: Sampler for users without items at the ranks `first` to `last`.
        first, last: First and last rank to draw from, inclusive.

    >>> from debias.retrieval.data.negatives import uniform
    >>> retrieval = lambda users: np.array([[3.0, 2.0, 1.0, 0.0]])
    >>> nothing = np.empty(0, int), np.array([0, 0])
    >>> hard = by_ranker(retrieval, lambda p: p[:, 1], nothing, uniform(4), 2, 3)
    >>> hard.rows.tolist()
    [1, 0]
    """
    return from_ranking(rescored(retrieval, score, seen, last), fallback, first, last)
