"""Tests of debias.retrieval.layers.logq."""

from math import exp, log

import keras
import numpy as np
import pytest
from keras import ops

from debias.retrieval.layers.logq import (
    StreamingFrequency,
    accidental_hits,
    correct,
    mask_columns,
)


def run(function, *arguments):
    return ops.convert_to_numpy(function(*(ops.array(a) for a in arguments)))


def test_correction_by_hand_has_its_sign_and_comes_after_the_temperature():
    # Products .2 and .4 at temperature .1; chances 1/2 and 1/8.
    scores = np.array([[0.2, 0.4]], "float32") / 0.1
    corrected = run(correct, scores, np.log(np.array([1 / 2, 1 / 8], "float32")))
    np.testing.assert_allclose(
        corrected, [[2.0 + log(2), 4.0 + log(8)]], rtol=1e-6
    )  # not 2 - log 2, not (.2 + log 2) / .1


def test_corrected_softmax_over_a_sample_is_the_softmax_over_the_catalogue():
    # With every item there in proportion to q, the corrected sum is the plain sum:
    # sum_j n q_j exp(s_j - log q_j) = n sum_j exp(s_j).
    s, q = np.array([1.0, 0.0, -1.0]), np.array([5, 3, 2]) / 10
    columns = np.repeat(np.arange(3), [5, 3, 2])
    total = np.exp(run(correct, s[columns], np.log(q)[columns])).sum()
    assert total == pytest.approx(10 * (exp(1) + 1 + exp(-1)), rel=1e-6)


def test_masked_columns_vanish_by_value():
    scores = run(mask_columns, np.array([[5.0, 60.0]], "float32"), [[False, True]])
    weights = np.exp(scores - scores.max())
    assert weights.tolist() == [[1.0, 0.0]]


def test_accidental_hits_spare_the_positive_itself():
    shared = run(accidental_hits, [7, 8, 7, 9], [0, 1, 2])
    assert shared.astype(int).tolist() == [[0, 0, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0]]
    own = run(accidental_hits, [[7, 8, 7], [8, 8, 9]], [0, 0])
    assert own.astype(int).tolist() == [[0, 0, 1], [0, 1, 0]]


def zipf(items):
    p = 1 / np.arange(1, items + 1)
    return p / p.sum()


def test_frequencies_converge_on_a_zipf_stream_items_in_every_batch_included():
    # The first item's share is .19: about 380 of each batch of 2,000.
    p, rng = zipf(100), np.random.default_rng(0)
    frequency = StreamingFrequency(size=102, alpha=0.005)
    for _ in range(40):
        frequency.update(ops.array(rng.choice(100, 2000, p=p).astype("int32")))
    estimate = np.exp(run(frequency.log_q, np.arange(100)))
    error = np.abs(estimate / p - 1)
    # Relative standard error sqrt(.005 / 2) = .05; four of them, and for the rarest,
    # seen about 150 times, the mean of fewer gaps.
    assert error[:10].max() < 0.2 and error.max() < 0.45
    assert abs(estimate.sum() - 1) < 0.05


def test_multiplicity_counts():
    frequency = StreamingFrequency(size=9, alpha=0.05)
    for _ in range(20):
        frequency.update(ops.array([1, 1, 1, 2] * 10))
    estimate = np.exp(run(frequency.log_q, [1, 2]))
    np.testing.assert_allclose(estimate, [3 / 4, 1 / 4], rtol=0.02)


def test_one_update_by_hand():
    # Item 3 comes as samples 2 and 4, then as sample 7: gaps 2, 2, then 3.
    frequency = StreamingFrequency(size=9, alpha=0.1)
    frequency.update(ops.array([5, 3, 6, 3]))
    frequency.update(ops.array([5, 6, 3]))
    first = 1 - 0.9**2
    gap = (0.9 * first * 2 + 0.1 * 3) / (0.9 * first + 0.1)
    np.testing.assert_allclose(run(frequency.log_q, [3]), [-log(gap)], rtol=1e-5)


def test_unseen_items_are_rarer_than_one_in_the_stream():
    frequency = StreamingFrequency(size=9, alpha=0.1)
    frequency.update(ops.array([1, 2, 1, 2]))
    np.testing.assert_allclose(run(frequency.log_q, [7]), [-log(4)], rtol=1e-6)


@pytest.mark.parametrize("hashes, expected", [(1, [1.0, 1.0]), (3, [0.25, 0.75])])
def test_more_hashes_repair_collisions(hashes, expected):
    # Items 1 and 1 + size share a place in the first array.
    frequency = StreamingFrequency(size=101, hashes=hashes, alpha=0.02)
    for _ in range(20):
        frequency.update(ops.array([102, 1, 102, 102] * 10))
    estimate = np.exp(run(frequency.log_q, [1, 102]))
    np.testing.assert_allclose(estimate, expected, rtol=0.02)


def test_call_updates_in_training_only():
    frequency = StreamingFrequency(size=9)
    frequency(ops.array([1, 2]))
    assert int(frequency.clock) == 0
    frequency(ops.array([1, 2]), training=True)
    assert int(frequency.clock) == 2


def test_config_round_trip_and_bad_arguments():
    given = {"size": 7, "hashes": 2, "alpha": 0.3}
    layer = keras.layers.deserialize(
        keras.layers.serialize(StreamingFrequency(**given))
    )
    assert given.items() <= layer.get_config().items()
    for bad in ({"size": 0}, {"hashes": 0}, {"alpha": 1.0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            StreamingFrequency(**bad)
