"""Rows of the table of targets: what each sees, and how rankings are judged."""

import numpy as np
import pytest

from benchmarks.ranking import targets
from benchmarks.ranking.targets import ITEMS, Items, Targets, judged, of_items, world


def test_two_clicks_in_a_hundred_end_in_an_order():
    train, test = world(300, seed=1)
    assert len(train.features) == 2 * len(test.features) == 300 * ITEMS
    rate = (train.attraction * train.conversion).sum() / train.attraction.sum()
    assert rate == pytest.approx(targets.RATE, rel=0.1)
    logits = np.log(train.attraction / (1 - train.attraction)), np.log(train.conversion)
    assert np.corrcoef(*logits)[0, 1] == pytest.approx(targets.TIE, abs=0.2)


@pytest.mark.parametrize("row", [name for name in targets.ROWS if name != "logging"])
def test_a_row_sees_its_part_of_one_log(row):
    each = Targets(row, sessions=2000, queries=30)
    items = world(30, seed=1)[0]
    log = each.log(items, seed=1)
    whole = Targets("multi_target", sessions=2000, queries=30).log(items, seed=1)
    assert (log.item == whole.item).all() and log.examination is None
    wanted = whole.targets["order"] > 0 if row == "order_only" else whole.click
    assert (log.click == wanted).all()
    assert (log.targets is None) == row.endswith("only")


def test_rankings_are_judged_by_true_value():
    attraction = np.tile(np.linspace(0.1, 0.9, ITEMS), 2)
    conversion = np.tile(np.linspace(0.04, 0.01, ITEMS), 2)
    items = Items(np.zeros((2 * ITEMS, 1)), attraction, conversion, attraction)
    best = judged(items, items.value)
    assert best["ndcg@5"] == pytest.approx(1)
    value = np.sort(items.value[:ITEMS])[::-1]
    theta = np.array([0.68, 0.61, 0.48, 0.34, 0.28, 0.20, 0.11, 0.10, 0.08, 0.06])
    assert best["orders"] == pytest.approx(1000 * value[:10] @ theta)
    first = judged(items, 1.0 * (np.arange(2 * ITEMS) % ITEMS == 0))["ndcg@1"]
    assert first == pytest.approx(items.value[0] / value[0])


def test_a_row_is_measured():
    found = Targets("multi_target_apart", sessions=600, queries=60, epochs=1).measure(
        0, None
    )
    assert 0 < found["ndcg@5"] <= 1 and found["orders"] > 0
    assert of_items(world(5, 0)[0]).queries == 5
