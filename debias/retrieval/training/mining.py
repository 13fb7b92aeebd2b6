"""Hard negatives that the ranker behind recall finds: the two halves of the library.

A click model ranks what recall brings it. What it puts low in that list is what recall
should not have brought: near to the user by recall's own measure, and wrong by a better
one. Given back to recall as negatives, it teaches the difference.
"""

from collections.abc import Callable

import numpy as np

from debias.retrieval.data.negatives import Listed, Sampler, from_ranking
from debias.retrieval.training.evaluate import Scorer, ranks

PAIRS = 1 << 16  # scored at once

PairScorer = Callable[[np.ndarray], np.ndarray]


def rescored(
    recall: Scorer,
    score: PairScorer,
    seen: tuple[np.ndarray, np.ndarray],
    top: int = 500,
) -> np.ndarray:
    """Recall's list of each user in the order of a ranker.

    Args:
        recall: Maps rows of users (B,) to scores (B, N) over the catalogue.
        score: Maps pairs (P, 2) float32, a row of a user and a row of an item, to
            scores (P,) or (P, 1): the `score` of a click model whose relevance is a
            `debias.retrieval.models.PairRelevance`.
        seen: (rows, offsets): what each user has taken and is not recalled.
        top: Length of recall's list.

    Returns:
        (users, min(top, N)) int32 rows, best first by the ranker, equal scores in
        recall's order; -1 at the end where a user has fewer unseen items.

    Raises:
        ValueError: A score of the ranker is NaN; names the user.

    >>> recall = lambda users: np.array([[3.0, 2.0, 1.0, 0.0]])
    >>> nothing = np.empty(0, int), np.array([0, 0])
    >>> rescored(recall, lambda pairs: pairs[:, 1], nothing, top=3).tolist()
    [[2, 1, 0]]
    """
    none = np.empty(0, int)
    _, best = ranks(recall, none, none, seen, top=top)
    user, place = np.nonzero(best >= 0)
    pairs = np.stack([user, best[user, place]], axis=1).astype(np.float32)
    values = np.full(best.shape, -np.inf)
    starts = range(0, len(pairs), PAIRS)
    parts = [np.ravel(score(pairs[start : start + PAIRS])) for start in starts]
    values[user, place] = np.concatenate(parts) if parts else 0.0
    if np.isnan(values).any():
        bad = int(np.argmax(np.isnan(values).any(axis=1)))
        raise ValueError(f"score must be a number, got NaN for user {bad}")
    # Places without an item are last in recall's list, and stay so.
    order = np.argsort(-values, axis=1, kind="stable")
    return np.take_along_axis(best, order, axis=1)


def by_ranker(
    recall: Scorer,
    score: PairScorer,
    seen: tuple[np.ndarray, np.ndarray],
    fallback: Sampler,
    first: int = 101,
    last: int = 500,
) -> Listed:
    """A sampler of hard negatives: recall's `last` best, without the ranker's best.

    Recall's list of `last` unseen items is put in the order of the ranker, and what
    stands at ranks `first` to `last` is drawn from. What the ranker puts above may well
    be wanted and not yet taken.

    Source: Huang et al., Embedding-based Retrieval in Facebook Search, KDD 2020, 6.1.

    Args:
        recall, score, seen: As for `rescored`.
        fallback: For users without such items.
        first, last: Ranks, both included.

    >>> from debias.retrieval.data.negatives import uniform
    >>> recall = lambda users: np.array([[3.0, 2.0, 1.0, 0.0]])
    >>> nothing = np.empty(0, int), np.array([0, 0])
    >>> hard = by_ranker(recall, lambda p: p[:, 1], nothing, uniform(4), 2, 3)
    >>> hard.rows.tolist()
    [1, 0]
    """
    return from_ranking(rescored(recall, score, seen, last), fallback, first, last)
