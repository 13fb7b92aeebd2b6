"""Rows of the tables of columns: what each sees, on worlds of a few sessions."""

import numpy as np
import pytest

from benchmarks.ranking.columns import BRANDS, NUMBERS, Columns, _errors, _items


def test_badges_are_given_by_what_is_partly_a_mistake():
    train, test = _items("badge", 40, seed=1)
    assert len(train.numbers) == 2 * len(test.numbers) == 800
    tie = np.corrcoef(train.merit, train.attraction)[0, 1]
    assert 0.05 < abs(tie) < 0.95
    assert np.bincount(train.grade, minlength=5).tolist() == [320, 200, 160, 80, 40]


@pytest.mark.parametrize(
    "row, columns",
    [("one_hot", BRANDS + NUMBERS), ("category", 1 + NUMBERS), ("dropped", NUMBERS)],
)
def test_a_row_sees_the_category_in_its_way(row, columns):
    train, _ = _items("category", 10, seed=1)
    data = Columns(row, "category")._data(train)
    assert data.feature_count == columns
    assert (data.kinds is not None) == (row == "category")
    if row == "one_hot":
        assert (data.features[:, :BRANDS].argmax(axis=1) + 2 == train.brand).all()


@pytest.mark.parametrize("row", ["no_badge", "with_column", "without_column"])
def test_a_row_sees_the_badge_or_not(row):
    each = Columns(row, "badge", sessions=300, queries=10)
    log = each._log(_items("badge", 10, seed=1)[0], seed=1)
    assert (log.presentation is not None) == (row == "with_column")
    assert log.examination is None


def test_a_row_is_measured():
    each = Columns("category", "category", sessions=600, queries=60, epochs=1)
    assert 0 < each.measure(0, None)["ndcg@5"] <= 1


def test_errors_are_those_of_the_bias_tower():
    class Model:
        def bias(self, place):
            theta = np.array([0.5, 0.25])[place["badge"] - 1] ** place["position"]
            return np.log(theta / (1 - theta))[..., None]

    found = _errors(Model())
    truth = np.log([0.68, 0.61, 0.48, 0.34, 0.28, 0.20, 0.11, 0.10, 0.08, 0.06])
    own = np.log(0.5) * np.arange(10)
    expected = np.abs(own - (truth - truth[0])).mean()
    assert found["position_error"] == pytest.approx(expected)
    # log (.25 / .5) ** k is -k log 2, 5.5 of them on average, less log 2.
    assert found["badge_error"] == pytest.approx(6.5 * np.log(2))
