"""Tests of debias.models.mixture."""

from math import exp, log

import keras
import numpy as np
import pytest

from debias.layers import BiasTower, Tower
from debias.models import (
    Additive,
    Annealing,
    Mixture,
    Naive,
    PositionOnly,
    WatchComponents,
)
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


@pytest.mark.parametrize("seed", [0, 20, 40])
def test_two_kinds_of_users_are_told_apart(seed):
    """Half the sessions click the first place only, half the second only."""
    keras.utils.set_random_seed(seed)
    kind = np.arange(400) % 3 == 0
    clicks = np.stack([kind, ~kind], axis=1).astype("float32")
    batch = batch_of(np.zeros((400, 2, 1), "float32"))
    towers = [BiasTower({"position": 2}, init_std=0.5, seed=s + seed) for s in (0, 1)]
    mixture = Mixture([PositionOnly(tower) for tower in towers])
    mixture.compile(keras.optimizers.Adam(0.3), jit_compile=False)
    mixture.fit(batch, clicks, epochs=30, batch_size=400, verbose=0)
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


def test_the_prior_follows_context():
    """Even contexts click the first place, odd ones the second: the prior learns it."""
    even = np.arange(300) % 3 > 0
    clicks = np.stack([even, ~even], axis=1).astype("float32")
    batch = batch_of(np.zeros((300, 2, 1), "float32"))
    batch["context"] = np.where(even, 1.0, -1.0)[:, None].astype("float32")
    mixture = Mixture([clicker(4.0, -4.0), clicker(-4.0, 4.0)], prior=Tower((), out=2))
    mixture.compile(keras.optimizers.Adam(0.3), jit_compile=False)
    mixture.fit(batch, clicks, epochs=40, batch_size=300, verbose=0)
    shares = np.exp(numbers(mixture(batch)["log_prior"]))
    assert (shares[even, 0] > 0.9).all() and (shares[~even, 1] > 0.9).all()
    # Before its clicks, context says who a user is: the first click is no surprise.
    logits = numbers(mixture.conditional_click_logits(batch, clicks, mixture(batch)))
    assert ((logits[:, 0] > 0) == even).all()
    # Serving knows no context and takes the mean share, 2/3, slowly averaged.
    assert 0.5 < np.exp(numbers(mixture.log_prior()))[0] < 2 / 3


def test_towers_may_be_partly_shared():
    trunk = keras.layers.Dense(8, "relu")
    heads = [keras.Sequential([trunk, keras.layers.Dense(1)]) for _ in range(2)]
    mixture = Mixture([Naive(head) for head in heads])
    mixture(batch_of(FEATURES))
    trunk_weights = 7 * 8 + 8
    assert (
        mixture.count_params() == trunk_weights + 2 * (8 + 1) + 3
    )  # prior, temperature


def test_evaluation_is_exact_whatever_the_temperature():
    mixture = Mixture([clicker(2.0, 0.0), clicker(-1.0, 0.5)], temperature=3.0)
    batch, clicks = batch_of(np.zeros((1, 2, 1), "float32")), np.array([[1.0, 0.0]])
    p = sigmoid(2.0) * 0.5 / 2 + sigmoid(-1.0) * (1 - sigmoid(0.5)) / 2
    losses = [
        numbers(mixture.session_losses(batch, clicks, mixture(batch), training))
        for training in (False, True)
    ]
    np.testing.assert_allclose(losses[0], [-log(p)], rtol=1e-5)
    first, second = (
        -log(x) for x in (sigmoid(2.0) * 0.5, sigmoid(-1.0) * (1 - sigmoid(0.5)))
    )
    tempered = -3 * log((exp(-first / 3) + exp(-second / 3)) / 2)
    np.testing.assert_allclose(losses[1], [tempered], rtol=1e-5)


def test_annealing_cools_to_the_models_own_temperature():
    mixture = Mixture([clicker(1.0, 0.0), clicker(-1.0, 0.5)], temperature=2.0)
    batch, clicks = batch_of(np.zeros((4, 2, 1), "float32")), np.zeros((4, 2))
    heats = []
    watch = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: heats.append(
            float(mixture.current_temperature)
        )
    )
    mixture.compile(keras.optimizers.SGD(0.0))
    callbacks = [Annealing(start=8.0, epochs=2), watch]
    history = mixture.fit(batch, clicks, epochs=4, callbacks=callbacks, verbose=0)
    np.testing.assert_allclose(heats, [8.0, 4.0, 2.0, 2.0], rtol=1e-6)
    # Nothing is learned at rate 0: only the temperature moves the training loss.
    loss = history.history["loss"]
    assert len(set(np.round(loss[:3], 5))) == 3 and loss[2] == loss[3]


def test_collapse_is_seen_in_the_logs():
    mixture = Mixture([clicker(3.0, -3.0), clicker(-3.0, 3.0)])
    batch = batch_of(np.zeros((4, 2, 1), "float32"))
    clicks = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    watch = WatchComponents(batch, clicks)
    watch.set_model(mixture)
    logs = {}
    watch.on_epoch_end(0, logs)
    p = sigmoid(3.0) ** 2 / (sigmoid(3.0) ** 2 + sigmoid(-3.0) ** 2)
    mean = [(3 * p + 1 - p) / 4, (3 * (1 - p) + p) / 4]
    np.testing.assert_allclose(
        logs["components"], exp(-sum(m * log(m) for m in mean)), rtol=1e-4
    )
    entropy = -p * log(p) - (1 - p) * log(1 - p)
    np.testing.assert_allclose(logs["entropy"], entropy, rtol=1e-3)
    assert logs["switching"] == 0
    mixture.components.reverse()  # everybody changes sides
    watch.on_epoch_end(1, logs)
    assert logs["switching"] == 1


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


@pytest.mark.parametrize("bad", [{"start": 0.0}, {"epochs": 0}])
def test_annealing_rejects(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Annealing(**{"start": 2.0, "epochs": 2, **bad})
