"""Tests of debias.losses: every loss of the registry, on the backend Keras runs on."""

from math import exp, log, log2

import keras
import numpy as np
import pytest
from keras import ops

from debias import losses
from debias.losses import LOSSES
from tests.gradient import gradient

every_loss = pytest.mark.parametrize("name", LOSSES)
DEPTH = {"click_em": 2, "mixture_likelihood": 3, "mixture_em": 3}
GRADED = ["softmax_cross_entropy", "pairwise_logistic", "approx_ndcg"]
# Arguments that are not the defaults, for configurations and oracles.
OTHER = {
    "click_cross_entropy": {},
    "click_em": {"examination_weight": 0.5, "relevance_weight": 2.0},
    "mixture_likelihood": {"log_prior": [0.5, -1.0, 0.25], "temperature": 2.0},
    "mixture_em": {
        "log_prior": [0.5, -1.0, 0.25],
        "temperature": 2.0,
        "drop_clickless": False,
    },
    "softmax_cross_entropy": {"gain": True, "temperature": 0.5},
    "pairwise_logistic": {"temperature": 2.0},
    "approx_ndcg": {"temperature": 0.7},
}


def test_every_loss_has_other_arguments_to_test():
    assert OTHER.keys() == LOSSES.keys()


def run(name, y, z, **arguments):
    z = ops.convert_to_tensor(z, "float32")
    return ops.convert_to_numpy(getattr(losses, name)(y, z, **arguments))


def slope(name, y, z, **arguments):
    return gradient(lambda z: getattr(losses, name)(y, z, **arguments), z)


def batch(name, lists=8, size=6, seed=0):
    """Labels with padding anywhere, logits, and item weights.

    List 0 is all padding, list 1 has no positive label, list 2 nothing else.
    """
    chance = np.random.default_rng(seed)
    y = chance.integers(0, 5 if name in GRADED else 2, (lists, size)).astype("float32")
    y[1], y[2] = 0, 1
    y[chance.random(y.shape) < 0.3] = -1
    y[0] = -1
    shape = (lists, size, DEPTH[name]) if name in DEPTH else (lists, size)
    z = chance.normal(0, 2, shape).astype("float32")
    return y, z, chance.uniform(0.2, 2, (lists, size)).astype("float32")


# Oracles: one list at a time, in float64, from the definition. Each gives the value and
# the function whose gradient the loss must have.


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def click_log_likelihood(y, z):
    p = sigmoid(z)
    return y * np.log(p) + (1 - y) * np.log(1 - p)


def click_cross_entropy(y, z, w):
    value = -(w * click_log_likelihood(y, z)).sum()
    return value, value


def click_em(y, z, w, examination_weight=1.0, relevance_weight=1.0):
    e, r = sigmoid(z).T
    examined = np.where(y == 1, 1, e * (1 - r) / (1 - e * r))
    relevant = np.where(y == 1, 1, r * (1 - e) / (1 - e * r))
    value = -examination_weight * w @ (
        examined * np.log(e) + (1 - examined) * np.log(1 - e)
    ) - relevance_weight * w @ (relevant * np.log(r) + (1 - relevant) * np.log(1 - r))
    exact = -w @ np.where(y == 1, np.log(e * r), np.log(1 - e * r))
    return value, exact if examination_weight == relevance_weight == 1 else None


def mixture_likelihood(y, z, w, log_prior=(0, 0, 0), temperature=1.0):
    prior = np.exp(log_prior) / np.exp(log_prior).sum()
    each = [click_cross_entropy(y, z[:, m], w)[0] for m in range(z.shape[1])]
    shares = prior * np.exp(-np.array(each) / temperature)
    value = -temperature * log(shares.sum())
    return value, value


def mixture_em(y, z, w, log_prior=(0, 0, 0), temperature=1.0, drop_clickless=True):
    if drop_clickless and not y.any():
        return 0.0, 0.0
    prior = np.exp(log_prior) / np.exp(log_prior).sum()
    each = [click_cross_entropy(y, z[:, m], w)[0] for m in range(z.shape[1])]
    shares = prior * np.exp(-np.array(each) / temperature)
    value = (shares / shares.sum()) @ each
    return value, mixture_likelihood(y, z, w, log_prior, temperature)[0]


def softmax_cross_entropy(y, z, w, gain=False, temperature=1.0):
    y = 2**y - 1 if gain else y
    p = np.exp(z / temperature) / np.exp(z / temperature).sum()
    value = -(w * y) @ np.log(p)
    return value, value


def pairwise_logistic(y, z, w, temperature=1.0):
    value = sum(
        w[i] * log(1 + exp(-(z[i] - z[j]) / temperature))
        for i in range(len(y))
        for j in range(len(y))
        if y[i] > y[j]
    )
    return value, value


def approx_ndcg(y, z, w, temperature=0.1):
    if not y.any():
        return 0.0, 0.0
    others = [[j for j in range(len(y)) if j != i] for i in range(len(y))]
    rank = [
        1 + sum(sigmoid((z[j] - z[i]) / temperature) for j in others[i])
        for i in range(len(y))
    ]
    best = sum((2**g - 1) / log2(r + 2) for r, g in enumerate(sorted(y)[::-1]))
    value = -sum((2**g - 1) / log2(1 + r) for g, r in zip(y, rank, strict=True)) / best
    value *= (w @ y) / y.sum()
    return value, value


def oracle(name, y, z, weights=None, **arguments):
    """Values, and gradients by central differences, list by list."""
    z = np.asarray(z, float)
    values, slopes, potential = np.zeros(len(y)), np.zeros(z.shape), None
    for q in range(len(y)):
        valid = y[q] >= 0
        if not valid.any():
            continue
        w = np.ones(valid.sum()) if weights is None else weights[q][valid].astype(float)
        labels, logits = y[q][valid].astype(float), z[q][valid]
        values[q], potential = globals()[name](labels, logits, w, **arguments)
        if potential is None:
            continue
        found = np.zeros(logits.shape)
        for cell in np.ndindex(logits.shape):
            step = np.zeros(logits.shape)
            step[cell] = 1e-5
            up = globals()[name](labels, logits + step, w, **arguments)[1]
            down = globals()[name](labels, logits - step, w, **arguments)[1]
            found[cell] = (up - down) / 2e-5
        slopes[q][valid] = found
    return values, None if potential is None else slopes


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("other", [False, True])
@every_loss
def test_values_and_gradients_equal_the_oracle(name, other, weighted):
    y, z, weights = batch(name)
    arguments = OTHER[name] if other else {}
    weights = weights if weighted else None
    values, slopes = oracle(name, y, z, weights, **arguments)
    np.testing.assert_allclose(
        run(name, y, z, weights=weights, **arguments), values, rtol=2e-6, atol=2e-6
    )
    if slopes is not None:
        found = slope(name, y, z, weights=weights, **arguments)
        np.testing.assert_allclose(found, slopes, rtol=2e-5, atol=2e-5)


@every_loss
def test_gradients_are_right_where_all_logits_tie(name):
    y, z, _ = batch(name)
    slopes = oracle(name, y, np.zeros(z.shape))[1]
    np.testing.assert_allclose(slope(name, y, 0 * z), slopes, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("garbage", [0.0, 1e30, np.inf, -np.inf, np.nan])
@every_loss
def test_padding_adds_exactly_nothing(name, garbage):
    y, z, _ = batch(name)
    value, tangent = run(name, y, z), slope(name, y, z)
    assert value[0] == 0 and (tangent[y < 0] == 0).all()
    wider = np.full((len(y), 9), -1.0, "float32")
    wider[:, 1:3], wider[:, 5:] = y[:, :2], y[:, 2:]  # padding on both sides and within
    logits = np.full(wider.shape + z.shape[2:], garbage, "float32")
    logits[:, 1:3], logits[:, 5:] = z[:, :2], z[:, 2:]
    logits[np.pad(wider, 0) < 0] = garbage
    np.testing.assert_allclose(run(name, wider, logits), value, rtol=1e-6, atol=1e-6)
    found = slope(name, wider, logits)
    assert (found[wider < 0] == 0).all()
    np.testing.assert_allclose(
        np.concatenate([found[:, 1:3], found[:, 5:]], axis=1),
        tangent,
        rtol=1e-5,
        atol=1e-6,
    )
    shell = LOSSES[name]()(y[:1], z[:1])
    assert float(shell) == 0.0  # a batch of padding alone


@every_loss
def test_far_logits_stay_finite(name):
    y, z, _ = batch(name)
    for far in (np.sign(z) * 1e4, -np.sign(z) * 1e4):
        assert np.isfinite(run(name, y, far)).all()
        assert np.isfinite(slope(name, y, far)).all()


@every_loss
def test_the_order_of_items_does_not_matter(name):
    y, z, weights = batch(name)
    np.testing.assert_allclose(
        run(name, y[:, ::-1], z[:, ::-1], weights=weights[:, ::-1]),
        run(name, y, z, weights=weights),
        rtol=1e-5,
        atol=1e-6,
    )


@every_loss
def test_list_weights_scale_lists(name):
    y, z, _ = batch(name)
    weights = np.linspace(0, 2, len(y)).astype("float32")
    expected = weights * run(name, y, z)
    for shape in [(-1,), (-1, 1)]:
        found = run(name, y, z, weights=weights.reshape(shape))
        np.testing.assert_allclose(found, expected, rtol=1e-6)


# Click models by hand


def test_click_cross_entropy_by_hand():
    value = run("click_cross_entropy", [[1, 0, -1]], [[2.0, -1.0, 7.0]])
    by_hand = log(1 + exp(-2.0)) + log(1 + exp(-1.0))
    np.testing.assert_allclose(value, [by_hand], rtol=1e-6)


def test_click_cross_entropy_is_exact_in_the_tails():
    value = run("click_cross_entropy", [[1], [0], [1]], [[-150.0], [150.0], [15.0]])
    np.testing.assert_allclose(value, [150, 150, np.log1p(exp(-15.0))], rtol=1e-6)


FIXTURE = np.array([[[0.6, 0.9], [0.8, 0.2]]], "float32")


def test_mixture_em_gives_the_value_of_tf_ranking():
    value = run("mixture_em", [[1, 0]], FIXTURE)
    np.testing.assert_allclose(value, [1.3198698], rtol=5e-7)


def test_mixture_em_drops_lists_without_a_click_and_the_likelihood_keeps_them():
    lists = [[0, 0], [1, 0]]
    z = np.tile(FIXTURE, (2, 1, 1))
    assert run("mixture_em", lists, z)[0] == 0
    assert (slope("mixture_em", lists, z)[0] == 0).all()
    assert run("mixture_em", lists, z, drop_clickless=False)[0] > 0
    assert run("mixture_likelihood", lists, z)[0] > 0


def test_em_gradient_is_the_gradient_of_the_likelihood():
    y, z, _ = batch("mixture_em", lists=20)
    arguments = {"log_prior": [0.1, 0.7, 0.2], "temperature": 1.7}
    np.testing.assert_allclose(
        slope("mixture_em", y, z, drop_clickless=False, **arguments),
        slope("mixture_likelihood", y, z, **arguments),
        rtol=1e-5,
        atol=1e-6,
    )


def test_one_component_is_the_plain_click_model():
    y, z, weights = batch("click_cross_entropy")
    for name in ("mixture_likelihood", "mixture_em"):
        found = run(name, y, z[..., None], weights=weights)
        expected = run("click_cross_entropy", y, z, weights=weights)
        expected = expected * ((y > 0).any(axis=1) | (name == "mixture_likelihood"))
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_the_likelihood_of_all_sessions_sums_to_one():
    sessions = np.array(list(np.ndindex(2, 2, 2, 2)), "float32")
    z = np.random.default_rng(1).normal(0, 2, (1, 4, 3)).repeat(16, axis=0)
    value = run("mixture_likelihood", sessions, z, log_prior=[0.3, -2.0, 0.9])
    assert np.exp(-value).sum() == pytest.approx(1, rel=1e-5)


def test_a_high_temperature_tends_to_the_prior_mean_of_the_components():
    y, z, _ = batch("mixture_likelihood")
    each = [run("click_cross_entropy", y, z[..., m]) for m in range(3)]
    found = run("mixture_likelihood", y, z, temperature=1e3)
    np.testing.assert_allclose(found, np.mean(each, axis=0), rtol=0.05, atol=1e-3)


def test_a_prior_of_each_session_and_its_gradient():
    y, z, _ = batch("mixture_likelihood")
    prior = np.random.default_rng(3).normal(size=(len(y), 3)).astype("float32")
    by_list = [
        run("mixture_likelihood", y[q : q + 1], z[q : q + 1], log_prior=prior[q])[0]
        for q in range(len(y))
    ]
    found = run("mixture_likelihood", y, z, log_prior=prior)
    np.testing.assert_allclose(found, by_list, rtol=1e-6)
    tangent = gradient(lambda p: losses.mixture_likelihood(y, z, log_prior=p), prior)
    posterior = run("responsibilities", y, z, log_prior=prior)
    shares = np.exp(prior) / np.exp(prior).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(tangent, shares - posterior, atol=1e-5)
    assert (tangent[0] == 0).all()  # all padding


def test_responsibilities_by_bayes_rule():
    y, z, _ = batch("mixture_likelihood")
    each = np.stack([run("click_cross_entropy", y, z[..., m]) for m in range(3)], 1)
    shares = np.array([0.2, 0.3, 0.5]) * np.exp(-each)
    found = run("responsibilities", y, z, log_prior=np.log([0.2, 0.3, 0.5]))
    np.testing.assert_allclose(found, shares / shares.sum(1, keepdims=True), 1e-5)


def test_prefix_responsibilities_have_seen_only_what_is_above():
    y, z, _ = batch("mixture_likelihood")
    prior = np.log([0.2, 0.3, 0.5])
    found = run("prefix_responsibilities", y, z, log_prior=prior)
    np.testing.assert_allclose(found[:, 0], np.tile([0.2, 0.3, 0.5], (8, 1)), 1e-6)
    for k in range(1, y.shape[1]):
        above = run("responsibilities", y[:, :k], z[:, :k], log_prior=prior)
        np.testing.assert_allclose(found[:, k], above, rtol=1e-4, atol=1e-6)


def test_conditional_likelihoods_sum_to_the_marginal():
    y, z, _ = batch("mixture_likelihood", lists=50)
    prior = [0.4, -1.0, 0.1]
    conditional = run("conditional_logits", y, z, log_prior=prior)
    np.testing.assert_allclose(
        run("click_cross_entropy", y, conditional),
        run("mixture_likelihood", y, z, log_prior=prior),
        rtol=1e-5,
        atol=1e-5,
    )


def test_conditional_logits_do_not_see_their_own_click():
    y, z, _ = batch("mixture_likelihood")
    for k in range(y.shape[1]):
        other = np.where(y >= 0, 1 - y, y)
        other[:, :k] = y[:, :k]
        np.testing.assert_allclose(
            run("conditional_logits", other, z)[:, : k + 1],
            run("conditional_logits", y, z)[:, : k + 1],
            rtol=1e-6,
        )


def test_mixture_logits_by_hand_and_in_the_tails():
    p = 0.25 * sigmoid(1.0) + 0.75 * sigmoid(-2.0)
    found = ops.convert_to_numpy(
        losses.mixture_logits(np.log([0.25, 0.75]), ops.array([1.0, -2.0]))
    )
    assert float(found) == pytest.approx(log(p / (1 - p)), rel=1e-5)
    far = losses.mixture_logits(
        np.log([0.5, 0.5]), ops.array([[90.0] * 2, [-90.0] * 2])
    )
    np.testing.assert_allclose(ops.convert_to_numpy(far), [90, -90], rtol=1e-6)


# The Keras shells


@every_loss
def test_config_round_trip_keeps_every_argument(name):
    given = {**OTHER[name], "reduction": "sum", "name": "mine"}
    loss = LOSSES[name](**given)
    restored = keras.losses.deserialize(keras.losses.serialize(loss))
    assert given.items() <= restored.get_config().items()
    y, z, _ = batch(name)
    assert float(restored(y, z)) == float(loss(y, z))
    values = run(name, y, z, **OTHER[name])
    assert float(loss(y, z)) == pytest.approx(values.sum(), rel=1e-5)


@every_loss
def test_shell_averages_over_lists_and_takes_both_kinds_of_weights(name):
    y, z, weights = batch(name, lists=6, size=6)  # square: nothing may broadcast
    loss = LOSSES[name]()
    assert float(loss(y, z)) == pytest.approx(run(name, y, z).mean(), rel=1e-5)
    for given in (weights, weights[:, 0], weights[:, :1]):
        expected = run(name, y, z, weights=given).mean()
        assert float(loss(y, z, sample_weight=given)) == pytest.approx(
            expected, rel=1e-5
        )


@pytest.mark.parametrize("jit", [False, True])
def test_fit_learns_by_every_loss_with_weights_and_a_batch_of_padding(jit):
    x = np.random.default_rng(0).normal(size=(32, 6, 4)).astype("float32")
    padded, _, weights = batch("click_cross_entropy", lists=32)
    y = np.where(padded < 0, -1, x[..., 0] > 0).astype("float32")
    y[:8] = -1  # one batch
    inputs = keras.Input((6, 4))
    outputs = {}
    for name in LOSSES:
        dense = keras.layers.Dense(DEPTH.get(name, 1), kernel_initializer="zeros")
        z = dense(inputs)
        outputs[name] = z if name in DEPTH else keras.layers.Reshape((-1,))(z)
    model = keras.Model(inputs, outputs)
    each = {name: LOSSES[name](name=None) for name in LOSSES}
    model.compile(keras.optimizers.SGD(0.1), loss=each, jit_compile=jit)
    history = model.fit(
        x,
        dict.fromkeys(LOSSES, y),
        sample_weight=dict.fromkeys(LOSSES, weights),
        batch_size=8,
        epochs=3,
        shuffle=False,
        verbose=0,
    ).history
    for name in LOSSES:
        start, *_, end = history[f"{name}_loss"]
        assert np.isfinite(end) and end < start, name


@pytest.mark.parametrize(
    "name, y, z, arguments, message",
    [
        ("click_cross_entropy", [1, 0], [[0.0, 0.0]], {}, "y_true must have"),
        ("click_cross_entropy", [[1, 0]], [[0.0]], {}, "agree"),
        ("click_cross_entropy", [[1]], [[[0.0]]], {}, "click_cross_entropy needs"),
        ("softmax_cross_entropy", [[1]], [[[0.0]]], {}, "softmax_cross_entropy needs"),
        ("pairwise_logistic", [[1]], [[[0.0]]], {}, "pairwise_logistic needs"),
        ("approx_ndcg", [[1]], [[[0.0]]], {}, "approx_ndcg needs"),
        ("click_em", [[1]], [[[0.0] * 3]], {}, "examination then relevance"),
        ("mixture_likelihood", [[1]], [[0.0]], {}, "K >= 1"),
        ("mixture_em", [[1]], np.zeros((1, 1, 0)), {}, "K >= 1"),
        ("responsibilities", [[1]], np.zeros((1, 1, 0)), {}, "K >= 1"),
        ("mixture_likelihood", [[1]], [[[0.0]]], {"log_prior": [0, 0]}, "log_prior"),
        ("mixture_likelihood", [[1]], [[[0.0]]], {"temperature": 0.0}, "temperature"),
        ("approx_ndcg", [[1]], [[0.0]], {"temperature": -1}, "temperature"),
    ],
)
def test_rejects(name, y, z, arguments, message):
    with pytest.raises(ValueError, match=message):
        run(name, y, z, **arguments)


def test_shells_reject_a_temperature_at_once():
    with pytest.raises(ValueError, match="temperature"):
        LOSSES["mixture_likelihood"](temperature=0)
