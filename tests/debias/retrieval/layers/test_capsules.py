"""Tests of debias.retrieval.layers.capsules and history."""

import keras
import numpy as np
import pytest
from keras import ops

from debias.retrieval.layers.capsules import (
    InterestCapsules,
    interest_count,
    label_aware,
    route,
    squash,
)
from debias.retrieval.layers.history import (
    HISTORIES,
    History,
    TransformerHistory,
    recency_sum,
)
from tests.gradient import gradient


def arrays(x):
    return ops.convert_to_numpy(x)


def squashed(z):
    square = (z * z).sum(axis=-1, keepdims=True)
    return z * np.sqrt(square) / (1 + square)


def routed(e, b, iterations):
    """The definition for one user whose interests are all live, in NumPy."""
    for iteration in range(iterations):
        w = np.exp(b) / np.exp(b).sum(axis=0)
        u = squashed(w @ e)
        if iteration < iterations - 1:
            b = b + u @ e.T
    return u


E = np.array([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
B = np.array([[0.5, 0.0, -0.5], [0.0, 1.0, 0.0]])


def run_route(e, mask, b, count, iterations=3):
    tensors = (ops.array(np.asarray(x, "float32")) for x in (e, mask, b))
    return arrays(route(*tensors, ops.array(count), iterations))


@pytest.mark.parametrize("iterations", [1, 3])
def test_routing_by_hand(iterations):
    found = run_route(E[None], np.ones((1, 3)), B, [2], iterations)
    np.testing.assert_allclose(found[0], routed(E, B, iterations), rtol=1e-5)


def test_one_iteration_written_out():
    # Logits 0, log 3 for behaviour (1, 0): weights 1/4, 3/4.
    found = run_route([[[1.0, 0.0]]], [[1.0]], [[0.0], [np.log(3)]], [2], 1)
    low, high = 0.25**2 / (1 + 0.25**2), 0.75**2 / (1 + 0.75**2)
    np.testing.assert_allclose(found[0], [[low, 0], [high, 0]], rtol=1e-5)


def test_padding_and_dead_interests_do_not_take_part():
    padded = np.concatenate([E, [[9.0, 9.0]]])[None]
    b = np.concatenate([np.pad(B, ((0, 0), (0, 1))), np.full((1, 4), 5.0)])
    found = run_route(padded, [[1, 1, 1, 0]], b, [2])
    np.testing.assert_allclose(found[0, :2], routed(E, B, 3), rtol=1e-5)
    assert not found[0, 2].any()


def test_the_gradient_goes_through_the_last_iteration_only():
    weights = ops.array(np.random.default_rng(0).normal(size=(2, 2)), "float32")

    def total(x):
        x = ops.convert_to_tensor(x)
        u = route(x, ops.ones((1, 3)), ops.array(B, "float32"), ops.array([2]), 3)
        return u * weights

    slope = gradient(total, E[None])[0]
    # With the last iteration's coupling held fixed, u = squash(w e).
    u_first = routed(E, B, 1)
    b = B + u_first @ E.T
    w = np.exp(b) / np.exp(b).sum(axis=0)
    b = b + squashed(w @ E) @ E.T
    w = np.exp(b) / np.exp(b).sum(axis=0)
    expected, step = np.zeros_like(E), 1e-5
    for place in np.ndindex(*E.shape):
        change = np.zeros_like(E)
        change[place] = step
        up, down = (squashed(w @ (E + sign * change)) for sign in (1, -1))
        expected[place] = ((up - down) / (2 * step) * arrays(weights)).sum()
    np.testing.assert_allclose(slope, expected, atol=1e-4)


def test_interest_count_by_hand():
    # log2(1 + n): 0, 1, 1.58, 2, 2.81, 3, 8.97, at most 4, at least 1.
    count = arrays(interest_count(ops.array([0, 1, 2, 3, 6, 7, 500]), 4))
    assert count.tolist() == [1, 1, 1, 2, 2, 3, 4]


def test_label_aware_by_hand():
    u = np.array([[[1.0, 0.0], [0.0, 2.0], [7.0, 7.0]]], "float32")
    label, live = np.array([[0.5, 0.5]], "float32"), np.array([[True, True, False]])

    def run(power, label=label):
        tensors = (ops.array(x) for x in (u, label, live))
        return arrays(label_aware(*tensors, power))[0]

    weight = np.exp([0.5**2, 1.0**2])
    weight /= weight.sum()
    np.testing.assert_allclose(run(2.0), [weight[0], 2 * weight[1]], rtol=1e-5)
    np.testing.assert_allclose(run(0.0), [0.5, 1.0], rtol=1e-5)
    assert run(float("inf")).tolist() == [0.0, 2.0]
    # A negative product stays below a positive one at an even power.
    first, second = run(2.0, np.array([[0.5, -1.0]], "float32"))
    assert first > 0.9 and -2 * (1 - first) == pytest.approx(-second, abs=1e-5)


def test_squash_of_zero_is_zero_with_a_finite_gradient():
    slope = gradient(lambda x: squash(ops.convert_to_tensor(x)), np.zeros((1, 3)))
    assert np.isfinite(slope).all()


def test_a_user_without_history_has_one_zero_interest():
    layer = InterestCapsules(3, 2, seed=0)
    u = arrays(layer(ops.ones((1, 2, 4)), ops.zeros((1, 2))))
    assert u.shape == (1, 3, 4) and not u.any()


def test_capsules_are_the_same_on_every_call_and_for_equal_histories():
    layer = InterestCapsules(3, 8, seed=0)
    x = np.random.default_rng(0).normal(size=(1, 8, 4)).astype("float32")
    x = ops.array(np.concatenate([x, x]))
    first, again = (arrays(layer(x, ops.ones((2, 8)))) for _ in range(2))
    assert (first == again).all() and np.allclose(first[0], first[1], atol=1e-6)
    assert not np.allclose(first[0, 0], first[0, 1])


def test_recency_sum_by_hand():
    x = ops.array([[[1.0], [10.0], [100.0]]])
    total = recency_sum(x, ops.array([[1, 1, 0]]), 0.9)
    assert float(total[0, 0]) == pytest.approx(1 + 0.9 * 10)


@pytest.mark.parametrize("kind", HISTORIES)
def test_padding_changes_no_history_and_none_gives_zeros(kind):
    layer = History(kind, 4, seed=0)
    x = np.random.default_rng(0).normal(size=(1, 4, 6)).astype("float32")
    mask = ops.array([[1, 1, 0, 0]])
    other = x.copy()
    other[:, 2:] = 99.0
    first, changed = (arrays(layer(ops.array(v), mask)) for v in (x, other))
    np.testing.assert_allclose(first, changed, atol=1e-5)
    assert not arrays(layer(ops.array(x), ops.zeros((1, 4)))).any()


@pytest.mark.parametrize("kind", ["recency", "transformer"])
def test_order_matters(kind):
    layer = History(kind, 3, seed=0)
    x = np.random.default_rng(0).normal(size=(1, 3, 6)).astype("float32")
    one, other = (layer(ops.array(v), ops.ones((1, 3))) for v in (x, x[:, ::-1].copy()))
    assert np.abs(arrays(one) - arrays(other)).max() > 1e-3


@pytest.mark.parametrize(
    "layer, given",
    [
        (InterestCapsules, {"interests": 2, "length": 3, "iterations": 1, "seed": 4}),
        (
            TransformerHistory,
            {"length": 3, "blocks": 2, "heads": 1, "dropout": 0.3, "seed": 4},
        ),
        (History, {"kind": "recency", "length": 3, "decay": 0.5, "seed": 4}),
        (History, {"kind": "transformer", "blocks": 2, "heads": 1, "dropout": 0.3}),
    ],
)
def test_config_round_trip_keeps_every_argument(layer, given):
    restored = keras.layers.deserialize(keras.layers.serialize(layer(**given)))
    assert given.items() <= restored.get_config().items()


@pytest.mark.parametrize(
    "function, message",
    [
        (lambda: InterestCapsules(interests=0), "interests"),
        (lambda: History("sum"), "kind"),
        (lambda: History(decay=0.0), "decay"),
        (lambda: TransformerHistory(0), "length"),
        (
            lambda: TransformerHistory(3, heads=4)(
                ops.ones((1, 3, 6)), ops.ones((1, 3))
            ),
            "heads",
        ),
    ],
)
def test_rejects(function, message):
    with pytest.raises(ValueError, match=message):
        function()
