"""Tests of debias.data.splits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from debias.data.splits import random_parts


def rng(seed=0):
    return np.random.default_rng(seed)


@settings(deadline=None)
@given(st.integers(0, 200), st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_parts_hold_every_number_once_and_keep_their_shares(count, weights):
    fractions = np.array(weights) / sum(weights)
    parts = random_parts(count, fractions, rng())
    assert sorted(np.concatenate(parts).tolist()) == list(range(count))
    for part, fraction in zip(parts, fractions, strict=True):
        assert abs(part.size - fraction * count) <= 1
        assert (np.diff(part) > 0).all()


def test_every_number_is_as_likely_in_a_part():
    generator = rng()
    draws = [random_parts(4, (0.25, 0.75), generator)[0][0] for _ in range(4000)]
    shares = np.bincount(draws, minlength=4) / 4000
    np.testing.assert_allclose(shares, 0.25, atol=0.0275)  # four standard errors


@pytest.mark.parametrize("bad", [(), (0.5, 0.4), (1.5, -0.5), (np.nan, 1.0)])
def test_rejects(bad):
    with pytest.raises(ValueError, match="fractions"):
        random_parts(10, bad, rng())
