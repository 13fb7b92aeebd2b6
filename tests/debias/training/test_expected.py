"""Clicks to expect of a new ranking: which estimates there are, and from what."""

from dataclasses import replace

import numpy as np
import pytest

import simulators
from debias.data import RankingData
from debias.layers import BiasTower, Tower
from debias.models import Additive, Listwise, Product
from debias.propensity import off_policy, slates
from debias.training.expected import NewPolicy, clicks_to_expect, guessed_by

DATA = simulators.generate(queries=25, seed=3)
WEAK = simulators.weak_ranker(DATA)
POLICY = simulators.PlackettLuce(WEAK, 1.0)
LOG = simulators.simulate(DATA, POLICY, "pbm", 3000, seed=1, list_size=5)
THETA = np.array(simulators.eye_tracking())[:5]
SCORES = WEAK(DATA) + 0.3 * DATA.labels
CLICK = simulators.item_attraction(DATA)[:, None] * THETA


def names(log, policy, guess=None, data=DATA):
    return [
        e["estimator"] for e in clicks_to_expect(log, data, SCORES, policy, guess)[0]
    ]


def test_estimates_are_those_of_their_functions():
    policy = NewPolicy(1.0, 9.0, THETA.tolist())
    found, note = clicks_to_expect(
        LOG, DATA, SCORES, policy, lambda items: CLICK[items]
    )
    chance = off_policy.plackett_luce(LOG, DATA, SCORES, 1.0)
    taken, expected = slates.guesses(LOG, DATA, SCORES, 1.0, CLICK)
    share = slates.placements(DATA, SCORES, 1.0, 5)
    by_hand = [
        off_policy.cascade_ips(LOG, chance, 9.0),
        off_policy.cascade_ips(LOG, chance, 9.0, normalised=False),
        slates.cascade_dr(LOG, chance, taken, expected, 9.0),
        off_policy.examination_ips(LOG, SCORES, THETA, 9.0),
        slates.pbm_ips(LOG, share, THETA, clip=9.0),
    ]
    assert note is None and len(found) == 5
    for each, own in zip(found, by_hand, strict=True):
        assert each["value"] == pytest.approx(own.value)
        assert each["estimator"] == own.estimator
    drawn = "items drawn by score from all items of the query"
    assert [e["ranking"].startswith(drawn) for e in found] == [True] * 3 + [False, True]
    assert found[3]["ranking"] == "each shown list ordered by score"


def test_what_a_log_does_not_know_is_not_estimated():
    bare = LOG.select()
    found, note = clicks_to_expect(bare, DATA, SCORES, NewPolicy(), lambda items: items)
    assert found == [] and note == "the log has no propensities"
    sure = replace(LOG, logging_propensity=np.ones(LOG.item.shape))
    assert "never varied" in clicks_to_expect(sure, DATA, SCORES, NewPolicy())[1]
    assert len(names(LOG, NewPolicy())) == 2
    # Items of all queries in one: only what was shown can be put in another order.
    one = RankingData(DATA.features, None, [0, DATA.items])
    by_rank = NewPolicy(1.0, None, THETA.tolist())
    assert names(bare, by_rank, data=one) == ["clipped IPS by examination"]


def test_a_model_guesses_clicks_of_items_that_stand_alone():
    model = Product(Tower((4,), seed=1), BiasTower({"position": 5}, seed=1))
    features = DATA.features / DATA.features.std(axis=0).clip(1)
    data = RankingData(features, None, DATA.offsets)
    model({"features": features[:5][None], "position": np.arange(1, 6)[None]})
    items = np.array([4, 9, 30])
    guess = guessed_by(model, None, data, ranks=5)
    found = guess(items)
    expected = np.stack(
        [
            1 / (1 + np.exp(-np.asarray(model.logits_at(features[items], k))))
            for k in range(1, 6)
        ],
        axis=1,
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    listwise = Listwise(Additive(Tower((4,)), BiasTower({"position": 5})))
    assert guessed_by(listwise, None, data, 5) is None


@pytest.mark.parametrize("name", ["temperature", "clip"])
def test_rejects(name):
    with pytest.raises(ValueError, match=f"{name} must be above 0 and finite, got 0"):
        NewPolicy(**{name: 0})
