"""Weights of impressions."""

import numpy as np
import pytest

from debias.data import ClickLog
from debias.metrics import effective_sample_size
from debias.propensity import Propensities, choose_clip, impressions

LOG = ClickLog(
    [0, 1, 1],
    [[0, 1, -1], [3, 2, 4], [2, 3, -1]],
    [[0, 1, 0], [1, 0, 1], [0, 0, 0]],
)
THETA = Propensities.of([1.0, 0.5, 0.1])


def test_rows_are_the_shown_items_session_by_session():
    found = impressions(LOG, THETA, clip=100)
    assert found.group.tolist() == [0, 0, 1, 1, 1, 2, 2]
    assert found.item.tolist() == [0, 1, 3, 2, 4, 2, 3]
    assert found.query.tolist() == [0, 0, 1, 1, 1, 1, 1]
    assert found.position.tolist() == [1, 2, 1, 2, 3, 1, 2]
    assert found.label.tolist() == [0, 1, 1, 0, 1, 0, 0]
    assert found.weight.tolist() == [1, 2, 1, 1, 10, 1, 1]
    assert found.group_sizes.tolist() == [2, 3, 2]
    assert found.group_weight.tolist() == [2, 5.5, 1]
    assert found.effective == pytest.approx(13**2 / (1 + 4 + 100))


def test_the_bias_logit_is_that_of_the_mean_item():
    found = impressions(LOG, THETA)
    attraction = 3 / (3 * 1.0 + 3 * 0.5 + 0.1)  # clicks over exposure
    p = attraction * np.array([1.0, 0.5, 0.1])
    logit = np.log(p / (1 - p))
    np.testing.assert_allclose(found.init_score, logit[found.position - 1])


def test_a_clip_and_what_it_does():
    clipped = impressions(LOG, THETA, clip=4)
    assert clipped.weight.max() == 4 and clipped.clip == 4
    assert clipped.effective > clipped.unclipped
    assert clipped.effective == pytest.approx(7**2 / (1 + 4 + 16))
    with pytest.raises(ValueError, match="clip must be at least 1"):
        impressions(LOG, THETA, clip=0.5)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
def test_the_chosen_clip_is_the_largest_that_is_worth_enough(share):
    weights = np.random.default_rng(0).pareto(0.8, 500) + 1
    clip = choose_clip(weights, share)
    worth = effective_sample_size(np.minimum(weights, clip))
    assert worth == pytest.approx(share * 500, rel=1e-4)
    assert effective_sample_size(np.minimum(weights, clip * 1.01)) < share * 500
    assert choose_clip(np.ones(3)) == 1.0
    for wrong in ([], [0.0], [np.inf]):
        with pytest.raises(ValueError, match="weights must be above 0 and finite"):
            choose_clip(np.array(wrong))
    with pytest.raises(ValueError, match="share must be in"):
        choose_clip(weights, 0.0)


def test_weights_that_would_explode_are_clipped_and_counted():
    tiny = Propensities.of([1.0, 0.5, 1e-12])
    found = impressions(LOG, tiny)
    assert np.isfinite(found.weight).all() and found.weight.max() < 100
    assert found.unclipped == pytest.approx(1.0, abs=1e-4)
    assert found.effective == pytest.approx(1.5, rel=1e-6)


def test_unknown_places_are_left_out():
    found = impressions(LOG, Propensities.of([1.0, np.nan, 0.1]))
    assert found.position.tolist() == [1, 1, 3, 1]
    assert found.left_out == pytest.approx(3 / 7)
    assert found.group_sizes.tolist() == [1, 2, 1]
    with pytest.raises(ValueError, match="no click is at a rank with known"):
        impressions(LOG, Propensities.of([np.nan] * 3))


def test_pieces_keep_sessions_whole():
    found = impressions(LOG, THETA)
    parts = list(found.pieces(1))
    assert [len(part) for part in parts] == [2, 3, 2]
    assert [len(part) for part in found.pieces(3)] == [5, 2]
    np.testing.assert_array_equal(np.concatenate([p.item for p in parts]), found.item)


def test_a_click_at_the_rank_that_is_seen_most_weighs_one():
    log = ClickLog([0, 0], [[4, 2], [2, 4]], [[1, 1], [0, 1]])
    found = impressions(log, Propensities.of([1.0, 2.0]))  # a banner above rank 1
    assert found.weight.tolist() == [2.0, 1.0, 1.0, 1.0]
