"""Tests of benchmarks.speed: that peers do the same work, not how fast."""

import numpy as np
import pytest

from benchmarks import speed
from simulators.oracle import click_probability
from simulators.populations import named


def test_operations_by_hand():
    forward = 2 * 10 * (136 * 256 + 256 * 128 + 128 * 64 + 64)
    assert speed.operations_per_list() == 3 * forward - 2 * 10 * 136 * 256 == 3_854_080


def test_ratio_and_fraction():
    found = speed.compared(work=100, own=2.0, other=4.0, most=500)
    assert found == {"rate": 50, "peer_rate": 25, "ratio": 2, "floor_fraction": 0.1}


@pytest.mark.parametrize("population", speed.PLAIN)
def test_the_plain_simulator_draws_the_same_clicks(population):
    attraction = np.tile(np.linspace(0.1, 1, 10, dtype="float32"), (200_000, 1))
    click = speed.PLAIN[population](attraction, np.random.default_rng(0))[0]
    expected = click_probability(named(population), attraction[:1])[0]
    np.testing.assert_allclose(click.mean(axis=0), expected, atol=0.0045)  # 4 s.e.


def test_the_hand_written_loop_learns_what_fit_learns():
    """Half the places are never clicked, and its bias says so."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(500, speed.FEATURES)).astype("float32")
    item = rng.integers(0, 500, (speed.BATCH * 4, 10), np.int32)
    click = (features[item, 0] > 0) & (np.arange(10) < 5)
    closure = speed.hand_written(features, item, click, 0)
    cells = dict(zip(closure.__code__.co_freevars, closure.__closure__, strict=True))
    epoch = cells["epoch"].cell_contents
    for _ in range(4):
        epoch()
    # Of its variables of ten numbers, one is the bias and two are what Adam remembers.
    tens = [v for v in epoch.get_concrete_function().variables if v.shape == (10,)]
    assert any(v.numpy()[:5].min() > v.numpy()[5:].max() for v in tens)
