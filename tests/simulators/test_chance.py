"""Tests of simulators.chance."""

import numpy as np
import pytest

from simulators.chance import bernoulli, categorical, generator


@pytest.mark.parametrize(
    "p",
    [0.0, 1e-6, 1 / 65536, 1.5 / 65536, 0.3, 0.5, 1 - 2**-17, 1.0],
)
def test_rates_are_those_asked_for_below_the_first_16_bits_too(p):
    draws = 2_000_000
    rate = bernoulli(np.full(draws, p, np.float32), generator(3)).mean()
    exact = float(np.float32(p))
    assert abs(rate - exact) <= 4 * np.sqrt(exact * (1 - exact) / draws)


@pytest.mark.parametrize("shape", [(), (1,), (3, 5), (0, 4)])
def test_any_shape(shape):
    drawn = bernoulli(np.ones(shape), generator(0))
    assert drawn.shape == shape and drawn.dtype == bool and drawn.all()


def test_draws_of_one_call_are_independent():
    drawn = bernoulli(np.full((400_000, 4), 0.5), generator(0))
    counts = np.bincount(drawn @ np.array([8, 4, 2, 1]), minlength=16)
    assert ((counts - 25_000) ** 2 / 25_000).sum() < 38  # chi-square, 15 df: .001


def test_a_bit_generator_of_32_bits_serves_as_well():
    drawn = bernoulli(np.full(400_000, 0.25), np.random.Generator(np.random.MT19937(0)))
    assert abs(drawn.mean() - 0.25) < 4 * np.sqrt(0.1875 / 400_000)


def test_classes_come_in_their_shares_and_never_beyond_the_last():
    below_one = np.array([0.25, 0.25, 0.25 + 0.5 - 1e-9])  # rounding left a gap
    drawn = categorical(np.broadcast_to(below_one, (400_000, 3)), generator(0))
    counts = np.bincount(drawn, minlength=3)
    assert counts[1] == 0 and counts.size == 3
    assert abs(counts[0] / 400_000 - 0.25) < 4 * np.sqrt(0.1875 / 400_000)


def test_keys_name_streams():
    first = generator(1, 2).random(4)
    assert (first == generator(1, 2).random(4)).all()
    assert (first != generator(1, 3).random(4)).all()
    assert (first != generator(2, 1).random(4)).all()
    with pytest.raises(ValueError, match="seed must be at least 0"):
        generator(-1, 0)
