"""Tests of debias.data.scaling; tests of `Standardize` cover missing values."""

import numpy as np

from debias.data import scaling


def test_moments_in_pieces_are_those_of_the_whole(monkeypatch):
    x = np.random.default_rng(0).normal(size=(50, 3)) * [1, 100, 0] + [0, 5, 2]
    monkeypatch.setattr(scaling, "PIECE", 7)
    squeezed = np.sign(x) * np.log(1 + np.abs(x))
    found = scaling.moments(x)
    np.testing.assert_allclose(found.mean, squeezed.mean(axis=0))
    np.testing.assert_allclose(found.deviation, squeezed.std(axis=0), atol=1e-12)
    some = np.arange(50) % 3 == 0
    found = scaling.moments(x, some, linear=[1])
    assert found.missing is None and found.scale[2] == 0
    np.testing.assert_allclose(found.mean[1], x[some, 1].mean())
    scaled = scaling.scaled(x)
    np.testing.assert_allclose(scaled[:, :2].mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(scaled[:, :2].std(axis=0), 1, atol=1e-6)
    assert not scaled[:, 2].any()
