"""Tests of debias.losses.click beyond the properties of every loss."""

from math import exp, log

import numpy as np

from tests.debias.losses.registry import run


def test_click_cross_entropy_by_hand():
    value = run("click_cross_entropy", [[1, 0, -1]], [[2.0, -1.0, 7.0]])
    by_hand = log(1 + exp(-2.0)) + log(1 + exp(-1.0))
    np.testing.assert_allclose(value, [by_hand], rtol=1e-6)


def test_click_cross_entropy_is_exact_in_the_tails():
    value = run("click_cross_entropy", [[1], [0], [1]], [[-150.0], [150.0], [15.0]])
    np.testing.assert_allclose(value, [150, 150, np.log1p(exp(-15.0))], rtol=1e-6)
