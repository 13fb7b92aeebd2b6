"""Every loss of the registry: arguments, batches, and an oracle of its definition."""

from math import exp, log, log2

import numpy as np
import pytest
from keras import ops

from debias.losses import LOSSES
from tests.gradient import gradient

every_loss = pytest.mark.parametrize("name", LOSSES)
DEPTH = {"mixture_likelihood": 3}
GRADED = ["softmax_cross_entropy", "pairwise_logistic", "approx_ndcg"]
# Arguments that are not the defaults, for configurations and oracles.
OTHER = {
    "click_cross_entropy": {},
    "mixture_likelihood": {"log_prior": [0.5, -1.0, 0.25], "temperature": 2.0},
    "softmax_cross_entropy": {"gain": True, "temperature": 0.5},
    "pairwise_logistic": {"temperature": 2.0},
    "approx_ndcg": {"temperature": 0.7},
}


def run(name, y, z, **arguments):
    z = ops.convert_to_tensor(z, "float32")
    return ops.convert_to_numpy(LOSSES[name].function(y, z, **arguments))


def slope(name, y, z, **arguments):
    return gradient(lambda z: LOSSES[name].function(y, z, **arguments), z)


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


# Oracles: one list at a time, in float64, from the definition.


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def click_log_likelihood(y, z):
    p = sigmoid(z)
    return y * np.log(p) + (1 - y) * np.log(1 - p)


def click_cross_entropy(y, z, w):
    value = -(w * click_log_likelihood(y, z)).sum()
    return value


def mixture_likelihood(y, z, w, log_prior=(0, 0, 0), temperature=1.0):
    prior = np.exp(log_prior) / np.exp(log_prior).sum()
    each = [click_cross_entropy(y, z[:, m], w) for m in range(z.shape[1])]
    shares = prior * np.exp(-np.array(each) / temperature)
    value = -temperature * log(shares.sum())
    return value


def softmax_cross_entropy(y, z, w, gain=False, temperature=1.0):
    y = 2**y - 1 if gain else y
    p = np.exp(z / temperature) / np.exp(z / temperature).sum()
    value = -(w * y) @ np.log(p)
    return value


def pairwise_logistic(y, z, w, temperature=1.0):
    value = sum(
        w[i] * log(1 + exp(-(z[i] - z[j]) / temperature))
        for i in range(len(y))
        for j in range(len(y))
        if y[i] > y[j]
    )
    return value


def approx_ndcg(y, z, w, temperature=0.1):
    if not y.any():
        return 0.0
    others = [[j for j in range(len(y)) if j != i] for i in range(len(y))]
    rank = [
        1 + sum(sigmoid((z[j] - z[i]) / temperature) for j in others[i])
        for i in range(len(y))
    ]
    best = sum((2**g - 1) / log2(r + 2) for r, g in enumerate(sorted(y)[::-1]))
    value = -sum((2**g - 1) / log2(1 + r) for g, r in zip(y, rank, strict=True)) / best
    value *= (w @ y) / y.sum()
    return value


def oracle(name, y, z, weights=None, **arguments):
    """Values, and gradients by central differences, list by list."""
    z = np.asarray(z, float)
    values, slopes = np.zeros(len(y)), np.zeros(z.shape)
    for q in range(len(y)):
        valid = y[q] >= 0
        if not valid.any():
            continue
        w = np.ones(valid.sum()) if weights is None else weights[q][valid].astype(float)
        labels, logits = y[q][valid].astype(float), z[q][valid]

        def of(logits, labels=labels, w=w):
            return globals()[name](labels, logits, w, **arguments)

        values[q], found = of(logits), np.zeros(logits.shape)
        for cell in np.ndindex(logits.shape):
            step = np.zeros(logits.shape)
            step[cell] = 1e-5
            found[cell] = (of(logits + step) - of(logits - step)) / 2e-5
        slopes[q][valid] = found
    return values, slopes
