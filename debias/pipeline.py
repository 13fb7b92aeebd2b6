"""From a click log to training batches: features stay in one table, found by index.

The log holds item numbers. A step of the pipeline draws a batch of session numbers,
takes their rows of the log and then the rows of the feature table that those name, so
a million sessions cost the memory of their indices and no feature is stored twice.
"""

import keras
import numpy as np
import tensorflow as tf

from debias.data import ClickLog, RankingData

LAYOUT = ("row", "column", "device", "context")
PIECE = 1 << 15  # items preprocessed at once


def batches(
    log: ClickLog,
    data: RankingData,
    batch_size: int = 512,
    shuffle: bool = True,
    seed: int = 0,
    preprocess: keras.layers.Layer | None = None,
) -> tf.data.Dataset:
    """Batches `(batch, clicks)` of `log`, ready for `fit`, `evaluate` and `predict`.

    Args:
        log: Sessions whose `item` indexes the items of `data`.
        data: The items' features, shared by all batches.
        batch_size: Sessions a batch; the last may be smaller.
        shuffle: Draws a new order of all sessions for every epoch.
        seed: Names the orders: the same seed gives the same batches.
        preprocess: Layer that the feature table passes once, such as `Standardize`; the
            ranker that serves takes the same one.

    Returns:
        Dataset of a dict with `features` (batch, list_size, F) float32, `position`
        (batch, list_size) int32 (1 = top, 0 = padding), `mask` (batch, list_size) bool
        and the log's `row`, `column`, `device` and `context` where it has them; and of
        clicks (batch, list_size) float32, -1 at padding.

    Raises:
        ValueError: If the log is empty or names an item that `data` lacks.

    >>> data = RankingData(np.zeros((3, 2), "float32"), None, np.array([0, 3]))
    >>> log = ClickLog(query=[0], item=[[2, 0, -1]], click=[[True, False, False]])
    >>> batch, clicks = next(iter(batches(log, data)))
    >>> batch["position"].numpy().tolist(), clicks.numpy().tolist()
    ([[1, 2, 0]], [[1.0, 0.0, -1.0]])
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if log.sessions == 0:
        raise ValueError("log has no sessions, nothing to make a batch of")
    log.check(data.items)
    table = tf.constant(data.features)
    if preprocess is not None:
        pieces = (data.features[i : i + PIECE] for i in range(0, data.items, PIECE))
        table = tf.concat([tf.convert_to_tensor(preprocess(p)) for p in pieces], 0)
    # Clicks and padding share one small integer, so that a batch gathers it once.
    clicks = tf.constant(np.where(log.mask, log.click, -1).astype("int8"))
    item = tf.constant(log.item)
    places = np.arange(1, log.list_size + 1, dtype="int32")
    extra = {
        name: tf.constant(values)
        for name in LAYOUT
        if (values := getattr(log, name)) is not None
    }
    count = log.sessions

    def gather(rows: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        shown = tf.gather(item, rows)
        mask = shown >= 0
        batch = {
            "features": tf.gather(table, tf.maximum(shown, 0)),
            "position": tf.where(mask, places, 0),
            "mask": mask,
        }
        for name, values in extra.items():
            taken = tf.gather(values, rows)
            batch[name] = tf.cast(taken, "float32" if name == "context" else "int32")
        return batch, tf.cast(tf.gather(clicks, rows), "float32")

    def epoch(draw: tf.Tensor) -> tf.data.Dataset:
        order = tf.range(count)
        if shuffle:
            order = tf.random.experimental.stateless_shuffle(order, [draw, 0])
        return tf.data.Dataset.from_tensor_slices(order).batch(batch_size)

    steps = -(-count // batch_size)
    draws = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True).take(1)
    return (
        draws.flat_map(epoch)
        .apply(tf.data.experimental.assert_cardinality(steps))
        .map(gather, num_parallel_calls=1)
        .prefetch(2)
    )
