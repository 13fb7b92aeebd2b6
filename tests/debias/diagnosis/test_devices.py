"""Tests of debias.diagnosis.devices."""

import numpy as np
import pytest
from scipy.stats import binom

from debias.data import ClickLog
from debias.diagnosis.devices import MATTERS, devices
from debias.propensity import Examination, estimate

ATTRACTION = np.array([0.8, 0.6, 0.4, 0.2])


def log(sessions, steep=(0.3, 0.3), seed=0):
    """Items in any order; examination falls as exp(-steep k) on each device."""
    rng = np.random.default_rng(seed)
    item = rng.permuted(np.tile(np.arange(4), (sessions, 1)), axis=1)[:, :3]
    device = rng.integers(1, 3, sessions)
    theta = np.exp(-np.array(steep)[device - 1, None] * np.arange(3))
    click = rng.random(item.shape) < ATTRACTION[item] * theta
    return ClickLog(np.zeros(sessions, int), item, click, device=device)


def compare(log, **options):
    return devices(estimate(log, "pbm_conditional", by="device"), **options)


def table(log_examination, error):
    """Curves of devices 1, 2, ... from (D, K) logs and their standard errors."""
    curves = {}
    for number, (value, scatter) in enumerate(
        zip(log_examination, error, strict=True), start=1
    ):
        e = np.exp(value)
        columns = (e, e * scatter, e, e, np.full(len(e), 9))
        curves[number] = Examination(np.arange(1, len(e) + 1), *columns, "pivot")
    return Examination.stack(curves)


def test_devices_that_differ():
    found = compare(log(4000, (0.2, 0.9)), names={1: "laptop", 2: "phone"})
    assert found.grade == "caution" and "the bias tower reads it" in found.next_step
    assert (
        "at rank 3, items" in found.verdict
        and "with laptop as with phone" in found.verdict
    )
    assert found.differ.tolist() == [[False, True, True]]
    np.testing.assert_allclose(found.log_ratio, [[0, -0.7, -1.4]], atol=0.3)


def test_devices_that_do_not_differ():
    found = compare(log(4000))
    assert found.grade == "good" and found.detectable < MATTERS
    assert f"a ratio of {found.detectable:.2f} would" in found.verdict


def test_a_thin_log_is_unknown():
    found = compare(log(150))
    assert found.grade == "unknown" and found.verdict.startswith("Unknown")
    silent = table(np.zeros((2, 2)), np.full((2, 2), np.nan))
    assert devices(silent).grade == "unknown" and devices(silent).detectable == np.inf


def test_the_comparison_by_hand():
    # Three pairs and one rank to compare: |z| beyond Phi^-1(1 - .025 / 3) = 2.394.
    values = np.array([[0, 0.0], [0, 0.3], [0, 0.31]])
    error = np.array([[0, 0.1], [0, 0.07], [0, 0.08]])
    found = devices(table(values, error))
    assert found.pair.tolist() == [[1, 2], [1, 3], [2, 3]]
    np.testing.assert_allclose(
        found.error[:, 1], np.sqrt([0.0149, 0.0164, 0.0113]), rtol=1e-12
    )
    # z = 2.458, 2.421, .094.
    assert found.differ[:, 1].tolist() == [True, True, False]
    assert found.detectable == pytest.approx(
        np.exp((2.394 + 0.8416) * 0.0164**0.5), 1e-3
    )


def test_a_ratio_said_to_be_detectable_is_detected():
    rng = np.random.default_rng(0)
    error = np.array([[0, 0.1, 0.1], [0, 0.1, 0.1]])
    reach = np.log(devices(table(np.zeros((2, 3)), error)).detectable)
    hits = 0
    for _ in range(400):
        values = rng.normal(size=(2, 3)) * error + [[0, 0, 0], [0, 0, reach]]
        hits += devices(table(values, error)).differ[0, 2]
    low, high = binom.ppf([0.001, 0.999], 400, 0.8)
    assert low <= hits <= high


def test_rejects():
    both = table(np.zeros((2, 2)), np.ones((2, 2)))
    with pytest.raises(ValueError, match="level"):
        devices(both, level=0.0)
    with pytest.raises(ValueError, match="at least two devices"):
        devices(table(np.zeros((1, 2)), np.ones((1, 2))))
