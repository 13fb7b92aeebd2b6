"""Two small neural click models in NumPy, for the diagnosis of logs.

`product` is the model of `debias.models.Product`, and `attentive` is the model of
`debias.models.XPA`. Each model has one hidden layer and a table of ranks. Fitting takes
a few seconds. Loading TensorFlow alone would take as long, and would need half a
gigabyte of memory.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import expit

from debias.data import ClickLog

HIDDEN, EMBEDDED = 32, 8  # units of the tower, and dimension of its embedding
FIRST, SECOND, NEAR = 0.9, 0.999, 1e-7  # decay of the moments of Adam, and its epsilon
NEVER = -1e9  # a logit whose softmax share is exactly 0
TINY = np.float32(1e-12)
JUDGED = 1024  # held-out sessions per batch
HEARD = ("relevance", "places")
Weights = dict[str, np.ndarray]


class Lists(NamedTuple):
    """Features (N, F) of the shown items; masks (S, L) of shown items and of clicks."""

    x: np.ndarray
    shown: np.ndarray
    click: np.ndarray

    @staticmethod
    def of(
        log: ClickLog, features: np.ndarray, rows: np.ndarray | slice = slice(None)
    ) -> "Lists":
        """The lists of the sessions `rows` of a log, with their features."""
        item = log.item[rows]
        shown = item >= 0
        return Lists(features[item[shown]], shown, log.click[rows].astype(np.float32))

    def grid(self, value: np.ndarray) -> np.ndarray:
        """(S, L) values of the shown items (N,), 0 at padding."""
        out = np.zeros(self.shown.shape, value.dtype)
        out[self.shown] = value
        return out


# Log-likelihood (S,) of the clicks of each session, and the gradient of their mean.
Network = Callable[[Weights, Lists], tuple[np.ndarray, Weights]]


def product_weights(width: int, ranks: int, rng: np.random.Generator) -> Weights:
    """Initial weights of `product`, for features (N, width)."""
    place = rng.normal(1.0, 0.05, ranks)
    return {**_tower_weights(width, 1, rng), "place": place.astype(np.float32)}


def product(weights: Weights, lists: Lists) -> tuple[np.ndarray, Weights]:
    """P(click at rank k on x) = sigmoid(r(x)) sigmoid(place_k).

    >>> weights = {"kernel": np.zeros((1, 2)), "bias": np.zeros(2), "out": np.zeros((2,
    ...     1)), "out_bias": np.zeros(1), "place": np.zeros(1)}
    >>> shown = np.ones((1, 1), bool)
    >>> found, slope = product(weights, Lists(np.ones((1, 1)), shown, shown))
    >>> np.exp(found).round(6).tolist(), slope["place"].tolist()
    ([0.25], [0.5])
    """
    hidden, out = _tower(weights, lists.x)
    rank = np.nonzero(lists.shown)[1]
    liked, seen = expit(out[:, 0]), expit(weights["place"])[rank]
    disliked, unseen = expit(-out[:, 0]), expit(-weights["place"])[rank]
    p = np.maximum(liked * seen, TINY)
    rest = np.maximum(disliked + liked * unseen, TINY)  # 1 - p without cancellation
    click = lists.click[lists.shown]
    found = lists.grid(np.where(click, np.log(p), np.log(rest)))
    pull = np.where(click, 1, -p / rest) / np.float32(len(lists.shown))
    place = np.bincount(rank, unseen * pull, minlength=lists.shown.shape[1])
    back = (disliked * pull)[:, None]
    slope = _tower_slope(weights, lists.x, hidden, back) | {"place": place}
    return found.sum(axis=1), slope


def attentive_weights(
    width: int, ranks: int, rng: np.random.Generator, heard: Sequence[str] = HEARD
) -> Weights:
    """Initial weights of `attentive`, for features (N, width).

    Args:
        heard: Properties of the other items that attention reads: "relevance",
            "places", or both.
    """
    size = EMBEDDED
    weights = _tower_weights(width, size, rng)
    weights["places"] = rng.normal(0, 0.5, (ranks, size)).astype(np.float32)
    weights["own_relevance"] = _glorot(size, 1, rng)[:, 0]
    weights["intercept"] = np.zeros(1, np.float32)
    weights["own_place"] = _glorot(size, 1, rng)[:, 0]
    for name in heard:
        for part in ("query", "key"):
            weights[f"{name}_{part}"] = _glorot(size, size, rng)
            weights[f"{name}_{part}_bias"] = np.zeros(size, np.float32)
        weights[f"{name}_value"] = _glorot(size, 1, rng)[:, 0]
    return weights


def attentive(weights: Weights, lists: Lists) -> tuple[np.ndarray, Weights]:
    """Attention between the ranks of a list; see `debias.models.XPA`.

    With the embedding h of an item and the embedding z of its rank,

        logit_i = w1 . h_i + w2 . z_i + sum_j A_ij v . h_j + sum_j A'_ij v' . z_j,

    where the attention weights A and A' depend only on the two ranks and on which ranks
    hold an item.
    """
    hidden, h = _tower(weights, lists.x)
    z = weights["places"]
    values = {
        name: lists.grid(h @ weights["relevance_value"])
        if name == "relevance"
        else lists.shown * (z @ weights["places_value"])
        for name in HEARD
        if f"{name}_value" in weights
    }
    own = lists.grid(h @ weights["own_relevance"] + weights["intercept"])
    logit = own + z @ weights["own_place"]
    attention = {name: _attention(weights, name, lists.shown) for name in values}
    for name, value in values.items():
        logit = logit + np.einsum("sij,sj->si", attention[name], value)
    softplus = np.logaddexp(np.float32(0), logit)
    found = ((lists.click * logit - softplus) * lists.shown).sum(axis=1)

    pull = (lists.click - expit(logit)) * lists.shown / np.float32(len(logit))
    at = pull[lists.shown]
    rank = pull.sum(axis=0)
    slope = {
        "own_relevance": h.T @ at,
        "intercept": at.sum(keepdims=True),
        "own_place": z.T @ rank,
    }
    back = at[:, None] * weights["own_relevance"]
    places = rank[:, None] * weights["own_place"]
    for name, value in values.items():
        moved = np.einsum("sij,si->sj", attention[name], pull) * lists.shown
        kernel = weights[f"{name}_value"]
        if name == "relevance":
            slope["relevance_value"] = h.T @ moved[lists.shown]
            back += moved[lists.shown][:, None] * kernel
        else:
            slope["places_value"] = z.T @ moved.sum(axis=0)
            places += moved.sum(axis=0)[:, None] * kernel
        more, reached = _attention_slope(weights, name, attention[name], pull, value)
        slope |= more
        places += reached
    slope |= _tower_slope(weights, lists.x, hidden, back) | {"places": places}
    return found, slope


def _attention(weights: Weights, name: str, shown: np.ndarray) -> np.ndarray:
    """(S, L, L) softmax over the other items of a list; rows sum to 1, or to 0."""
    query, key = (_projected(weights, f"{name}_{part}") for part in ("query", "key"))
    match = query @ key.T / np.float32(np.sqrt(query.shape[1]))
    heard = shown[:, None, :] & ~np.eye(len(match), dtype=bool)
    masked = np.where(heard, match, np.float32(NEVER))
    weight = np.exp(masked - masked.max(axis=2, keepdims=True)) * heard
    return weight / np.maximum(weight.sum(axis=2, keepdims=True), np.float32(1e-9))


def _attention_slope(
    weights: Weights,
    name: str,
    attention: np.ndarray,
    pull: np.ndarray,
    value: np.ndarray,
) -> tuple[Weights, np.ndarray]:
    """Gradients by the weights of queries and keys, and by the embeddings of ranks.

    Args:
        attention: (S, L, L) attention weights.
        pull: (S, L) gradient with respect to the logits.
        value: (S, L) values at the ranks, which attention averages.
    """
    z, scale = weights["places"], np.float32(np.sqrt(EMBEDDED))
    around = value[:, None, :] - (attention @ value[:, :, None])
    match = np.einsum("sij,si,sij->ij", attention, pull, around, optimize=True) / scale
    query, key = (_projected(weights, f"{name}_{part}") for part in ("query", "key"))
    slope: Weights = {}
    places = np.zeros_like(z)
    for part, back in (("query", match @ key), ("key", match.T @ query)):
        slope[f"{name}_{part}"] = z.T @ back
        slope[f"{name}_{part}_bias"] = back.sum(axis=0)
        places += back @ weights[f"{name}_{part}"].T
    return slope, places


def _projected(weights: Weights, name: str) -> np.ndarray:
    return weights["places"] @ weights[name] + weights[f"{name}_bias"]


def fitted(
    network: Network,
    weights: Weights,
    features: np.ndarray,
    train: ClickLog,
    held: ClickLog,
    *,
    batch: int,
    epochs: int,
    rate: float,
    patience: int,
    rng: np.random.Generator,
) -> Weights:
    """Trains by Adam; returns the weights that predict the sessions `held` best.

    Args:
        network, weights: The model and its initial weights.
        features: (items, F) scaled features.
        train, held: Sessions to train on, and held-out sessions. If `held` is empty,
            the last weights are returned.
        batch: Sessions per step.
        epochs: Largest number of passes.
        rate: Learning rate.
        patience: Number of passes without improvement, after which training stops.
        rng: Generator that draws the order of sessions.
    """
    sizes = np.cumsum([value.size for value in weights.values()])[:-1]
    flat = np.concatenate([value.ravel() for value in weights.values()])
    parts = zip(weights.items(), np.split(flat, sizes), strict=True)
    own = {name: part.reshape(value.shape) for (name, value), part in parts}  # views
    mean, square = np.zeros_like(flat), np.zeros_like(flat)
    best, kept, waited, steps = -np.inf, flat.copy(), 0, 0
    for _ in range(epochs):
        order = rng.permutation(len(train))
        for start in range(0, len(train), batch):
            lists = Lists.of(train, features, order[start : start + batch])
            slope = network(own, lists)[1]
            up = np.concatenate([np.ravel(slope[name]) for name in own])
            steps += 1
            mean += (1 - FIRST) * (up - mean)
            square += (1 - SECOND) * (up**2 - square)
            size = rate * np.sqrt(1 - SECOND**steps) / (1 - FIRST**steps)
            flat += np.float32(size) * mean / (np.sqrt(square) + np.float32(NEAR))
        if not len(held):
            continue
        found = log_likelihoods(network, own, features, held).mean()
        waited = 0 if found > best else waited + 1
        if found > best:
            best, kept = found, flat.copy()
        if waited >= patience:
            break
    if len(held):
        flat[:] = kept
    return own


def log_likelihoods(
    network: Network, weights: Weights, features: np.ndarray, log: ClickLog
) -> np.ndarray:
    """(S,) float64 log-likelihood of the clicks of each session, in nats."""
    parts = (slice(start, start + JUDGED) for start in range(0, len(log), JUDGED))
    found = [network(weights, Lists.of(log, features, part))[0] for part in parts]
    return np.concatenate(found).astype(float)


def _tower_weights(width: int, out: int, rng: np.random.Generator) -> Weights:
    return {
        "kernel": _glorot(width, HIDDEN, rng),
        "bias": np.zeros(HIDDEN, np.float32),
        "out": _glorot(HIDDEN, out, rng),
        "out_bias": np.zeros(out, np.float32),
    }


def _glorot(rows: int, columns: int, rng: np.random.Generator) -> np.ndarray:
    """(rows, columns) uniform initial weights of Glorot and Bengio."""
    limit = np.sqrt(6 / (rows + columns))
    return rng.uniform(-limit, limit, (rows, columns)).astype(np.float32)


def _tower(weights: Weights, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hidden units (N, H) and outputs (N, O)."""
    hidden = np.maximum(x @ weights["kernel"] + weights["bias"], 0)
    return hidden, hidden @ weights["out"] + weights["out_bias"]


def _tower_slope(
    weights: Weights, x: np.ndarray, hidden: np.ndarray, back: np.ndarray
) -> Weights:
    """The gradient by the tower's weights, given the gradient by its outputs (N, O)."""
    inner = (back @ weights["out"].T) * (hidden > 0)
    return {
        "kernel": x.T @ inner,
        "bias": inner.sum(axis=0),
        "out": hidden.T @ back,
        "out_bias": back.sum(axis=0),
    }
