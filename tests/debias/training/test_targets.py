"""Targets of a log: who reads them, and whether conversion is recovered."""

import numpy as np
import pytest

import debias
import simulators
from debias.data import ClickLog
from debias.data.layout import layout_of
from debias.presets import build
from debias.training import Targets, TrainingConfig, fit, prepare

QUERIES, ITEMS = 60, 12
RNG = np.random.default_rng(5)
FEATURES = RNG.normal(size=(QUERIES * ITEMS, 3)).astype(np.float32)
ATTRACTION = (1 / (1 + np.exp(-FEATURES[:, 0]))).astype(np.float32)
CONVERSION = 1 / (1 + np.exp(1.5 - 1.5 * FEATURES[:, 1]))
DATA = debias.RankingData(FEATURES, None, np.arange(0, len(FEATURES) + 1, ITEMS))


def made(sessions):
    policy = simulators.PlackettLuce(lambda data: data.features[:, 2], 0.5)
    log = simulators.simulate(DATA, policy, "pbm", sessions, 7, 6, ATTRACTION)
    return simulators.with_orders(log.select(), 7, CONVERSION)


LOG = made(600)


def test_parts_of_a_log_hold_targets_only_for_who_reads_them():
    with_them, without = (prepare(LOG, DATA, targets=each) for each in (True, False))
    assert with_them.layout.targets == ("order",) and without.layout.targets == ()
    for part in (with_them.train, with_them.validation, with_them.test):
        assert set(part.log.targets) == {"order"}
    assert without.train.log.targets is None


def test_of_a_log_on_disk_as_well(tmp_path):
    LOG.write(tmp_path / "log", shards=2)
    stream = debias.data.Stream(tmp_path / "log", window=400)
    found = prepare(stream, DATA, targets=True)
    assert found.layout.targets == ("order",)
    assert set(found.train.log.read(0, [1]).targets) == {"order"}
    assert prepare(stream, DATA).layout.targets == ()
    fitted = fit("multi_target", stream, DATA, config=TrainingConfig(epochs=1))
    assert np.isfinite(fitted.log_likelihood)


def test_batches_of_any_log_carry_its_targets():
    from debias.models.batches import batches

    batch, _ = next(iter(batches(LOG, DATA, 8, shuffle=False)))
    np.testing.assert_array_equal(batch["order"], LOG.targets["order"][:8])
    assert batch["order"].dtype == "float32"


def test_attraction_and_conversion_are_recovered():
    """Of held-out items of a world in which both are linear in the features."""
    fitted = fit("multi_target", made(12_000), DATA, config=TrainingConfig(epochs=8))
    rng = np.random.default_rng(9)
    x = rng.normal(size=(400, 3)).astype(np.float32)
    scaled = fitted.prepared.preprocess(x)
    found = {n: np.asarray(p) for n, p in fitted.model.probabilities(scaled).items()}
    conversion = found["order"][:, 0] / found["click"]
    want_click = x[:, 0]
    want_order = 1.5 * x[:, 1] - 1.5
    logit = np.log(conversion) - np.log1p(-conversion)
    assert np.corrcoef(np.log(found["click"]), want_click)[0, 1] > 0.9
    assert np.corrcoef(logit, want_order)[0, 1] > 0.9
    assert abs(logit - want_order).mean() < 0.4  # of clicks, on their own scale
    assert fitted.model.worth == {"click": 0.0, "order": 1.0}
    value = np.log(found["order"][:, 0])
    np.testing.assert_allclose(np.asarray(fitted.ranker(x)), value, atol=1e-4)


def test_worth_and_levels_are_those_that_were_asked_for():
    two = simulators.with_dwell(LOG, 3, 20.0)
    asked = Targets({"click": 1, "order": 30}, {"dwell": (10, 40)})
    fitted = fit(asked, two, DATA, config=TrainingConfig(epochs=1))
    assert fitted.model.worth == {"click": 1.0, "order": 30.0, "dwell": 0.0}
    assert fitted.model.targets == {"order": [0.0], "dwell": [10.0, 40.0]}


def test_a_log_without_targets_is_refused_and_a_name_that_it_lacks():
    with pytest.raises(ValueError, match=r"the log has no target.*-c target=order"):
        fit("multi_target", LOG.select(), DATA)
    with pytest.raises(ValueError, match="levels name 'dwel', expected some of order"):
        fit(Targets(levels={"dwel": (1,)}), LOG, DATA)


def test_no_choice_by_clicks_offers_it():
    from debias.training.selection import CANDIDATES

    assert "multi_target" not in CANDIDATES
    with pytest.raises(ValueError, match="candidates must be some of"):
        debias.select(LOG, DATA, candidates=["multi_target"])


def test_layouts_name_the_targets():
    log = ClickLog([0], [[1]], [[1]], targets={"cart": [[1.0]]})
    assert layout_of(log).targets == ("cart",)
    assert list(build("multi_target", layout_of(log)).targets) == ["cart"]
