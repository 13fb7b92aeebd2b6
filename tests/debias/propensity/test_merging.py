"""Tests of debias.propensity.merging."""

import numpy as np
import pytest
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from debias.propensity import merge_places


def test_by_hand():
    # 3 and 4 are the largest, by number; 2 is nearest to 3, then 1 to 2, which is tied
    # by now, so that all three share the bias of 3. Place 5 shows nothing.
    assert merge_places([0, 1, 2, 2, -1]).tolist() == [0, 3, 3, 3, 4, 5]
    # The pair that joins is the nearest one: 2 and 3, not 1 and 4.
    assert merge_places([1, 0, 0, 0, 1]).tolist() == [0, 2, 2, 3, 4, 5]
    assert merge_places([0, 0, 0]).tolist() == [0, 1, 2, 3]
    assert merge_places([-1, -1]).tolist() == [0, 1, 2]


def test_features_say_what_is_near():
    """On a grid of two columns, place 3 is below 1 and far from 2."""
    grid = [[1, 1], [1, 4], [2, 1], [2, 4]]  # row, and column in steps of 3
    assert merge_places([0, 0, 1, 1], grid).tolist() == [0, 1, 2, 1, 4]
    assert merge_places([0, 0, 1, 1], [0.0, 9.0, 5.0, 8.0]).tolist() == [0, 1, 2, 3, 2]


@pytest.mark.parametrize("seed", range(5))
def test_one_place_of_each_other_component_is_merged_and_all_are_tied(seed):
    rng = np.random.default_rng(seed)
    component, features = rng.integers(0, 6, 20), rng.normal(size=(20, 2))
    shares = merge_places(component, features)
    moved = np.flatnonzero(shares != np.arange(21))
    count = len(np.unique(component))
    assert len(moved) == len(np.unique(component[moved - 1])) == count - 1
    assert np.bincount(component).argmax() not in component[moved - 1]
    assert (shares[shares] == shares).all()
    nodes = 6 + 21  # components, and the biases that their places read
    links = (np.ones(20), (component, 6 + shares[1:]))
    label = connected_components(coo_array(links, (nodes, nodes)), directed=False)[1]
    assert len(np.unique(label[component])) == 1


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        (([[0, 1]],), "component"),
        (([0.5, 1.0],), "component"),
        (([],), "component"),
        (([0, 1], [1.0]), "features"),
        (([0, 1], [1.0, np.nan]), "features"),
        (([0, 1], 3.0), "features"),
    ],
)
def test_rejects(arguments, wrong):
    with pytest.raises(ValueError, match=wrong):
        merge_places(*arguments)
