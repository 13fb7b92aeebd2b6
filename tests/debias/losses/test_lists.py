"""Properties of every loss: how it reads lists that are padded and weighed."""

import numpy as np
import pytest
from keras import ops

from debias.losses import LOSSES
from tests.debias.losses.registry import (
    OTHER,
    batch,
    every_loss,
    oracle,
    run,
    slope,
)


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


@pytest.mark.parametrize("label", [-0.5, -2.0, np.nan, -np.inf])
@every_loss
def test_padding_is_minus_one_and_nothing_else(name, label):
    """A label that is none makes its list nan, and no other."""
    y, z, _ = batch(name)
    value = run(name, y, z)
    y[3, 2] = label
    found = run(name, y, z)
    assert np.isnan(found[3])
    np.testing.assert_array_equal(np.delete(found, 3), np.delete(value, 3))


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
@every_loss
def test_logits_of_half_precision_are_computed_with_in_single(name, half):
    y, z, _ = batch(name)
    z = ops.cast(z, half)
    found, exact = (LOSSES[name].function(y, x) for x in (z, ops.cast(z, "float32")))
    np.testing.assert_array_equal(*map(ops.convert_to_numpy, (found, exact)))


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


@pytest.mark.parametrize(
    "name, y, z, arguments, message",
    [
        ("click_cross_entropy", [1, 0], [[0.0, 0.0]], {}, "y_true must have"),
        ("click_cross_entropy", [[1, 0]], [[0.0]], {}, "agree"),
        ("click_cross_entropy", [[1]], [[[0.0]]], {}, "click_cross_entropy needs"),
        ("softmax_cross_entropy", [[1]], [[[0.0]]], {}, "softmax_cross_entropy needs"),
        ("pairwise_logistic", [[1]], [[[0.0]]], {}, "pairwise_logistic needs"),
        ("approx_ndcg", [[1]], [[[0.0]]], {}, "approx_ndcg needs"),
        ("mixture_likelihood", [[1]], [[0.0]], {}, "K >= 1"),
        ("mixture_likelihood", [[1]], np.zeros((1, 1, 0)), {}, "K >= 1"),
        ("mixture_likelihood", [[1]], [[[0.0]]], {"log_prior": [0, 0]}, "log_prior"),
        ("mixture_likelihood", [[1]], [[[0.0]]], {"temperature": 0.0}, "temperature"),
        ("approx_ndcg", [[1]], [[0.0]], {"temperature": -1}, "temperature"),
    ],
)
def test_rejects(name, y, z, arguments, message):
    with pytest.raises(ValueError, match=message):
        run(name, y, z, **arguments)
