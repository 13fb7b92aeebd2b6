"""Clicks and targets: probabilities, losses and scores against arithmetic."""

import keras
import numpy as np
import pytest

from debias.layers import BiasTower, SharedBottom, Tower
from debias.models import MultiTarget, Product
from tests.gradient import gradient


def numbers(x):
    return keras.ops.convert_to_numpy(x)


def sigmoid(z):
    return 1 / (1 + np.exp(-np.asarray(z, float)))


class Fixed(keras.layers.Layer):
    """A tower whose outputs are its inputs."""

    def call(self, features, training=False):
        return features


class FixedBias(keras.layers.Layer):
    def call(self, batch, training=False):
        return batch["bias"][..., None]


LOGITS = np.array([[[0.4, -1.0, 0.3], [-0.2, 0.5, -2.0], [9.0, 9.0, 9.0]]], "float32")
BIAS = np.array([[1.0, -0.5, 9.0]], "float32")
TARGETS = {"order": (0,), "dwell": (10, 60)}
WORTH = {"click": 0.5, "order": 50, "dwell": 2}
CLICKS = np.array([[1.0, 0.0, -1.0]], "float32")
BATCH = {
    "features": LOGITS,
    "bias": BIAS,
    "order": np.array([[0.0, 3.0, 1.0]], "float32"),  # the second without a click
    "dwell": np.array([[30.0, 0.0, 90.0]], "float32"),
}
FIRST = np.log(np.e - 1)


def fixed(steps=FIRST, worth=WORTH):
    model = MultiTarget(Fixed(), FixedBias(), TARGETS, worth)
    model(BATCH)
    model.steps["dwell"].assign([steps])
    return model


def truth(steps=FIRST):
    """P(click), P(click and order), P(click and dwell > 10, > 60) of each cell."""
    r, u, d = np.moveaxis(LOGITS.astype(float), -1, 0)
    click = sigmoid(BIAS) * sigmoid(r)
    step = np.log1p(np.exp(steps))
    return click, click * sigmoid(u), click * sigmoid(d), click * sigmoid(d - step)


@pytest.mark.parametrize("steps", [FIRST, -3.0, 2.0])
def test_probabilities_are_products_over_all_impressions(steps):
    model = fixed(steps)
    outputs = model(BATCH)
    click, order, short, long = truth(steps)
    np.testing.assert_allclose(sigmoid(numbers(outputs["click"])), click, rtol=1e-5)
    found = sigmoid(numbers(outputs["order"]))[..., 0]
    np.testing.assert_allclose(found, order, rtol=1e-5)
    levels = sigmoid(numbers(outputs["dwell"]))
    np.testing.assert_allclose(levels, np.stack([short, long], -1), rtol=1e-5)
    assert (long < short).all()
    parts = model.probabilities(LOGITS)  # of what is examined
    examined = sigmoid(BIAS)
    np.testing.assert_allclose(numbers(parts["click"]), click / examined, rtol=1e-5)
    np.testing.assert_allclose(
        numbers(parts["dwell"])[..., 1], long / examined, rtol=1e-5
    )


def test_levels_start_a_step_of_1_apart():
    assert numbers(fixed().steps["dwell"]).tolist() == pytest.approx([FIRST])
    assert np.log1p(np.exp(FIRST)) == pytest.approx(1)


@pytest.mark.parametrize("weight", [None, np.array([[2.0, 0.5, 7.0]], "float32")])
def test_the_loss_sums_over_clicks_and_levels(weight):
    """An order without a click is not read, nor is what stands at padding."""
    click, order, short, long = (p[0] for p in truth())
    w = np.ones(3) if weight is None else weight[0]
    cells = [  # clicked, no order, 30 seconds; not clicked
        -np.log([click[0], 1 - order[0], short[0], 1 - long[0]]).sum(),
        -np.log([1 - click[1], 1 - order[1], 1 - short[1], 1 - long[1]]).sum(),
    ]
    batch = BATCH if weight is None else {**BATCH, "weight": weight}
    model = fixed()
    loss = numbers(model.session_losses(batch, CLICKS, model(batch)))
    np.testing.assert_allclose(loss, [w[:2] @ cells], rtol=1e-5)


def test_items_rank_by_what_an_examined_impression_is_worth():
    click, order, short, long = truth()
    examined = sigmoid(BIAS)
    worth = (0.5 * click + 50 * order + 2 * (short + long)) / examined
    found = numbers(fixed().score(LOGITS))
    np.testing.assert_allclose(found, np.log(worth), rtol=1e-5)


def test_by_default_levels_are_worth_1_and_clicks_nothing():
    _, order, short, long = truth()
    worth = (order + short + long) / sigmoid(BIAS)
    found = numbers(fixed(worth=None).score(LOGITS))
    np.testing.assert_allclose(found, np.log(worth), rtol=1e-5)


def test_scores_keep_apart_items_of_the_smallest_probabilities():
    features = np.array([[-300.0, -200.0, 0.0], [-300.0, -201.0, 0.0]], "float32")
    found = numbers(fixed(worth={"order": 1}).score(features))
    np.testing.assert_allclose(found, [-500, -501], rtol=1e-6)


def test_a_click_alone_is_the_product_model():
    """Worth of the click alone: the same order, and the loss of clicks is a part."""
    towers = Tower((4,), 2, seed=1), BiasTower({"position": 3}, seed=1)
    model = MultiTarget(*towers, ["order"], {"click": 3})
    rng = np.random.default_rng(0)
    features = rng.normal(size=(2, 3, 5)).astype("float32")
    batch = {"features": features, "position": np.tile([1, 2, 3], (2, 1))}
    outputs = model(batch)

    class First(keras.layers.Layer):
        def call(self, x, training=False):
            return model.relevance(x)[..., :1]

    alone = Product(First(), model.bias)
    np.testing.assert_allclose(numbers(outputs["click"]), numbers(alone(batch)))
    scores = numbers(model.score(features))
    logits = numbers(alone.score(features))
    np.testing.assert_allclose(scores, np.log(3 * sigmoid(logits)), rtol=1e-4)


def test_gradients_reach_examination_attraction_and_conversion():
    model, clicks = fixed(), CLICKS

    def loss(logits):
        batch = {**BATCH, "features": logits}
        return model.session_losses(batch, clicks, model(batch))

    slope = gradient(loss, LOGITS)
    p = sigmoid(LOGITS[0, 0])
    # Clicked, no order: d/du of -log(1 - c v), c = P(click): c v (1 - v) / (1 - c v).
    c = sigmoid(BIAS[0, 0]) * p[0]
    expected = c * p[1] * (1 - p[1]) / (1 - c * p[1])
    assert slope[0, 0, 1] == pytest.approx(expected, rel=1e-4)
    assert (slope[0, :2] != 0).all() and (slope[0, 2] == 0).all()


@pytest.mark.parametrize(
    "targets, worth, message",
    [
        ([], None, "targets must name at least one target column, got none"),
        ({"order": ()}, None, "levels of target 'order' must be increasing numbers"),
        ({"dwell": (60, 10)}, None, "must be increasing numbers, got .60.0, 10.0."),
        ({"dwell": (0, np.nan)}, None, "must be increasing numbers"),
        (["order"], {"ordr": 1}, "worth names 'ordr', expected some of click order"),
        (["order"], {"order": -1}, "worth of order must be 0 or more, got -1"),
        (["order"], {"click": 0}, "worth must be above 0 for a click or for a target"),
    ],
)
def test_rejects(targets, worth, message):
    with pytest.raises(ValueError, match=message):
        MultiTarget(Tower(out=2), BiasTower({"position": 3}), targets, worth)


def test_a_batch_without_the_target_is_an_error_and_so_is_a_tower_too_narrow():
    model = fixed()
    batch = {n: v for n, v in BATCH.items() if n != "dwell"}
    with pytest.raises(ValueError, match=r"no target 'dwell'.*target='dwell'"):
        model.session_losses(batch, CLICKS, model(batch))
    narrow = MultiTarget(Tower(out=2), FixedBias(), TARGETS)
    with pytest.raises(ValueError, match=r"must have 3 outputs.*order dwell, got 2"):
        narrow.call(BATCH)


@pytest.mark.parametrize(
    "tower",
    [
        Tower((4,), 3, seed=1),
        SharedBottom((4,), (3,), 3, seed=1),
        keras.Sequential([Tower((), 4, seed=2), SharedBottom((), (3,), 3, seed=1)]),
    ],
)
def test_a_model_starts_at_the_rates_of_clicks_and_of_what_follows(tower):
    """Of 9 clicks 2 end in an order, 7 last over 10 and 3 over 60: 2.5 / 10 and so on.

    Where all features are 0 a new tower gives its intercept.
    """
    model = MultiTarget(tower, BiasTower({"position": 2}), TARGETS)
    nothing = np.zeros((1, 2, 5), "float32")
    model(
        {"features": nothing, "position": np.array([[1, 2]]), "order": nothing[..., 0]}
    )
    dwell = np.repeat([5.0, 30.0, 90.0], [2, 4, 3])
    model.start_at(0.04, {"order": np.repeat([0.0, 1.0], [7, 2]), "dwell": dwell})
    found = {n: numbers(v)[0, 0] for n, v in model.probabilities(nothing).items()}
    assert found["click"] == pytest.approx(0.04, rel=1e-4)
    assert found["order"] == pytest.approx([0.04 * 0.25], rel=1e-4)
    assert found["dwell"] == pytest.approx([0.04 * 0.75, 0.04 * 0.35], rel=1e-4)
    model.start_at(0.5, {"order": np.ones(9)})  # it is no start any more
    again = numbers(model.probabilities(nothing)["order"])[0, 0]
    assert again == pytest.approx(found["order"])
