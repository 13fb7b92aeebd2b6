"""Tests of debias.layers.combination."""

from math import exp, log

import keras
import numpy as np
import pytest

from debias.layers import Bilinear, additive, dot, product, trust_biased
from tests.gradient import gradient


def run(function, *arrays):
    tensors = [keras.ops.convert_to_tensor(x, "float32") for x in arrays]
    return keras.ops.convert_to_numpy(function(*tensors))


def test_product_by_hand():
    p = 1 / (1 + exp(-2.0)) * 1 / (1 + exp(1.0))
    np.testing.assert_allclose(run(product, 2.0, -1.0), log(p / (1 - p)), 1e-6)


def test_product_is_symmetric_and_exact_where_sigmoids_saturate():
    logits = run(product, [-90.0, 90.0, -90.0], [90.0, 0.0, -90.0])
    np.testing.assert_allclose(logits, [-90.0, 0.0, -180.0], atol=1e-5)
    r, b = np.random.default_rng(0).normal(0, 3, (2, 50))
    np.testing.assert_allclose(run(product, r, b), run(product, b, r), atol=1e-5)


def test_product_gradient_by_hand_where_the_logits_tie():
    # d/dr logit(s(r) s(b)) = (1 - s(r)) / (1 - s(r) s(b)), at 0: (1/2) / (3/4)
    slope = gradient(lambda relevance: product(relevance, 0.0), [0.0])
    np.testing.assert_allclose(slope, [2 / 3], rtol=1e-6)


def test_trust_biased_by_hand():
    # Seen (s(1)) and either wanted (s(-2)) or trusted (s(.5)), as inclusion, exclusion.
    seen, wanted, trusted = (1 / (1 + exp(-x)) for x in (1.0, -2.0, 0.5))
    p = seen * (wanted + trusted - wanted * trusted)
    np.testing.assert_allclose(
        run(trust_biased, -2.0, 1.0, 0.5), log(p / (1 - p)), 1e-5
    )


def test_trust_biased_is_affine_in_attraction_and_a_product_without_trust():
    wanted = np.array([0.1, 0.4, 0.7])
    logits = run(trust_biased, np.log(wanted / (1 - wanted)), 0.3, -1.2)
    p = 1 / (1 + np.exp(-logits))
    alpha = 1 / (1 + exp(-0.3)) * (1 - 1 / (1 + exp(1.2)))
    np.testing.assert_allclose(np.diff(p), alpha * np.diff(wanted), rtol=1e-5)
    r, b = np.random.default_rng(1).normal(0, 3, (2, 50))
    np.testing.assert_allclose(
        run(trust_biased, r, b, -60.0), run(product, r, b), atol=1e-4
    )


def test_additive_and_dot_by_hand():
    assert run(additive, 2.0, -0.5) == 1.5
    assert run(dot, [[1.0, 2.0]], [[3.0, -0.5]]) == [2.0]


@pytest.mark.parametrize("combine", [additive, product])
def test_equal_bias_keeps_the_order_of_relevance(combine):
    logits = run(combine, [[-4.0, -1.0, 0.5, 6.0]], [[0.3]])
    assert (np.diff(logits) > 0).all()


def test_bilinear_is_its_formula():
    layer = Bilinear(seed=2)
    r, e = np.random.default_rng(1).normal(size=(2, 3, 5, 4)).astype("float32")
    e = e[..., :3]
    out = run(layer, r, e)
    names = ("matrix", "relevance_weight", "bias_weight", "constant")
    b, b_r, b_e, b0 = (keras.ops.convert_to_numpy(getattr(layer, n)) for n in names)
    expected = np.einsum("bld,de,ble->bl", r, b, e) + r @ b_r + e @ b_e + b0
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)
    assert b0 == 0 and b.shape == (4, 3)


def test_bilinear_starts_with_the_published_spread():
    layer = Bilinear(seed=0)
    layer.build((None, 400), (None, 300))
    np.testing.assert_allclose(np.std(layer.matrix), 1 / 400, rtol=0.02)
    np.testing.assert_allclose(np.std(layer.relevance_weight), 1 / 20, rtol=0.15)
    np.testing.assert_allclose(np.std(layer.bias_weight), 1 / 20, rtol=0.15)


def test_bilinear_config_round_trip():
    restored = keras.layers.deserialize(keras.layers.serialize(Bilinear(seed=4)))
    assert restored.get_config()["seed"] == 4
