"""Tests of debias.serve.answers: raw features by name; scores are finite."""

import numpy as np
import pytest

from debias.data.kinds import Feature
from debias.engine.scoring import Scorer
from debias.retrieval.serving import versions
from debias.serve.answers import ranked
from debias.serve.schemas import RankRequest
from tests.debias.retrieval import worlds


@pytest.fixture
def version(tmp_path):
    worlds.publish(tmp_path / "root", tmp_path)
    return versions.load(tmp_path / "root")


RAW = Scorer(
    # Codes count from 2; of a list of tags the first two are columns.
    lambda x: x @ np.array([1.0, 10.0, 100.0, 1000.0]),
    ("tags[0]", "tags[1]", "kind", "price"),
    (
        Feature("tags", "categories", ("high", "low", "top"), 2),
        Feature("kind", "category", ("even", "odd")),
        Feature("price"),
    ),
)


def test_raw_features_are_coded_as_the_ranker_has_learned_them(version):
    items = [
        {"tags": ["low", "new"], "kind": "odd", "price": 2},
        {"tags": [], "kind": None, "price": 0.5},
    ]
    found = ranked(version, RAW, RankRequest(items=items)).scores
    # low is 3, new is unknown: 1, odd is 3; nothing is 0.
    assert found == [3 + 10 * 1 + 100 * 3 + 1000 * 2, 500]
    # Item 7 of the version has the tags high and top and is odd; item 4 is low, even.
    found = ranked(version, RAW, RankRequest(ids=["1-7", "1-4"])).scores
    assert found == [2 + 10 * 4 + 100 * 3 + 7000, 3 + 100 * 2 + 4000]
    shared = RankRequest(items=[{"tags": ["top"], "price": 1}], context={"kind": "odd"})
    assert ranked(version, RAW, shared).scores == [4 + 100 * 3 + 1000]


@pytest.mark.parametrize(
    "item, reason",
    [
        ({"kind": "odd", "price": 1}, "the feature tags of the ranker is missing"),
        ({"tags": ["a"], "kind": "odd", "price": "dear"}, "price"),
        ({"tags": ["a", 1], "kind": "odd", "price": 1}, "tags must have values of one"),
        ({"tags": ["a"], "kind": "odd", "price": 10**30}, "price"),
        ({"tags": ["a"], "kind": "odd", "price": None}, "item 0 no finite score"),
    ],
)
def test_raw_features_that_are_refused(version, item, reason):
    with pytest.raises(ValueError, match=reason):
        ranked(version, RAW, RankRequest(items=[item]))


def test_a_score_that_is_no_number_is_refused(version):
    ranker = Scorer(lambda x: np.where(x[..., 0] > 1, np.nan, x[..., 0]))
    asked = RankRequest(features=[[1.0], [2.0]])
    with pytest.raises(ValueError, match="gives item 1 no finite score"):
        ranked(version, ranker, asked)
    assert ranked(version, ranker, RankRequest(features=[[1.0]])).scores == [1.0]
