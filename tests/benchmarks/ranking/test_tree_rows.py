"""What the rows of trees give to LightGBM."""

from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.ranking import rows, tree_rows
from benchmarks.ranking.protocol import prepared, world
from benchmarks.ranking.settings import Size
from debias.data import ClickLog
from debias.training import TrainingConfig
from debias.training.trees import shown_rows


@pytest.mark.parametrize("row", ["judgments", "rates"])
def test_judged_rows_are_not_in_the_order_of_their_grades(row, monkeypatch):
    """LightGBM breaks ties by the order of rows, so a sorted one tells the grades.

    Ten queries of eight items, of which a list shows five. The higher an item's number,
    the more often it is shown and, where examined, clicked. Its number is its only
    feature.
    """
    rng = np.random.default_rng(0)
    keys = rng.gumbel(size=(3000, 8)) + np.log(np.arange(1, 9))
    query = np.arange(3000) % 10
    item = query[:, None] * 8 + np.argsort(-keys, axis=1)[:, :5]
    rate = (item % 8 + 1) / 10 * np.geomspace(1, 0.3, 5)
    log = ClickLog(query, item, rng.random(item.shape) < rate)
    features = np.arange(80.0)[:, None]
    data = SimpleNamespace(features=features)
    given = {}

    def lambdamart(features, label, groups, **more):
        given.update(more, item=features[:, 0].astype(int), label=label, groups=groups)

    monkeypatch.setattr(tree_rows, "_lambdamart", lambdamart)
    tree_rows.ROWS[row](SimpleNamespace(train=SimpleNamespace(log=log, data=data)))

    items, label = given["item"].reshape(10, 8), given["label"].reshape(10, 8)
    assert given["groups"].tolist() == [8] * 10
    assert (np.sort(items) == np.arange(80).reshape(10, 8)).all()
    # Grades stay with their items, whose attraction grows with their number ...
    by_number = np.take_along_axis(label, np.argsort(items), axis=1).mean(axis=0)
    assert by_number[0] < by_number[3] < by_number[7]
    # ... and the order of rows says nothing about them.
    assert (np.diff(label) > 0).any(axis=1).all()
    if row == "rates":
        count = np.bincount(log.item.ravel())
        weight = count / count.mean()
        np.testing.assert_allclose(given["weight"], weight[given["item"]])


@pytest.mark.parametrize("row", ["trees", "trees_listwise"])
def test_rows_of_click_models_read_both_logs_by_their_own_features(row):
    found = world("pbm", 0, None, Size(40, 300))
    table, shown, logs = shown_rows(*prepared(found)[:2])
    for log, part in zip(logs, (found.train, found.validation), strict=True):
        own = table[np.searchsorted(shown, log.item[log.mask])]
        wanted = part.data.features[part.log.item[part.log.mask]]
        np.testing.assert_array_equal(own, wanted)
    pytest.importorskip("lightgbm")
    scores = tree_rows.ROWS[row](found)(found.test.data.features)
    assert scores.shape == (found.test.data.items,) and np.ptp(scores) > 0


def test_the_row_auto_is_of_trees_where_these_are_chosen(monkeypatch):
    pytest.importorskip("lightgbm")
    asked = []

    def chosen(world, config, trees=True):
        asked.append(trees)
        return "trees" if trees else "softmax_naive"

    monkeypatch.setattr("benchmarks.ranking.protocol.chosen", chosen)
    monkeypatch.setattr(rows, "chosen", chosen)
    found, config = world("pbm", 0, None, Size(40, 300)), TrainingConfig()
    features = found.test.data.features
    grown = tree_rows.ROWS["trees"](found)(features)
    np.testing.assert_array_equal(rows.test_scores("auto", found, config), grown)
    measured = rows.measure("auto", found, config)
    assert measured == rows.ranking_metrics(found, grown)
    # Trees that imitate a model imitate a neural one.
    scores = tree_rows.ROWS["distilled"](found)(features)
    assert asked == [True, True, False] and np.ptp(scores) > 0
    assert not np.array_equal(scores, grown)
