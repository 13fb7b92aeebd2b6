"""Vocabularies and matrices of codes, by hand."""

import numpy as np
import pytest

from debias.data import RankingData
from debias.data.kinds import (
    Feature,
    as_records,
    column_names,
    described,
    of_records,
    recoded,
    trained,
)

BRAND = Feature("brand", "category", ("acme", "birch", "corax"))
TAGS = Feature("tags", "categories", ("new", "sale"), 2)
PRICE, DAY = Feature("price"), Feature("day", "date")
MATRIX = np.array(
    [[2, 2, 3, 5.0, 1], [4, 3, 0, np.nan, 2], [0, 0, 0, 7.0, np.nan]], np.float32
)
FEATURES = (BRAND, TAGS, PRICE, DAY)


def test_training_shows_a_value_ten_times_or_it_is_out_of_vocabulary():
    brand, tags, *_ = trained(FEATURES, MATRIX, np.array([10, 9, 50]))
    assert brand.values == ("acme",)  # corax was shown 9 times
    assert tags.values == ("new", "sale")  # new 10 times, sale 10 + 9
    assert trained(FEATURES, MATRIX)[0].values == ("acme", "corax")  # once is enough
    most = trained(FEATURES, MATRIX, np.array([10, 19, 0]), most=1)
    assert most[0].values == ("corax",) and most[1].values == ("sale",)


def test_codes_of_another_vocabulary_are_found_by_value():
    want = (
        Feature("brand", "category", ("corax",)),
        Feature("tags", "categories", ("sale",), 1),
        PRICE,
    )
    found = recoded(MATRIX, FEATURES, want)
    expected = [[1, 1, 5.0], [2, 2, np.nan], [0, 0, 7.0]]
    np.testing.assert_array_equal(found, np.array(expected, np.float32))
    sizes = (Feature("size", "category", ("38", "39.5")),)
    numbers = np.array([[39.5], [38.0], [40.0], [np.nan]], np.float32)
    found = recoded(numbers, (Feature("size"),), sizes)
    assert found.ravel().tolist() == [3, 2, 1, 0]
    with pytest.raises(ValueError, match="no feature size; there are brand tags"):
        recoded(MATRIX, FEATURES, sizes)
    with pytest.raises(ValueError, match="brand holds categories"):
        recoded(MATRIX, FEATURES, (Feature("brand"),))


def test_records_names_and_what_is_missing():
    assert of_records(as_records(FEATURES)) == FEATURES
    assert column_names(FEATURES) == ("brand", "tags[0]", "tags[1]", "price", "day")
    rows = described(FEATURES, MATRIX)
    assert [row["missing"] for row in rows] == [0.333333] * 4
    assert [row["values"] for row in rows] == [3, 2, None, None]


def test_ranking_data_keeps_kinds_in_every_way_it_is_made_anew(tmp_path):
    data = RankingData(MATRIX, [0, 1, 2], [0, 1, 3], kinds=FEATURES)
    assert data.feature_names == column_names(FEATURES)
    assert data.select([1]).kinds == FEATURES
    data.write_parquet(tmp_path / "items.parquet")
    back = RankingData.read_parquet(tmp_path / "items.parquet")
    assert back.kinds == FEATURES
    np.testing.assert_array_equal(back.features, MATRIX)
    want = (PRICE._replace(name="price"),)
    assert data.arranged(["price"], want).features.shape == (3, 1)
    with pytest.raises(ValueError, match="brand holds categories"):
        data.arranged(["brand"])
    with pytest.raises(ValueError, match="price is missing at item 1"):
        data.arranged(["price"])


@pytest.mark.parametrize(
    "row, column, value, message",
    [
        (1, 0, 5, "brand must be a code below 5, got 5.0 at item 1"),
        (2, 2, 0.5, "tags must be a code below 4, got 0.5 at item 2"),
        (0, 3, np.inf, "price must be finite or missing, got inf at item 0"),
    ],
)
def test_a_code_out_of_its_vocabulary_is_named(row, column, value, message):
    wrong = MATRIX.copy()
    wrong[row, column] = value
    with pytest.raises(ValueError, match=message):
        RankingData(wrong, None, [0, 3], kinds=FEATURES)


def test_codes_stand_before_numbers():
    with pytest.raises(ValueError, match="categories before numbers"):
        RankingData(MATRIX, None, [0, 3], kinds=(PRICE, BRAND, TAGS, DAY))
