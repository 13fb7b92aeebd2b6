"""Examination from a neural click model."""

import keras
import numpy as np

from debias.data import ClickLog, RankingData
from debias.layers import BiasTower, Standardize, Tower
from debias.models import Product
from debias.models.batches import applied, batches, share
from debias.models.click_model import ClickModel

BATCH, STEPS = 128, 50  # sessions per step, steps per execution
FEW = 20  # steps of a pass, below which compiling a loop does not pay
JUDGED = 1024  # held-out sessions per batch
ITEMS = 20_000  # impressions for which clicks are predicted
LAYOUT = ("row", "column", "device")


def bias_tower(
    log: ClickLog,
    features: np.ndarray,
    model: ClickModel | None = None,
    epochs: int = 20,
    rate: float = 0.01,
    seed: int = 0,
) -> np.ndarray:
    """Log examination relative to rank 1, from any click model.

    Every shown item is scored at every rank in turn, alone in its list:

        theta_k = mean of P(click | item at k) / mean of P(click | item at 1),

    For the `Product` model with bias logits g, theta_k is exactly sigmoid(g_k) /
    sigmoid(g_1). The variance over refits of the towers is unknown, so there is no
    interval.

    Args:
        log: The click log. Each rank is scored at its most frequent row and column, and
            at the most frequent device.
        features: (items, F) features as the model reads them.
        model: A click model. A model without weights is fitted here; None: a `Product`
            model of a tower with 32 units and a table of positions, on standardised
            features.
        epochs: Largest number of passes; a tenth of the sessions is held out for early
            stopping.
        rate: Learning rate of Adam.
        seed: Random seed of the default model, the order of sessions, and the held-out
            sessions.

    Returns:
        (K,), 0 at rank 1, nan at ranks without items.

    Raises:
        ValueError: `features` do not cover the items of the log.

    >>> from debias.models import PositionOnly
    >>> log = ClickLog([0, 0], [[0, 1], [1, 0]], [[1, 0], [0, 0]])
    >>> model = PositionOnly(BiasTower({"position": 2}, init_std=0))
    >>> bias_tower(log, np.zeros((2, 3), "float32"), model, epochs=1, rate=0.0).tolist()
    [0.0, 0.0]
    """
    features = np.asarray(features, np.float32)
    log.check(len(features))
    if model is None:
        features = applied(Standardize().adapt(features), features)
        places = BiasTower({"position": log.list_size}, center=1.0, seed=seed)
        model = Product(Tower((32,), seed=seed), places)
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


def _fit(
    model: ClickModel,
    log: ClickLog,
    features: np.ndarray,
    epochs: int,
    rate: float,
    seed: int,
) -> None:
    data = RankingData(features, None, np.array([0, len(features)]))
    share(data)
    held, rest = log.split((0.1, 0.9), np.random.default_rng(seed))
    stop = keras.callbacks.EarlyStopping(patience=2, restore_best_weights=True)
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
