"""Examination estimated with a neural click model."""

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import log_expit

from debias.data import ClickLog, RankingData
from debias.data.scaling import scaled
from debias.propensity import networks

if TYPE_CHECKING:
    from debias.models import ClickModel

BATCH, STEPS = 128, 50  # sessions per step, steps per execution
FEW = 20  # steps of a pass, below which compiling a loop does not pay
PATIENCE = 2  # passes without a better one, after which training stops
JUDGED = 1024  # held-out sessions per batch
ITEMS = 20_000  # impressions for which clicks are predicted
LAYOUT = ("row", "column", "device")


def bias_tower(
    log: ClickLog,
    features: np.ndarray,
    model: "ClickModel | None" = None,
    epochs: int = 20,
    rate: float = 0.01,
    seed: int = 0,
) -> np.ndarray:
    """Log examination relative to rank 1, from any click model.

    Every shown item is scored at every rank in turn, alone in its list:

        theta_k = mean of P(click | item at k) / mean of P(click | item at 1).

    For the `Product` model with bias logits g, theta_k is exactly sigmoid(g_k) /
    sigmoid(g_1). The variance over refits of the towers is unknown, so there is no
    interval.

    Args:
        log: The click log. Items are scored at the most frequent row and column of each
            rank, and at the most frequent device.
        features: (items, F) features in the form that `model` expects.
        model: A click model; it is fitted here if it has no weights yet. None uses a
            `Product` model with a tower of 32 units and a table of positions, on
            standardised features. This default needs neither Keras nor TensorFlow.
        epochs: Largest number of passes; a tenth of the sessions is held out for early
            stopping.
        rate: Learning rate of Adam.
        seed: Random seed of the default model, the order of sessions, and the held-out
            sessions.

    Returns:
        (K,) log examination, which is 0 at rank 1 and nan at ranks without items.

    Raises:
        ValueError: `features` do not cover the items of the log.

    >>> from debias.layers import BiasTower
    >>> from debias.models import PositionOnly
    >>> log = ClickLog([0, 0], [[0, 1], [1, 0]], [[1, 0], [0, 0]])
    >>> model = PositionOnly(BiasTower({"position": 2}, init_std=0))
    >>> bias_tower(log, np.zeros((2, 3), "float32"), model, epochs=1, rate=0.0).tolist()
    [0.0, 0.0]
    """
    features = np.asarray(features, np.float32)
    log.check(len(features))
    if model is None:
        return _product(log, features, epochs, rate, seed)
    import keras

    if not model.built:
        _fit(model, log, features, epochs, rate, seed)
    shown = log.item[log.mask]
    if len(shown) > ITEMS:
        shown = np.random.default_rng(seed).choice(shown, ITEMS, replace=False)
    item, count = np.unique(shown, return_counts=True)
    x = keras.ops.convert_to_tensor(features[item])
    theta = np.full(log.list_size, np.nan)
    for k in np.flatnonzero(log.mask.any(axis=0)):
        logits = model.logits_at(x, _place(log, int(k)))
        p = keras.ops.convert_to_numpy(keras.ops.sigmoid(logits))
        theta[k] = np.average(p, weights=count)
    return np.log(theta) - np.log(theta[0])


def _product(
    log: ClickLog, features: np.ndarray, epochs: int, rate: float, seed: int
) -> np.ndarray:
    """Log examination relative to rank 1 from `networks.product`; (K,)."""
    rng = np.random.default_rng(seed)
    held, rest = log.split((0.1, 0.9), rng)
    weights = networks.fitted(
        networks.product,
        networks.product_weights(features.shape[1], log.list_size, rng),
        scaled(features),
        rest if len(held) else log,
        held,
        batch=BATCH,
        epochs=epochs,
        rate=rate,
        patience=PATIENCE,
        rng=rng,
    )
    theta = log_expit(weights["place"].astype(float))
    return np.where(log.mask.any(axis=0), theta - theta[0], np.nan)


def _fit(
    model: "ClickModel",
    log: ClickLog,
    features: np.ndarray,
    epochs: int,
    rate: float,
    seed: int,
) -> None:
    import keras

    from debias.models.batches import batches, share

    data = RankingData(features, None, np.array([0, len(features)]))
    share(data)
    held, rest = log.split((0.1, 0.9), np.random.default_rng(seed))
    stop = keras.callbacks.EarlyStopping(patience=PATIENCE, restore_best_weights=True)
    steps = -(-(len(rest) or len(log)) // BATCH)
    together = min(STEPS, steps) if steps > FEW else 1
    model.compile(keras.optimizers.Adam(rate), steps_per_execution=together)
    model.fit(
        batches(rest if len(held) else log, data, BATCH, seed=seed),
        validation_data=batches(held, data, JUDGED, shuffle=False)
        if len(held)
        else None,
        epochs=epochs,
        callbacks=[stop] if len(held) else None,
        verbose=0,
    )


def _place(log: ClickLog, k: int) -> dict[str, int]:
    """The most frequent layout values of items in column k of the log."""
    place = {"position": k + 1}
    shown = {n: v for n in LAYOUT if (v := getattr(log, n)) is not None}
    for name, values in {**shown, **(log.presentation or {})}.items():
        if values.any():
            own = values if values.ndim == 1 else values[log.mask[:, k], k]
            place[name] = int(np.bincount(own).argmax())
    return place
