"""Tests of debias.propensity.policy_weights, and of the way into training."""

import warnings

import keras
import numpy as np
import pytest

from debias.data import ClickLog, RankingData
from debias.layers import BiasTower
from debias.models import PositionOnly
from debias.models.batches import batches
from debias.propensity import policy_weights

# Of query 7, item 1 stands at rank 1 three times of four; of query 2, once of one.
ITEM = [[1, 2], [1, 2], [1, 2], [2, 1], [1, -1]]
CLICK = np.array([[1, 0], [0, 1], [1, 0], [1, 1], [1, 0]], bool)
LOG = ClickLog([7, 7, 7, 7, 2], ITEM, CLICK)


def test_weights_and_effective_sample_size_by_hand():
    found = policy_weights(LOG)
    raw = np.array([[4 / 3, 4 / 3]] * 3 + [[4, 4], [1, 0]])
    mean = (6 * 4 / 3 + 2 * 4 + 1) / 9
    np.testing.assert_allclose(found.weight, raw / mean, rtol=1e-6)
    assert found.weight.dtype == np.float32
    effective = (6 * 4 / 3 + 2 * 4 + 1) ** 2 / (6 * 16 / 9 + 2 * 16 + 1)
    assert found.effective == pytest.approx(effective)


def test_clipping_comes_before_the_mean():
    found = policy_weights(LOG, clip=2.0)
    raw = np.array([[4 / 3, 4 / 3]] * 3 + [[2, 2], [1, 0]])
    np.testing.assert_allclose(found.weight, raw / (13 / 9), rtol=1e-6)
    assert policy_weights(LOG, clip=1.0).effective == pytest.approx(9)


def test_weights_make_rank_and_item_independent():
    """Once weighed, both items are as much at home at rank 1 as at rank 2."""
    rng = np.random.default_rng(0)
    item = np.where(rng.random((1000, 1)) < 0.9, [[0, 1]], [[1, 0]])
    log = ClickLog(np.zeros(1000, int), item, np.zeros((1000, 2), bool))
    weight = policy_weights(log).weight
    table = [[weight[item[:, k] == i, k].sum() for k in (0, 1)] for i in (0, 1)]
    np.testing.assert_allclose(table, 500, rtol=1e-4)


def test_a_log_without_chance_warns_and_an_even_one_does_not():
    still = LOG.take([0, 1, 2, 4])
    with pytest.warns(
        UserWarning, match="cannot separate rank and relevance.*Exchange"
    ):
        assert (policy_weights(still).weight == still.mask).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (policy_weights(LOG.take([0, 3])).weight == 1).all()  # nothing to undo


def test_weights_reach_the_weights_of_a_model():
    """One step of size 1 from logits of 0: minus the mean of w (1/2 - c)."""
    weight = policy_weights(LOG).weight
    data = RankingData(np.zeros((3, 1)), None, [0, 3])
    model = PositionOnly(BiasTower({"position": 2}, init_std=0.0))
    model.compile(keras.optimizers.SGD(1.0), jit_compile=False)
    model.fit(batches(LOG, data, batch_size=5, weight=weight), verbose=0)
    table = keras.ops.convert_to_numpy(model.bias.tables["position"])[:, 0]
    step = np.where(LOG.mask, weight * (CLICK - 0.5), 0).mean(axis=0)
    np.testing.assert_allclose(table, [0, *step], rtol=1e-5)


def test_rejects():
    with pytest.raises(ValueError, match=r"clip must be at least 1, got 0\.5"):
        policy_weights(LOG, clip=0.5)
    with pytest.raises(ValueError, match="at least one session"):
        policy_weights(LOG.take([]))
