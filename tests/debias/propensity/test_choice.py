"""Propensities of a log: which estimator, which places, which verdicts."""

import numpy as np
import pytest

from debias.data import ClickLog
from debias.propensity import estimate, propensities


def simulated(sessions=4000, theta=(1.0, 0.6, 0.3), moved=True, **columns):
    """Lists of three items of one query, clicked by position."""
    item = np.tile(np.arange(3), (sessions, 1))
    rng = np.random.default_rng(1)
    if moved:
        item = rng.permuted(item, axis=1)
    click = rng.random(item.shape) < np.array([0.8, 0.5, 0.3])[item] * theta
    return ClickLog(np.zeros(sessions, int), item, click, **columns)


def test_auto_is_the_conditional_model_and_says_so():
    log = simulated()
    found = propensities(log)
    same = estimate(log, "pbm_conditional")
    np.testing.assert_allclose(found.examination, same.examination)
    np.testing.assert_allclose(found.standard_error, same.standard_error)
    assert found.verdict.tolist() == ["reference", "identified", "identified"]
    assert found.why.startswith("pbm_conditional") and found.notes == ()
    assert np.all((found.low <= [1, 0.6, 0.3]) & (found.high >= [1, 0.6, 0.3]))


def test_a_log_that_moved_nothing_has_no_number_at_any_rank():
    found = propensities(simulated(moved=False))
    assert set(found.verdict) == {"not identified"} and not found.identified
    assert np.isnan(found.examination).all() and np.isnan(found.low).all()
    assert "no item was shown at two ranks" in found.notes[0]


def test_confounded_and_weak_numbers_are_called_so():
    assert propensities(simulated(), "ctr").verdict[1] == "confounded with relevance"
    assert propensities(simulated(), "pbm_mle").verdict[1] == "without an interval"
    assert propensities(simulated(40)).verdict[2].startswith("weak: standard error of")


def test_swaps_that_suffice_are_read_alone():
    sessions = 6000
    rng = np.random.default_rng(2)
    swap = np.array([[0, 0], [1, 2], [1, 3]])[rng.integers(0, 3, sessions)]
    item = np.tile(np.arange(3), (sessions, 1))
    for one, two in ((1, 2), (1, 3)):
        rows = np.flatnonzero((swap == [one, two]).all(axis=1))
        item[rows[:, None], [one - 1, two - 1]] = item[rows][:, [two - 1, one - 1]]
    click = rng.random(item.shape) < np.array([0.8, 0.5, 0.3])[item] * [1, 0.6, 0.3]
    log = ClickLog(np.zeros(sessions, int), item, click, swap=swap)
    found = propensities(log)
    assert "marked swaps" in found.why
    np.testing.assert_allclose(
        found.examination, estimate(log, "pbm_conditional", source="swap").examination
    )
    few = ClickLog(np.zeros(60, int), item[:60], click[:60], swap=swap[:60])
    assert "marked swaps" not in propensities(few).why


def test_by_device_each_device_has_a_curve_and_ten_impressions_are_told():
    device = np.repeat([1, 2], [3998, 2])
    log = simulated(device=device)
    found = propensities(log, by=["device"], names={"device": ("phone", "watch")})
    assert found.by["device"].tolist() == ["phone"] * 3 + ["watch"] * 3
    assert found.rank.tolist() == [1, 2, 3] * 2
    alone = propensities(log.take(device == 1))
    np.testing.assert_allclose(found.examination[:3], alone.examination)
    assert found.notes == ("device=watch has 6 impressions, too few to estimate from",)
    assert all("identified" not in v or "not" in v for v in found.verdict[3:])


def test_a_context_without_a_click_at_rank_1_does_not_stop_the_others():
    log = simulated(device=np.repeat([1, 2], [3900, 100]))
    click = log.click.copy()
    click[3900:, 0] = False
    quiet = ClickLog(log.query, log.item, click, device=log.device)
    found = propensities(quiet, by=["device"])
    assert found.verdict[3].startswith("not identified: log has no click at rank 1")
    assert np.isfinite(found.examination[:3]).all()


def test_a_column_of_cells_multiplies_the_rank():
    """Rows 1 and 2 alternate at random; row 2 halves examination."""
    rng = np.random.default_rng(3)
    sessions = 40_000
    item = rng.permuted(np.tile(np.arange(3), (sessions, 1)), axis=1)
    row = rng.choice([1, 2], item.shape, p=[0.7, 0.3])
    theta = np.array([1.0, 0.6, 0.3]) / row
    click = rng.random(item.shape) < np.array([0.8, 0.5, 0.3])[item] * theta
    log = ClickLog(np.zeros(sessions, int), item, click, row=row)
    found = propensities(log, by=["row"])
    shown = ClickLog(log.query, item, click, presentation={"badge": row})
    same = propensities(shown, by=["badge"])
    np.testing.assert_array_equal(same.examination, found.examination)
    assert found.by["row"].tolist() == ["1", "2"] * 3
    truth = np.array([1.0, 0.5, 0.6, 0.3, 0.3, 0.15])
    assert np.all((found.low <= truth) & (truth <= found.high))
    with pytest.raises(ValueError, match="row differs within a list"):
        propensities(log, "pivot", by=["row"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "best"}, "method must be one of .*auto"),
        ({"by": ["devcie"]}, "no column 'devcie'"),
        ({"by": ["query"]}, "no column 'query'"),
    ],
)
def test_what_cannot_be_asked(options, message):
    with pytest.raises(ValueError, match=message):
        propensities(simulated(20), **options)


def test_a_column_of_many_labels_is_refused():
    log = simulated(60, device=np.arange(60))
    with pytest.raises(ValueError, match="device has 60 labels, at most 50"):
        propensities(log, by=["device"])
