"""Tests of benchmarks.questions.contexts: who clicks on which device."""

import numpy as np
import pytest

from benchmarks.questions.contexts import CROWDS, ROWS, users
from benchmarks.questions.trials import LOGGING, OnCrowd
from benchmarks.ranking.learners import LEARNERS

ALIKE = np.full((1, 3), 0.4)


def test_every_row_can_be_built():
    assert set(ROWS) <= set(LEARNERS) and LOGGING not in LEARNERS


def test_devices_differ_as_the_protocol_says():
    clicks = {
        name: [each.click_probability(ALIKE)[0] for each in users(name)]
        for name in CROWDS
    }
    phone, desktop = clicks["alike"]
    np.testing.assert_allclose(phone, desktop)
    phone, desktop = clicks["scaled"]
    np.testing.assert_allclose(phone, 2 * desktop)
    phone, desktop = clicks["depths"]
    np.testing.assert_allclose(phone / 0.4, [1, 2**-1.5, 3**-1.5], rtol=1e-6)
    np.testing.assert_allclose(desktop / 0.4, [1, 2**-0.5, 3**-0.5], rtol=1e-6)
    phone, _ = clicks["trusting"]  # without attraction, clicks at e-_1 = .65 remain
    assert users("trusting")[0].click_probability(0 * ALIKE)[0, 0] == pytest.approx(
        0.65
    )
    (phone, desktop), wanted = clicks["odds"], 0.4 * 0.95
    odds = wanted / (1 - wanted) * np.array([2**-1.5, 2**-0.5])
    np.testing.assert_allclose([phone[1], desktop[1]], odds / (1 + odds), rtol=1e-6)


def test_the_production_ranker_is_worth_the_same_on_any_crowd():
    from benchmarks.questions.contexts import crowd

    found = [OnCrowd(LOGGING, name, crowd, 40).measure(3, None) for name in CROWDS[:2]]
    assert found[0]["ndcg@5"] == found[1]["ndcg@5"] > 0.3
    assert found[0]["expected_clicks"] > found[1]["expected_clicks"]
