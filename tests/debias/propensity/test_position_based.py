"""Tests of debias.propensity.position_based; see also test_estimate.py."""

import numpy as np

from debias.propensity.position_based import ROWS, Design


def test_products_of_several_blocks_equal_those_of_the_whole_matrix():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(2 * ROWS + 5, 2)).astype("float32")
    x, whole = Design(features), np.c_[features.astype(float), np.ones(len(features))]
    weight, value = rng.normal(size=3), rng.random(len(features))
    np.testing.assert_allclose(x.dot(weight), whole @ weight, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(x.summed(value), value @ whole, rtol=1e-9)
    squares = whole.T @ (value[:, None] * whole)
    np.testing.assert_allclose(x.squared(value), squares, rtol=1e-9)
