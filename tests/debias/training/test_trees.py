"""Fits of trees to a log, as `debias.fit` holds sessions out."""

import numpy as np
import pytest

import debias
from debias.data.kinds import Feature
from debias.models.trees import TreesConfig
from debias.training import fit_trees, held_out
from tests.debias.training.worlds import DATA, LOG

pytest.importorskip("lightgbm")
FAST = TreesConfig(rounds=8, rate=0.2, items=5)


def test_a_fit_of_clicks_ranks_predicts_and_is_evaluated():
    fitted = fit_trees(LOG, DATA, FAST)
    assert sum(fitted.sessions.values()) == len(LOG) and fitted.held_out_by == "query"
    assert fitted.model.predicts_clicks and fitted.model.theta[0] == 1
    assert fitted.rounds <= 8 and "trees" in fitted.words() and "Rounds" in str(fitted)
    again = fit_trees(LOG, DATA, FAST)
    np.testing.assert_array_equal(
        again.model(DATA.features), fitted.model(DATA.features)
    )
    found = debias.evaluate(fitted, LOG, DATA)
    assert np.isfinite(found.clicks["log_likelihood_per_session"])
    assert {row["metric"] for row in found.ranking} >= {"ndcg@10"}
    mean = LOG.click.mean()
    constant = mean * np.log(mean) + (1 - mean) * np.log1p(-mean)
    assert found.clicks["log_likelihood_per_item"] > constant


def test_a_fit_of_judgments_only_ranks():
    fitted = fit_trees(LOG, DATA, FAST, objective="judgments")
    assert not fitted.model.predicts_clicks and np.isnan(fitted.log_likelihood)
    assert "ndcg@10" in fitted.history[0]
    found = debias.evaluate(fitted, LOG, DATA)
    assert set(found.clicks) == {"click_mrr"}


def test_a_listwise_fit_only_ranks_and_says_its_likelihood():
    fitted = fit_trees(LOG, DATA, FAST, objective="listwise")
    assert not fitted.model.predicts_clicks and fitted.model.base == 0
    # Better than a guess among the four items, on queries that it has not seen.
    for part, found in zip(
        held_out(LOG, 0)[0][1:],
        (fitted.log_likelihood, fitted.test_log_likelihood),
        strict=True,
    ):
        clicks = part.click.sum() / part.click.any(axis=1).sum()
        assert -clicks * np.log(4) < found < 0
    assert fitted.history[-1]["log_likelihood"] <= fitted.log_likelihood
    found = debias.evaluate(fitted, LOG, DATA)
    assert set(found.clicks) == {"click_mrr"}
    with pytest.raises(ValueError, match="objective must be one of product listwise"):
        fit_trees(LOG, DATA, FAST, objective="pairwise")


def test_rounds_of_judgments_are_not_judged_by_the_order_of_ties():
    features = np.ones_like(DATA.features)
    features[::60] = 2  # all but a few are equal
    same = debias.RankingData(features, None, DATA.offsets)
    fitted = fit_trees(LOG.of_items(same), same, FAST, objective="judgments")
    assert fitted.history[0]["ndcg@10"] < 0.99  # in the order of grades it would be 1


def test_progress_and_presets():
    rounds = []
    fit_trees(LOG, DATA, FAST, rounds.append)
    assert sum(rounds) <= 8
    with pytest.raises(ValueError, match="trained by debias"):
        debias.fit("trees", LOG, DATA)


def shuffled(theta, sessions=3000, height=None):
    """A log of one query whose items stand at random ranks, clicked by these thetas."""
    rng = np.random.default_rng(0)
    items = 10 * np.arange(3) + rng.integers(10, size=(sessions, 3))
    items = rng.permuted(items, axis=1)
    device = None if height is None else rng.integers(len(height), size=sessions)
    p = np.array(theta) * np.array([0.2, 0.4, 0.8])[items // 10]
    p = p if device is None else p * np.array(height)[device, None]
    log = debias.ClickLog(
        np.zeros(sessions, int), items, rng.random(p.shape) < p, device=device
    )
    return log, debias.RankingData(np.arange(30.0)[:, None], None, [0, 30])


def test_a_first_rank_that_is_seen_least_is_learned():
    theta = np.array([0.4, 1.0, 0.6])
    fitted = fit_trees(*shuffled(theta), FAST)
    assert fitted.model.examination == pytest.approx(theta / 0.4, rel=0.2)


def test_a_device_on_which_little_is_seen_is_learned():
    theta, height = np.array([1.0, 0.5, 0.25]), np.array([0.3, 1.0])
    fitted = fit_trees(*shuffled(theta, 6000, height), FAST)
    found = fitted.model.theta.reshape(2, 3)
    assert found == pytest.approx(np.outer(height, theta), rel=0.25)


def test_codes_of_devices_may_leave_some_out():
    theta, height = np.array([1.0, 0.5, 0.25]), np.array([0.3, 1.0])
    log, data = shuffled(theta, 6000, height)
    columns = log.columns() | {"device": 2 * log.device + 1}  # of a file: from 1
    fitted = fit_trees(debias.ClickLog(**columns), data, FAST)
    found = fitted.model.theta.reshape(4, 3)
    assert found[[1, 3]] == pytest.approx(np.outer(height, theta), rel=0.25)
    assert fitted.model.examination == pytest.approx(theta, rel=0.25)  # of both
    assert np.ptp(fitted.ranker(data.features)) > 1


@pytest.mark.parametrize("library", ["lightgbm", "xgboost"])
def test_features_that_do_not_differ_are_refused(library):
    log, _ = shuffled([1.0, 0.5, 0.3], 100)
    config = TreesConfig(library, rounds=2)
    features = np.full((30, 2), [1.0, np.nan], np.float32)
    kinds = (Feature("a"), Feature("b"))
    same = debias.RankingData(
        features, None, [0, 30], feature_names=("a", "b"), kinds=kinds
    )
    with pytest.raises(ValueError, match="every feature has one value for all items"):
        fit_trees(log, same, config)
    features = np.zeros((30, 1), np.float32)
    features[0] = 1  # differs, and LightGBM cannot split it off
    fit_trees(log, debias.RankingData(features, None, [0, 30]), config)
