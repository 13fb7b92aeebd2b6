"""Tests of debias.diagnosis.reference."""

import keras
import numpy as np
import pytest

from debias.data import RankingData
from debias.diagnosis import reference
from debias.diagnosis.reference import reference_sensitivity
from debias.layers import BiasTower
from debias.models import Dot
from tests.debias.models.registry import CLICK_MODELS, POSITIONS
from tests.debias.models.test_click_models import FEATURES, batch_of

# Queries of three items, of three, of one, and of two that are alike.
DATA = RankingData(
    [[3, 0], [2, 1], [1, 3], [1, 0], [2, 0], [3, 0], [5, 5], [4, 4], [4, 4]],
    None,
    [0, 3, 6, 7, 9],
)


@pytest.fixture
def model():
    """r(x) = x, so that the embedding of a place is the weights of two features."""
    model = Dot(keras.layers.Identity(), BiasTower({"position": 4}, out=2))
    model({"features": DATA.features[None, :1], "position": np.array([[1]])})
    rows = [[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [1.0, 1.5], [0.0, 0.0]]
    model.bias.tables["position"].assign(np.array(rows))
    return model


def test_a_dot_product_by_hand(model):
    """Served at 1. Place 2 reverses. At 3 the first query scores 3, 3.5, 5.5, the
    reverse, and the second keeps its order: mean 0. At 4 all are alike: no tau.
    """
    found = reference_sensitivity(model, DATA, [1, 2, {"position": 3}, 4])
    np.testing.assert_allclose(found, [1, -1, 0, np.nan])
    model.reference = 2
    np.testing.assert_allclose(reference_sensitivity(model, DATA, [1, 2]), [-1, 1])


def test_ties_count_as_tau_b_counts_them(model):
    """Of 3, 2, 1 place 4 makes 3, 3, 4: two pairs of three reversed, and a tie."""
    model.bias.tables["position"].assign([[0, 0], [1, 0], [0, 0], [0, 0], [1, 1.0]])
    data = RankingData(DATA.features[:3], None, [0, 3])
    np.testing.assert_allclose(
        reference_sensitivity(model, data, [4]), -2 / np.sqrt(3 * 2)
    )


def test_pieces_and_progress(model, monkeypatch):
    monkeypatch.setattr(reference, "PIECE", 2)
    done = []
    found = reference_sensitivity(model, DATA, [1, 2], done.append)
    np.testing.assert_allclose(found, [1, -1])
    assert done == [0.5, 1.0]


@pytest.mark.parametrize(
    ("name", "moves"),
    [("additive", False), ("product", False), ("dot", True), ("position_only", None)],
)
def test_models_that_rank_alike_everywhere_and_one_that_does_not(name, moves):
    model = CLICK_MODELS[name](3)
    model(batch_of(FEATURES))
    data = RankingData(FEATURES.reshape(-1, 7), None, range(0, 31, 6))
    found = reference_sensitivity(model, data, range(1, POSITIONS + 1))
    if moves is None:
        assert np.isnan(found).all()
    else:
        assert (found < 0.999).any() == moves


def test_rejects(model):
    with pytest.raises(ValueError, match="places must name at least one place"):
        reference_sensitivity(model, DATA, [])
