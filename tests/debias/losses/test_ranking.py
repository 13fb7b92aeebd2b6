"""Tests of debias.losses.ranking beyond the properties of every loss."""

from math import exp, log, log2

import numpy as np
import pytest

from tests.debias.losses.registry import run, slope


def test_softmax_by_hand_and_its_gain():
    shares = np.exp([1.0, 0.0]) / (exp(1.0) + 1)
    value = run("softmax_cross_entropy", [[2, 1, -1]], [[1.0, 0.0, 9.0]])
    np.testing.assert_allclose(value, [-2 * log(shares[0]) - log(shares[1])], rtol=1e-6)
    gained = run("softmax_cross_entropy", [[2, 1, -1]], [[1.0, 0.0, 9.0]], gain=True)
    by_hand = -3 * log(shares[0]) - log(shares[1])
    np.testing.assert_allclose(gained, [by_hand], rtol=1e-6)


def test_pairs_by_hand():
    value = run("pairwise_logistic", [[2, 1, 0]], [[0.0, 1.0, 3.0]])
    pairs = [1.0, 3.0, 2.0]  # how far the worse item is ahead
    expected = sum(log(1 + exp(ahead)) for ahead in pairs)
    np.testing.assert_allclose(value, [expected], rtol=1e-6)


@pytest.mark.parametrize("grade", [1, 127, 128, 1000])
def test_ndcg_of_any_grade(grade):
    """The one relevant item at the smooth rank 1 + sigma(1): its grade cancels."""
    y, z = [[grade, 0]], [[0.0, 0.1]]
    rank = 1 + 1 / (1 + exp(-1.0))
    value = run("approx_ndcg", y, z)
    np.testing.assert_allclose(value, [-1 / log2(1 + rank)], rtol=1e-5)
    assert np.isfinite(slope("approx_ndcg", y, z)).all()
