"""Tests of simulators.shop."""

import numpy as np
import pytest

from simulators.shop import FEATURES, ITEMS, longest_listed, shop


def test_grades_follow_match_rating_and_price_and_not_the_days():
    data = shop(300, seed=3)
    assert data.queries == 300 and data.items == 300 * ITEMS
    match, rating, price, days = (
        np.corrcoef(column, data.labels)[0, 1] for column in data.features.T
    )
    assert match > 0.4 and rating > 0.3 and price < -0.3 and abs(days) < 0.05
    assert sorted(np.unique(data.labels)) == [0, 1, 2, 3, 4]


def test_same_seed_same_shop():
    assert shop(3, 1).fingerprint == shop(3, 1).fingerprint != shop(3, 2).fingerprint
    assert shop(3).feature_names == FEATURES
    with pytest.raises(ValueError, match="queries must be at least 1, got 0"):
        shop(0)


def test_policy_scores_days_and_match():
    data = shop(2)
    by_hand = [np.log(row[3]) + row[0] for row in data.features]
    np.testing.assert_allclose(longest_listed(data), by_hand, rtol=1e-5)
