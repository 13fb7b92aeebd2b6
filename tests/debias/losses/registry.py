"""Every loss of the registry: arguments, batches, and an oracle of its definition."""

from math import exp, log, log2

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
