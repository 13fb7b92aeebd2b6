"""Corrections that are told what they need."""

import numpy as np
import pytest

import debias
from debias.data import ClickLog
from debias.data.layout import layout_of
from debias.presets import CORRECTIONS
from debias.propensity import Propensities, propensities
from debias.training import correction

RNG = np.random.default_rng(0)
ITEM = RNG.permuted(np.tile(np.arange(4), (600, 1)), axis=1)[:, :3]
THETA = np.array([1.0, 0.5, 0.2])
CLICK = RNG.random(ITEM.shape) < np.array([0.8, 0.5, 0.3, 0.1])[ITEM] * THETA
LOG = ClickLog(np.arange(600) % 20, ITEM, CLICK)
TOLD = Propensities.of(THETA, trust=[0.1, 0.05, 0.0])


@pytest.mark.parametrize("name", CORRECTIONS)
def test_every_correction_is_built_for_its_layout(name):
    model = correction(name, LOG, TOLD, clip=3.0).build(layout_of(LOG), seed=1)
    batch = {"features": np.ones((2, 3, 4)), "position": np.tile([1, 2, 3], (2, 1))}
    clicks = np.array([[1, 0, 0], [0, 0, 1]])
    assert np.isfinite(model.session_losses(batch, clicks, model(batch))).all()
    assert model.score(np.ones((5, 4))).shape == (5,)
    if CORRECTIONS[name].needs:
        assert model.clip == 3.0 and model._arguments["alpha"] == THETA.tolist()
        trusted = name.partition("_")[0] != "ips"
        assert model._arguments["beta"] == ([0.1, 0.05, 0.0] if trusted else [0.0] * 3)
        assert model._arguments["listwise"] == name.endswith("listwise")


def test_what_is_known_comes_from_numbers_an_estimator_or_a_table():
    given = correction("ips", LOG, THETA)
    assert given.alpha == (1.0, 0.5, 0.2) and given.beta is None
    found = correction("ips", LOG)
    np.testing.assert_allclose(found.alpha, propensities(LOG).examination)
    assert found.alpha != correction("ips", LOG, "ctr").alpha


def test_the_clip_is_chosen_by_what_the_clicks_are_worth():
    weights = (1 / THETA)[np.nonzero(CLICK)[1]]
    found = correction("ips", LOG, THETA)
    worth = weights.sum() ** 2 / (weights**2).sum()
    assert found.clip == weights.max()  # worth more than half as they are
    assert found.effective == found.unclipped == pytest.approx(worth)
    rare = correction("ips", LOG, [1.0, 0.5, 1e-4])
    assert rare.clip < 100 and rare.effective == pytest.approx(0.5 * CLICK.sum())
    assert rare.unclipped < 0.3 * rare.effective
    assert f"{CLICK.sum():,} clicks" in rare.words
    assert correction("pair_debias", LOG).words == ""


@pytest.mark.parametrize(
    ("name", "known", "message"),
    [
        ("isp", "auto", "model must be one of ips"),
        ("affine", [1.0, 0.5, 0.2], "affine needs a column trust"),
        ("ips", [1.0, np.nan, 0.2], "that of rank 2 is not identified"),
        ("ips", [1.0, 0.5], "each rank from 1 to 3 once"),
    ],
)
def test_what_is_not_known_is_said(name, known, message):
    with pytest.raises(ValueError, match=message):
        correction(name, LOG, known)
    with pytest.raises(ValueError, match="clip must be at least 1"):
        correction("ips", LOG, THETA, clip=0.0)


def test_a_still_log_and_contexts_are_refused():
    still = ClickLog(LOG.query, np.tile([0, 1, 2], (600, 1)), CLICK)
    with pytest.raises(ValueError, match="rank 1 is not identified: give"):
        correction("ips", still)
    device = ClickLog(LOG.query, ITEM, CLICK, device=np.arange(600) % 2 + 1)
    with pytest.raises(ValueError, match="differ by device"):
        correction("ips", device, propensities(device, by=["device"]))
    longer = correction("ips", LOG, THETA)
    four = ClickLog([0], [[0, 1, 2, 3]], np.zeros((1, 4), bool))
    with pytest.raises(ValueError, match="end at rank 3, but the log has 4 ranks"):
        longer.build(layout_of(four), 0)


def test_fit_takes_a_correction_and_tells_how_to_make_one():
    data = debias.RankingData(np.eye(4), None, [0, 4])
    log = ClickLog(np.zeros(600, int), ITEM, CLICK)
    config = debias.TrainingConfig(epochs=1, min_steps=0, batch_size=100)
    fitted = debias.fit(correction("ips_listwise", log), log, data, config=config)
    assert type(fitted.model).__name__ == "InverseWeighted"
    assert np.isfinite(np.asarray(fitted.ranker(data.features))).all()
    with pytest.raises(ValueError, match=r"training\.correction\('ips', log\)"):
        debias.fit("ips", log, data, config=config)
