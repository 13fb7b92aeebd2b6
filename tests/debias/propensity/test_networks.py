"""Tests of debias.propensity.networks against the Keras models that they replace."""

import keras
import numpy as np
import pytest

from debias.data import ClickLog, RankingData
from debias.data.scaling import scaled
from debias.layers import BiasTower, Standardize, Tower
from debias.models import XPA, Product
from debias.models.batches import batches
from debias.propensity import networks

RANKS, WIDTH = 4, 3
RNG = np.random.default_rng(0)
X = RNG.normal(size=(30, WIDTH)).astype("float32")
ITEM = RNG.integers(30, size=(40, RANKS))
ITEM[5, 2:] = ITEM[6, 1:] = -1  # a list of two items, and one of a single item
LOG = ClickLog(np.zeros(40, int), ITEM, (RNG.random(ITEM.shape) < 0.4) & (ITEM >= 0))
DATA = RankingData(X, None, [0, 30])


def tower_of(weights):
    return [weights[name] for name in ("kernel", "bias", "out", "out_bias")]


def places_of(table):
    """With the row of padding, which no shown item has."""
    return [np.concatenate([np.zeros_like(table[:1]), table])]


def keras_product(weights):
    model = Product(Tower((32,)), BiasTower({"position": RANKS}))
    build(model)
    model.relevance.set_weights(tower_of(weights))
    model.bias.set_weights(places_of(weights["place"][:, None]))
    return model


def keras_xpa(weights):
    hears = [name for name in networks.HEARD if f"{name}_value" in weights]
    places = BiasTower({"position": RANKS}, out=8)
    model = XPA(Tower((32,), out=8), places, hears=hears)
    build(model)
    model.relevance.set_weights(tower_of(weights))
    model.bias.set_weights(places_of(weights["places"]))
    own = weights["own_relevance"][:, None], weights["intercept"]
    model.own_relevance.set_weights(own)
    model.own_place.set_weights([weights["own_place"][:, None]])
    parts = ("query", "query_bias", "key", "key_bias", "value")
    for name, layer in model.heard.items():
        *found, value = (weights[f"{name}_{part}"] for part in parts)
        layer.set_weights([*found, value[:, None]])
    return model


def build(model):
    model(next(iter(batches(LOG, DATA, len(LOG), shuffle=False)))[0])


def moved(weights):
    """Weights away from their start, where biases are 0."""
    rng = np.random.default_rng(1)
    return {
        name: value + rng.normal(0, 0.3, value.shape).astype("float32")
        for name, value in weights.items()
    }


CASES = {
    "product": (networks.product, keras_product, None),
    "alone": (networks.attentive, keras_xpa, ()),
    "relevance": (networks.attentive, keras_xpa, ("relevance",)),
    "places": (networks.attentive, keras_xpa, ("places",)),
    "both": (networks.attentive, keras_xpa, networks.HEARD),
}


@pytest.fixture(params=CASES)
def case(request):
    network, twin, heard = CASES[request.param]
    rng = np.random.default_rng(2)
    if heard is None:
        start = networks.product_weights(WIDTH, RANKS, rng)
    else:
        start = networks.attentive_weights(WIDTH, RANKS, rng, heard)
    return network, twin, moved(start)


def test_likelihoods_are_those_of_keras(case):
    network, twin, weights = case
    batch, click = next(iter(batches(LOG, DATA, len(LOG), shuffle=False)))
    model = twin(weights)
    wanted = -keras.ops.convert_to_numpy(
        model.session_losses(batch, click, model(batch))
    )
    found = networks.log_likelihoods(network, weights, X, LOG)
    np.testing.assert_allclose(found, wanted, rtol=2e-5)


def test_gradients_are_differences_of_the_likelihood(case):
    network, _, weights = case
    exact = {name: value.astype(float) for name, value in weights.items()}
    lists = networks.Lists.of(LOG, X.astype(float))
    slope = network(exact, lists)[1]
    assert slope.keys() == exact.keys()
    rng = np.random.default_rng(3)
    for name, value in exact.items():
        way = rng.normal(size=value.shape)

        def at(step, name=name, value=value, way=way):
            return network(exact | {name: value + step * way}, lists)[0].mean()

        wanted = (at(1e-5) - at(-1e-5)) / 2e-5  # no unit switches so near
        assert (slope[name] * way).sum() == pytest.approx(wanted, rel=1e-4, abs=1e-8)


def fitted(network, weights, held, epochs, patience=1):
    return networks.fitted(
        network,
        weights,
        X,
        LOG,
        held,
        batch=len(LOG),
        epochs=epochs,
        rate=0.01,
        patience=patience,
        rng=np.random.default_rng(0),
    )


def test_steps_are_those_of_adam(case):
    """Of Keras, which gets our gradients: those of losses, so downwards."""
    network, _, weights = case
    lists = networks.Lists.of(LOG, X)
    adam = keras.optimizers.Adam(0.01)
    variables = {name: keras.Variable(value) for name, value in weights.items()}
    for _ in range(3):
        here = {n: keras.ops.convert_to_numpy(v) for n, v in variables.items()}
        slope = network(here, lists)[1]
        adam.apply([-slope[name] for name in here], list(variables.values()))
    found = fitted(network, weights, LOG.take([]), epochs=3)
    for name, variable in variables.items():
        wanted = keras.ops.convert_to_numpy(variable)
        np.testing.assert_allclose(found[name], wanted, atol=2e-4)  # of moves of .03


def test_the_best_weights_are_kept_and_training_stops_behind_them():
    """Held-out clicks are the opposite, so every pass is worse than the first."""
    rng = np.random.default_rng(4)
    start = networks.product_weights(WIDTH, RANKS, rng)
    other = ClickLog(LOG.query, LOG.item, ~LOG.click & LOG.mask)
    first = fitted(networks.product, start, other, epochs=1)
    asked = []

    def counted(weights, lists):
        asked.append(lists)
        return networks.product(weights, lists)

    found = fitted(counted, start, other, epochs=9, patience=2)
    assert len(asked) == 2 * 3  # a step and a judgment in each of three passes
    for name, value in first.items():
        np.testing.assert_array_equal(found[name], value)


def test_features_are_scaled_as_standardize_does():
    wide = np.exp(4 * X)
    wide[:, 1] = 3.0  # never varies
    wanted = keras.ops.convert_to_numpy(Standardize().adapt(wide)(wide))
    np.testing.assert_allclose(scaled(wide), wanted, atol=1e-5)
