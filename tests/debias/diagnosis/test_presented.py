"""What a presentation column does to examination, from simulated crowds."""

from dataclasses import replace

import numpy as np
import pytest

import simulators
from debias.diagnosis import report
from debias.diagnosis.presented import presented
from simulators import with_badge

LABELS = ("none", "sale")


@pytest.fixture(scope="module")
def log():
    data = simulators.generate(queries=20, seed=4, median_items=11, max_items=12)
    policy = simulators.PlackettLuce(simulators.weak_ranker(data), 1.0)
    return simulators.simulate(data, policy, "pbm", 8000, seed=4, list_size=4)


def test_a_badge_that_doubles_examination_is_found_and_is_to_be_used(log):
    found = presented(with_badge(log, seed=1), "badge", LABELS)
    assert found.labels == ("sale",) and found.usual == "none"
    # Two log units of error around the simulated factor.
    assert abs(np.log(found.ratio[0] / 2)) < 2 * found.error[0] < 0.2
    assert found.grade == "caution" and "matters: at the same rank" in found.verdict
    assert found.next_step.startswith("Use it: train with -c presentation=badge")
    theta = np.array(simulators.eye_tracking()[:4])
    own = found.curves["none"].examination
    np.testing.assert_allclose(own, theta / theta[0], rtol=0.25)


def test_a_badge_that_nobody_minds_can_be_left_out(log):
    found = presented(with_badge(log, seed=1, boost=1.0), "badge", LABELS)
    assert found.grade == "good" and "does not matter" in found.verdict


def test_a_log_that_cannot_tell_says_so(log):
    few = with_badge(log.take(slice(0, 150)), seed=1, boost=1.0)
    found = presented(few, "badge")
    assert found.grade == "unknown" and "of two labels of badge" in found.verdict


def test_a_column_of_lists_is_compared_as_devices_are(log):
    halves = np.arange(len(log)) % 2 + 1
    found = presented(replace(log, presentation={"skin": halves}), "skin", ("a", "b"))
    assert found.verdict.startswith("Skins do not differ")


@pytest.mark.parametrize("labels", [("sale",), ()])
def test_what_has_no_badge_is_not_called_unknown(log, labels):
    bare = with_badge(log, seed=1)
    code = {"badge": np.maximum(bare.presentation["badge"] - 1, 0)}
    found = presented(replace(bare, presentation=code), "badge", labels)
    assert found.usual == "no badge" and found.labels == (labels or ("1",))
    assert found.verdict.endswith("times as often as with no badge.")


def test_the_page_has_a_curve_for_each_label(log, monkeypatch):
    few = with_badge(log.take(slice(0, 300)), seed=1)
    kept = ("connectivity", "badge")
    runs = report._runs
    monkeypatch.setattr(
        report,
        "_runs",
        lambda *a: {n: run for n, run in runs(*a).items() if n in kept},
    )
    found = report.diagnose(few, labels={"badge": LABELS})
    assert "badge" in found.findings and "sale" in found.shown["badge"]
    text = report.page(found)
    assert "Examination by badge" in text and "Does badge change examination?" in text
