"""Tests of debias.retrieval.training.mining."""

import numpy as np
import pytest

from debias.layers import BiasTower
from debias.models import Product
from debias.retrieval.data.negatives import uniform
from debias.retrieval.models import PairRelevance, fm_tower
from debias.retrieval.training.evaluation import dot_scores
from debias.retrieval.training.mining import by_ranker, rescored
from tests.debias.retrieval.models.registry import ITEMS, LENGTH, LOG, USERS

NOTHING = np.empty(0, int), np.zeros(3, int)


def retrieval(users):
    """Both users: item 5 first, item 0 last."""
    return np.tile(np.arange(6.0), (len(users), 1))


def test_the_ranker_orders_what_retrieval_finds_and_nothing_else():
    scores = np.array([[0, 9, 1, 4, 2, 3], [0, 9, 3, 3, 1, 2]])

    def ranker(pairs):
        user, item = pairs.astype(int).T
        return scores[user, item][:, None]

    # Retrieval finds 5, 4, 3, 2; item 1, which the ranker loves, it does not.
    expected = [[3, 5, 4, 2], [3, 2, 5, 4]]  # 3 and 2 are equal: retrieval's order
    assert rescored(retrieval, ranker, NOTHING, 4).tolist() == expected
    hard = by_ranker(retrieval, ranker, NOTHING, uniform(6), 2, 3)
    # The list has ranks up to `last` only: 5, 4, 3 reordered, without the first.
    assert hard.rows.tolist() == [5, 4, 5, 4] and hard.offsets.tolist() == [0, 2, 4]


def test_taken_items_are_no_negatives_and_short_lists_end():
    seen = np.array([5, 4, 3, 2, 1]), np.array([0, 5, 5])
    best = rescored(retrieval, lambda pairs: -pairs[:, 1], seen, 3)
    assert best.tolist() == [[0, -1, -1], [3, 4, 5]]
    hard = by_ranker(retrieval, lambda pairs: -pairs[:, 1], seen, uniform(1), 2, 3)
    assert hard(np.array([0]), 4, np.random.default_rng(0)).tolist() == [[0] * 4]


def test_a_score_that_is_no_number_names_the_user():
    with pytest.raises(ValueError, match="NaN for user 1"):
        rescored(
            retrieval, lambda pairs: np.where(pairs[:, 0] == 1, np.nan, 0), NOTHING, 2
        )


def test_a_click_model_over_pairs_is_such_a_ranker():
    model = fm_tower(USERS, ITEMS, dim=8, length=LENGTH, seed=0)
    users = np.arange(len(LOG.users))
    history, _ = LOG.histories(LENGTH, users)
    features = {**LOG.users.columns, "history": history}
    click_model = Product(
        PairRelevance(model, features, LOG.items.columns), BiasTower({"position": 4})
    )
    vectors = model.user_vectors(features), model.item_vectors(LOG.items.columns)

    def by_tower(users):
        return dot_scores(vectors[0][users], vectors[1])

    best = rescored(by_tower, lambda p: np.asarray(click_model.score(p)), LOG.seen(), 9)
    # The ranker is retrieval's own tower: its order is retrieval's.
    scores = np.take_along_axis(by_tower(users), best, axis=1)
    assert (np.diff(scores, axis=1) <= 1e-5).all() and (best >= 0).all()
