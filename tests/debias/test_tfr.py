"""Tests of debias.tfr, and of our losses and NDCG against TensorFlow Ranking's."""

import importlib.util
import sys

import keras
import numpy as np
import pytest

from debias import losses, metrics, tfr
from debias.losses.corrected import click_em
from debias.metrics.keras import MRR, NDCG
from tests.gradient import gradient

if keras.backend.backend() != "tensorflow":
    pytest.skip(
        "TensorFlow Ranking needs the TensorFlow backend", allow_module_level=True
    )
if importlib.util.find_spec("tensorflow_ranking") is None:
    pytest.skip("TensorFlow Ranking is not installed", allow_module_level=True)

# Ours and theirs.
PAIRS = {
    "click_cross_entropy": (
        losses.ClickCrossEntropy,
        {},
        "sigmoid_cross_entropy_loss",
        {},
    ),
    "softmax_cross_entropy": (
        losses.SoftmaxCrossEntropy,
        {"temperature": 0.7},
        "softmax_loss",
        {"temperature": 0.7},
    ),
    "pairwise_logistic": (
        losses.PairwiseLogistic,
        {"temperature": 0.7},
        "pairwise_logistic_loss",
        {"temperature": 0.7},
    ),
    "approx_ndcg": (
        losses.ApproxNDCG,
        {"temperature": 0.3},
        "approx_ndcg_loss",
        {"temperature": 0.3},
    ),
}
every_pair = pytest.mark.parametrize("name", PAIRS)


def pair(name, reduction="sum"):
    ours, our_arguments, theirs, their_arguments = PAIRS[name]
    return (
        ours(**our_arguments, reduction=reduction),
        tfr.RankingLoss(theirs, **their_arguments, reduction=reduction),
    )


def batch(name, lists=64, size=9, seed=0):
    """Padded at the end, as TF-Ranking pads; some lists empty, some without a click."""
    chance = np.random.default_rng(seed)
    clicks = "click" in name
    y = chance.integers(0, 2 if clicks else 5, (lists, size)).astype("float32")
    y[:8] = 0
    y[np.arange(size) >= chance.integers(0, size + 1, (lists, 1))] = -1
    return y, chance.normal(0, 2, (lists, size)).astype("float32")


@every_pair
def test_values_and_gradients_equal_theirs(name):
    y, z = batch(name)
    ours, theirs = pair(name)
    assert float(ours(y, z)) == pytest.approx(float(theirs(y, z)), rel=1e-6)
    np.testing.assert_allclose(
        gradient(lambda z: ours(y, z), z),
        gradient(lambda z: theirs(y, z), z),
        rtol=1e-5,
        atol=1e-6,
    )


@every_pair
def test_values_equal_theirs_list_by_list(name):
    y, z = batch(name)
    ours, theirs = (np.asarray(loss(y, z)) for loss in pair(name, reduction="none"))
    per_list = theirs.reshape(len(y), -1).sum(axis=1)
    np.testing.assert_allclose(ours, per_list, rtol=1e-6, atol=1e-6)


@every_pair
def test_weighted_values_equal_theirs(name):
    y, z = batch(name)
    weights = np.random.default_rng(1).uniform(0.5, 2, y.shape).astype("float32")
    ours, theirs = pair(name)
    for given in (weights, weights[:, :1], weights[:, 0]):
        expected = float(theirs(y, z, sample_weight=given))
        assert float(ours(y, z, sample_weight=given)) == pytest.approx(
            expected, rel=1e-6
        )


def components(y, count, seed=1):
    z = np.random.default_rng(seed).normal(0, 2, (*y.shape, count))
    return z.astype("float32")


def test_regression_em_equals_theirs():
    y, _ = batch("clicks")
    z = components(y, 2)
    theirs = tfr.RankingLoss("click_em_loss", reduction="sum")

    def ours(z):
        return click_em(y, z[..., 0], z[..., 1])

    assert float(sum(ours(z))) == pytest.approx(float(theirs(y, z)), rel=1e-6)
    expected = gradient(lambda z: theirs(y, z), z)
    np.testing.assert_allclose(gradient(ours, z), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_gradient_of_the_mixture_likelihood_is_that_of_their_em(temperature):
    """Where there is a click: theirs leaves lists without one out."""
    y, _ = batch("clicks")
    z = components(y, 3)
    ours = losses.MixtureLikelihood(temperature=temperature, reduction="sum")
    theirs = tfr.RankingLoss("mixture_em_loss", alpha=1 / temperature, reduction="sum")
    found, expected = (gradient(lambda z, f=f: f(y, z), z) for f in (ours, theirs))
    clicked = (y > 0).any(axis=1)
    np.testing.assert_allclose(found[clicked], expected[clicked], rtol=1e-5, atol=1e-6)
    assert not expected[~clicked].any() and found[~clicked].any()


def test_fit_equals_theirs():
    """One model with a tower for each loss, fitted once with ours, once with theirs."""
    chance = np.random.default_rng(2)
    x = chance.normal(size=(64, 9, 5)).astype("float32")
    batches = {name: batch(name) for name in PAIRS}
    start = [chance.normal(0, 0.5, (5, 1)) for _ in batches]

    def fitted(which):
        inputs, outputs = keras.Input((9, 5)), {}
        for name, kernel in zip(batches, start, strict=True):
            fixed = keras.initializers.Constant(kernel.astype("float32"))
            dense = keras.layers.Dense(1, use_bias=False, kernel_initializer=fixed)
            outputs[name] = keras.layers.Reshape((9,))(dense(inputs))
        model = keras.Model(inputs, outputs)
        each = {name: pair(name)[which] for name in PAIRS}
        model.compile(keras.optimizers.SGD(1e-3), loss=each, jit_compile=False)
        labels = {name: y for name, (y, _) in batches.items()}
        history = model.fit(
            x, labels, batch_size=16, epochs=2, shuffle=False, verbose=0
        ).history
        return model.get_weights(), history

    (weights, history), (their_weights, their_history) = fitted(0), fitted(1)
    for found, expected in zip(weights, their_weights, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    for name in PAIRS:
        key = f"{name}_loss"
        np.testing.assert_allclose(history[key], their_history[key], rtol=1e-6)


# Metrics. TF-Ranking breaks ties by chance and calls a list without a relevant item 0,
# so lists here have neither.


def ranked(lists=200, size=12):
    chance = np.random.default_rng(5)
    labels = chance.integers(0, 5, (lists, size)).astype("float32")
    labels[:, 0] = 1 + labels[:, 0] % 4
    labels[np.arange(size) >= chance.integers(1, size + 1, (lists, 1))] = -1
    return labels, chance.normal(size=(lists, size)).astype("float32")


@pytest.mark.parametrize("k", [1, 3, 5, 10, None])
def test_ndcg_and_mrr_equal_theirs(k):
    labels, scores = ranked()
    theirs = tfr.load().keras.metrics
    for metric, function, ours in (
        (theirs.NDCGMetric(topn=k), metrics.ndcg, NDCG(k)),
        (theirs.MRRMetric(topn=k), metrics.mrr, MRR(k)),
        (theirs.DCGMetric(topn=k), metrics.dcg, None),
        (theirs.HitsMetric(topn=k or 12), metrics.hit_rate, None),
        (theirs.RecallMetric(topn=k or 12), metrics.recall, None),
    ):
        expected = float(metric(labels, scores))
        cut = k if ours or function is metrics.dcg else k or 12
        value = function(labels, scores, cut).mean()
        near = pytest.approx(expected, rel=1e-6, abs=1e-6)
        assert value == near, function.__name__
        if ours:
            assert float(ours(labels, scores)) == pytest.approx(expected, abs=1e-6)


def test_ndcg_equals_theirs_inside_fit():
    labels, scores = ranked(64)
    inputs = keras.Input((12, 1))
    dense = keras.layers.Dense(1, kernel_initializer="ones")
    model = keras.Model(inputs, keras.layers.Reshape((12,))(dense(inputs)))
    theirs = tfr.load().keras.metrics.NDCGMetric("theirs", topn=5)
    model.compile(
        keras.optimizers.SGD(1e-9),
        loss=losses.SoftmaxCrossEntropy(),
        metrics=[NDCG(5, "ours"), theirs],
        jit_compile=False,
    )
    history = model.fit(scores[..., None], labels, batch_size=16, verbose=0).history
    expected = metrics.ndcg(labels, scores, 5).mean()
    assert history["ours"][0] == pytest.approx(expected, abs=1e-6)
    assert history["theirs"][0] == pytest.approx(expected, abs=1e-6)


# The bridge itself


@pytest.mark.parametrize("loss", tfr.LOSSES)
def test_every_loss_runs_and_keeps_its_config(loss):
    depth = {"mixture_em_loss": 3, "click_em_loss": 2, "ordinal_loss": 4}.get(loss)
    y, z = batch("clicks")
    y, z = y[8:], z[8:]
    y[:, 0] = 1
    if depth:
        z = np.repeat(z[..., None], depth, axis=2)
    needed = {"ordinal_loss": {"ordinal_size": 4}}
    needed["coupled_rankdistil_loss"] = {"sample_size": 4}
    arguments = needed.get(loss, {})
    ours = tfr.RankingLoss(loss, reduction="sum", name="mine", **arguments)
    assert np.isfinite(gradient(lambda z: ours(y, z), z)).all()
    restored = keras.losses.deserialize(keras.losses.serialize(ours))
    given = {"loss": loss, "reduction": "sum", "name": "mine", **arguments}
    assert given.items() <= restored.get_config().items()
    values = []
    for each in (ours, restored):
        keras.utils.set_random_seed(0)  # some shuffle ties, some sample
        values.append(float(each(y, z)))
    assert np.isfinite(values[0]) and values[1] == pytest.approx(values[0])


def test_the_reduction_is_the_reduction():
    y, z = batch("click_cross_entropy")
    mean, total = (
        float(tfr.RankingLoss("sigmoid_cross_entropy_loss", reduction=reduction)(y, z))
        for reduction in ("sum_over_batch_size", "sum")
    )
    assert total == pytest.approx(mean * y.size, rel=1e-6)  # padding in the count


def test_pairwise_losses_honour_the_temperature():
    cold, warm = (
        float(
            tfr.RankingLoss("pairwise_logistic_loss", temperature=t)([[1, 0]], [[2, 1]])
        )
        for t in (1.0, 4.0)
    )
    assert cold == pytest.approx(np.log1p(np.exp(-1.0)) / 2, rel=1e-6)
    assert warm == pytest.approx(np.log1p(np.exp(-0.25)) / 2, rel=1e-6)


def test_lambda_weights_survive_the_config():
    weight = tfr.load().keras.losses.NDCGLambdaWeight(topn=5, smooth_fraction=0.25)
    loss = tfr.RankingLoss("pairwise_logistic_loss", lambda_weight=weight)
    restored = keras.losses.deserialize(keras.losses.serialize(loss))
    y, z = batch("pairwise_logistic")
    assert float(restored(y, z)) == pytest.approx(float(loss(y, z)), rel=1e-6)
    assert restored.lambda_weight.get_config()["topn"] == 5
    plain = tfr.RankingLoss("pairwise_logistic_loss")
    assert float(plain(y, z)) != pytest.approx(float(loss(y, z)), rel=1e-2)


def test_loading_leaves_tensorflow_as_it_was():
    import tensorflow as tf

    assert tfr.load() is tfr.load() is sys.modules["tensorflow_ranking"]
    assert not hasattr(tf, "estimator") and not hasattr(tf.compat.v1, "estimator")


def test_what_needs_estimators_says_so():
    with pytest.raises(NotImplementedError, match="Estimator is gone"):
        tfr._estimator().Estimator()


def test_rejects_an_unknown_loss():
    with pytest.raises(ValueError, match="loss must be one of"):
        tfr.RankingLoss("ndcg")


def test_without_tensorflow_ranking_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install tensorflow-ranking"):
        tfr.load()
