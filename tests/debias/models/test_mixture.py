"""Tests of debias.models.mixture."""

from math import exp, log

import keras
import numpy as np
import pytest

from debias.layers import BiasTower
from debias.models import Additive, Mixture, PositionOnly
from tests.debias.models.registry import bias, relevance
from tests.debias.models.test_click_models import FEATURES, batch_of, numbers


def clicker(*logits):
    """A position-only model with the given click logit at each position."""
    tower = BiasTower({"position": len(logits)})
    model = PositionOnly(tower)
    model(batch_of(np.zeros((1, len(logits), 1), "float32")))
    tower.tables["position"].assign(np.array([[0.0], *([z] for z in logits)]))
    return model


def sigmoid(z):
    return 1 / (1 + exp(-z))


def test_likelihood_and_posterior_by_hand():
    mixture = Mixture([clicker(0.6, 0.8), clicker(0.9, 0.2)])
    batch = batch_of(np.zeros((1, 2, 1), "float32"))
    first = sigmoid(0.6) * (1 - sigmoid(0.8))
    second = sigmoid(0.9) * (1 - sigmoid(0.2))
    clicks = np.array([[1.0, 0.0]], "float32")
    loss = numbers(mixture.session_losses(batch, clicks, mixture(batch)))
    np.testing.assert_allclose(loss, [-log((first + second) / 2)], rtol=1e-5)
    np.testing.assert_allclose(
        numbers(mixture.responsibilities(batch, clicks)),
        [[first / (first + second), second / (first + second)]],
        rtol=1e-5,
    )


def test_marginal_click_logits_by_hand_with_an_uneven_prior():
    mixture = Mixture([clicker(2.0), clicker(-1.0)])
    mixture.prior_logits.assign([log(3.0), 0.0])
    batch = batch_of(np.zeros((1, 1, 1), "float32"))
    p = 0.75 * sigmoid(2.0) + 0.25 * sigmoid(-1.0)
    logits = numbers(mixture.click_logits(batch, mixture(batch)))
    np.testing.assert_allclose(logits, [[log(p / (1 - p))]], rtol=1e-5)
    np.testing.assert_allclose(
        numbers(mixture.score(np.zeros((1, 1), "float32"))),
        [log(p / (1 - p))],
        rtol=1e-5,
    )


def test_serving_by_relevance_is_the_mean_of_the_components_scores():
    parts = [Additive(relevance(s), bias(s)) for s in (0, 1)]
    mixture = Mixture(parts, serving="relevance")
    mixture(batch_of(FEATURES))
    mixture.prior_logits.assign([log(3.0), 0.0])
    expected = 0.75 * numbers(parts[0].score(FEATURES)) + 0.25 * numbers(
        parts[1].score(FEATURES)
    )
    np.testing.assert_allclose(numbers(mixture.score(FEATURES)), expected, rtol=1e-4)


def test_two_kinds_of_users_are_told_apart():
    """Half the sessions click the first place only, half the second only."""
    keras.utils.set_random_seed(0)
    kind = np.arange(400) % 3 == 0
    clicks = np.stack([kind, ~kind], axis=1).astype("float32")
    batch = batch_of(np.zeros((400, 2, 1), "float32"))
    towers = [BiasTower({"position": 2}, spread=0.5, seed=s) for s in (0, 1)]
    mixture = Mixture([PositionOnly(tower) for tower in towers])
    mixture.compile(keras.optimizers.Adam(0.1))
    mixture.fit(batch, clicks, epochs=60, batch_size=100, verbose=0)
    guess = numbers(mixture.responsibilities(batch, clicks)).argmax(axis=1)
    assert len(set(guess[kind])) == len(set(guess[~kind])) == 1
    assert guess[kind][0] != guess[~kind][0]
    shares = np.exp(numbers(mixture.log_prior()))
    np.testing.assert_allclose(shares[guess[kind][0]], kind.mean(), atol=0.03)


def test_a_uniform_prior_stays_uniform():
    mixture = Mixture([clicker(0.0, 1.0), clicker(1.0, 0.0)], prior="uniform")
    mixture.compile(keras.optimizers.SGD(1.0))
    batch = batch_of(np.zeros((2, 2, 1), "float32"))
    mixture.fit(batch, np.array([[1.0, 0.0]] * 2), epochs=2, verbose=0)
    np.testing.assert_allclose(numbers(mixture.log_prior()), [log(0.5)] * 2, rtol=1e-6)


def test_a_tower_shared_by_components_is_shared_after_loading(tmp_path):
    shared = relevance(0)
    mixture = Mixture([Additive(shared, bias(s)) for s in (0, 1)])
    mixture(batch_of(FEATURES))
    mixture.save(tmp_path / "mixture.keras")
    loaded = keras.models.load_model(tmp_path / "mixture.keras")
    assert loaded.components[0].relevance is loaded.components[1].relevance
    assert loaded.count_params() == mixture.count_params()


@pytest.mark.parametrize(
    "bad",
    [
        {"components": []},
        {"prior": "flat"},
        {"temperature": 0.0},
        {"serving": "mean"},
    ],
)
def test_rejects(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Mixture(**{"components": [clicker(0.0)], **bad})
