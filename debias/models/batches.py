"""Training batches from a click log, with features gathered from one table.

The log holds item numbers instead of features. The pipeline draws a batch of sessions,
from the log in memory or from shards on disk. Then the pipeline gathers the feature
rows of the items in these sessions. So a session takes memory only for item numbers,
and the features of an item are stored once.
"""

from collections.abc import Callable, Generator, Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import keras
import numpy as np
import tensorflow as tf

from debias.data import (
    ClickLog,
    RankingData,
    count_sessions,
    read_batches,
    shuffled_batches,
)
from debias.data.stream import even_pieces
from debias.engine.steps import Execution

LAYOUT = ("row", "column", "device", "context")
PIECE = 1 << 15  # items preprocessed, or sessions read from disk, at once
ALIGNED = 64  # alignment in bytes of a tensor's memory
SCALED = 1 << 12  # items that a layer processes at once
PACKS = keras.backend.backend() == "tensorflow"  # JAX compiles for each number of items

Cells = dict[str, tf.Tensor]  # of a batch: item, click with -1 at padding, layout


def batches(
    log: ClickLog | str | Path,
    data: RankingData,
    batch_size: int = 512,
    shuffle: bool = True,
    seed: int = 0,
    preprocess: keras.layers.Layer | None = None,
    weight: np.ndarray | None = None,
    packed: bool = False,
) -> tf.data.Dataset:
    """Batches `(batch, clicks)` of a log, for `fit`, `evaluate` and `predict`.

    Args:
        log: A log, or its path, which is a Parquet file or a folder. The `item` of the
            log indexes the items of `data`. A log on disk is streamed and never loaded
            as a whole; see `debias.data.shuffled_batches`.
        data: Ranking data with the features of the items, which all batches share.
        batch_size: Sessions per batch; the last batch may be smaller.
        shuffle: Whether to draw a new order of all sessions for every epoch. A streamed
            log of up to a million sessions is shuffled uniformly. For a longer streamed
            log, row groups are shuffled first, and then the sessions in each window of
            a million.
        seed: Random seed of the order of sessions: the same seed gives the same
            batches.
        preprocess: Layer applied once to the feature table, such as `Standardize`. Pass
            the same layer to `ranker`.
        weight: (S, L) loss weight of each cell of `log`, such as the `weight` of
            `debias.propensity.policy_weights`. Values at padding are ignored. A
            streamed log does not take weights.
        packed: Whether the towers encode each distinct item of a batch once, and
            padding never. If a tower has dropout, all occurrences of an item in the
            batch share one dropout mask. The number of rows varies between batches, so
            packed batches do not suit XLA or JAX, which compile again for each shape.

    Returns:
        Dataset of pairs `(batch, clicks)`. The clicks are (batch, list_size) float32,
        with -1 at padding. The batch is a dict. `features` are (batch, list_size, F)
        float32, and `mask` is (batch, list_size) bool. `position` is (batch, list_size)
        int32, from 1 at the top, with 0 at padding. `weight` (batch, list_size) float32
        is present only if the argument `weight` was passed. The batch also has the
        columns `row`, `column`, `device` and `context`, the presentation columns and
        the targets, if the log has them. These columns keep their names, and their
        first axis is the batch. In a packed batch, `features` (U, F) are the rows of
        the U distinct items. The column `cell` (batch, list_size) int32 then gives the
        row of `features` for each cell, and is arbitrary at padding.

    Raises:
        ValueError: The log is empty, or has an item that `data` lacks. For an unknown
            item in a streamed log, TensorFlow raises its own error while reading.
        ValueError: The weight of an item is negative or not finite, `weight` differs in
            shape from `log.item`, or the log is streamed.

    >>> data = RankingData(np.zeros((3, 2), "float32"), None, np.array([0, 3]))
    >>> log = ClickLog(query=[0], item=[[2, 0, -1]], click=[[True, False, False]])
    >>> batch, clicks = next(iter(batches(log, data)))
    >>> batch["position"].numpy().tolist(), clicks.numpy().tolist()
    ([[1, 2, 0]], [[1.0, 0.0, -1.0]])
    >>> batch, _ = next(iter(batches(log, data, packed=True)))
    >>> tuple(batch["features"].shape), batch["cell"].numpy().tolist()
    ((2, 2), [[0, 1, 1]])
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if isinstance(log, ClickLog):
        whole = epoch_of(log, data, batch_size, preprocess, weight, packed)
        made = log_batches(whole, shuffle, seed)
        # On a GPU, the features would be copied to the device for each step.
        gpu = tf.config.list_physical_devices("GPU")
        return made if PACKS and not gpu else made.pipeline
    if weight is not None:
        raise ValueError(
            f"weight needs a log in memory, got the path {log}: open it with "
            "debias.ClickLog.open, or leave out weight"
        )
    cells = _streamed(log, data.items, shuffle, _draws(seed))
    make = partial(_batch, table=_table(data, preprocess), packed=packed)
    steps = -(-count_sessions(log) // batch_size)
    return _pipeline(cells, make, batch_size, steps)


def epoch_of(
    log: ClickLog,
    data: RankingData,
    batch_size: int,
    preprocess: keras.layers.Layer | None = None,
    weight: np.ndarray | None = None,
    packed: bool = False,
) -> "Epoch":
    """The `Epoch` of a log in memory, with the sessions in the order of the log.

    The arguments are those of `batches`.
    """
    if log.sessions == 0:
        raise ValueError("log has no sessions, so there is no batch")
    columns = _cells(log.check(data.items))
    if weight is not None:
        columns["weight"] = checked_weight(weight, log)
    kept = {name: tf.constant(column) for name, column in columns.items()}
    table, order = _table(data, preprocess), tf.range(log.sessions)
    return Epoch(kept, table, order, packed, log.list_size, batch_size)


def log_batches(whole: "Epoch", shuffle: bool = True, seed: int = 0) -> "LogBatches":
    """Batches of a log in memory, which a compiled loop on TensorFlow can build."""

    def order(draw: tf.Tensor) -> tf.Tensor:
        if not shuffle:
            return whole.order
        return tf.random.experimental.stateless_shuffle(whole.order, [draw, 0])

    def pipeline() -> tf.data.Dataset:
        return _pipeline(draws.map(order), whole.batch_of, whole.batch_size, steps)

    draws, steps = _draws(seed), -(-len(whole.order) // whole.batch_size)
    return LogBatches(
        pipeline, draws, lambda draw: whole._replace(order=order(draw)), steps
    )


def _draws(seed: int) -> tf.data.Dataset:
    """A random number per epoch, which seeds the order of the sessions."""
    return tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True).take(1)


def _pipeline(
    epoch: tf.data.Dataset, make: Callable[[Any], Any], batch_size: int, steps: int
) -> tf.data.Dataset:
    """A pipeline that turns an epoch's sessions, or their numbers, into batches."""
    options = tf.data.Options()  # optimising and tuning would only cost time
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    return (
        epoch.rebatch(batch_size)
        .apply(tf.data.experimental.assert_cardinality(steps))
        .map(make, num_parallel_calls=1)
        .prefetch(2)
        .with_options(options)
    )


class Epoch(NamedTuple):
    """The log of an epoch, in memory and in order, from which steps build batches."""

    columns: Cells  # of all sessions
    table: tf.Tensor
    order: tf.Tensor
    packed: bool
    list_size: int  # lists of another length are traced separately
    batch_size: int

    def batch_of(self, sessions: tf.Tensor) -> tuple[Cells, tf.Tensor]:
        columns = self.columns.items()
        cells = {name: tf.gather(column, sessions) for name, column in columns}
        return _batch(cells, self.table, self.packed)

    def batch(self, place: tf.Tensor) -> tuple[Cells, tf.Tensor]:
        """The batch with the zero-based number `place` in the epoch."""
        first = place * self.batch_size
        return self.batch_of(self.order[first : first + self.batch_size])


class LogBatches(tf.data.Dataset):
    """Dataset of a log in memory, whose batches a compiled training loop can build.

    For Keras, `pipeline` builds the same batches in parallel with the training steps.
    Building the pipeline takes longer than training on a small log, so the pipeline is
    built at its first use.
    """

    def __init__(
        self,
        build: Callable[[], tf.data.Dataset],
        draws: tf.data.Dataset,
        epoch: Callable[[tf.Tensor], Epoch],
        steps: int,
    ):
        self._build, self._draws, self._epoch, self._steps = build, draws, epoch, steps

    @cached_property
    def pipeline(self) -> tf.data.Dataset:
        return self._build()

    def __getattr__(self, name: str) -> Any:
        # What TensorFlow's constructor sets is only read to iterate or transform.
        if "_variant_tensor_attr" in vars(self):
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        super().__init__(self.pipeline._variant_tensor)
        return getattr(self, name)

    def _inputs(self) -> list[tf.data.Dataset]:
        return [self.pipeline]

    @property
    def element_spec(self) -> Any:
        return self.pipeline.element_spec

    def cardinality(self) -> tf.Tensor:
        return tf.constant(self._steps, tf.int64)

    def executions(self, size: int) -> Generator[Execution]:
        """Implements `MakesExecutions`, with batches in the same order as in Keras."""
        steps = int(self.cardinality())
        while True:
            epoch = self._epoch(next(iter(self._draws)))
            for first in range(0, steps, size):
                if first + size >= steps:
                    # Keras ends an epoch with an extra iterator that it does not use.
                    # This extra iterator keeps the orders of later epochs the same.
                    iter(self._draws)
                count = tf.constant(min(size, steps - first))
                yield epoch, count, tf.constant(first)


_TABLES: WeakKeyDictionary[RankingData, tf.Tensor] = WeakKeyDictionary()


def shareable(shape: tuple[int, ...]) -> np.ndarray:
    """An uninitialised float32 array that `share` can use without a copy."""
    size = int(np.prod(shape)) * 4
    raw = np.empty(size + ALIGNED, np.uint8)
    start = -raw.ctypes.data % ALIGNED
    return raw[start : start + size].view(np.float32).reshape(shape)


def share(data: RankingData) -> None:
    """Lets all batches of `data` read the features in place, without a copy.

    Args:
        data: Ranking data whose features do not change. The features are still copied
            on a GPU, or if the array is not from `shareable`.
    """
    features = data.features  # NumPy exports only writable arrays
    aligned = features.flags.carray and features.ctypes.data % ALIGNED == 0
    if not features.size or not aligned:
        return
    if not tf.config.list_physical_devices("GPU"):
        # The tensor keeps the array alive.
        _TABLES[data] = tf.experimental.dlpack.from_dlpack(features.__dlpack__())


def _table(data: RankingData, preprocess: keras.layers.Layer | None) -> tf.Tensor:
    """The features of all items (items, F), preprocessed in pieces."""
    if preprocess is None:  # a single copy for training, validation and test
        if data not in _TABLES:
            _TABLES[data] = tf.constant(data.features)
        return _TABLES[data]
    pieces = (data.features[i : i + PIECE] for i in range(0, data.items, PIECE))
    return tf.concat([tf.convert_to_tensor(preprocess(p)) for p in pieces], 0)


def applied(
    layer: keras.layers.Layer | None,
    features: np.ndarray,
    recode: Callable[[np.ndarray], np.ndarray] | None = None,
) -> np.ndarray:
    """Applies a layer to features (items, F), a few thousand items at a time.

    Args:
        layer: The layer. None leaves the features unchanged.
        features: Raw features.
        recode: Function applied to raw features before the layer.

    Returns:
        The output of the layer, in an array from `shareable`.
    """
    if layer is None:
        return features
    starts = range(0, len(features), SCALED)
    change = recode or (lambda piece: piece)
    pieces = (
        np.asarray(layer(change(features[start : start + SCALED]))) for start in starts
    )
    first = next(pieces)
    out = shareable((len(features), *first.shape[1:]))
    out[: len(first)] = first
    for start, piece in zip(starts[1:], pieces, strict=True):
        out[start : start + len(piece)] = piece
    return out


def _batch(cells: Cells, table: tf.Tensor, packed: bool) -> tuple[Cells, tf.Tensor]:
    """Builds a batch, as `batches` describes it, from cells and the feature table."""
    item = cells["item"]
    mask = item >= 0
    row = tf.maximum(item, 0)
    found = {
        "position": tf.where(mask, tf.range(1, item.shape[1] + 1), 0),
        "mask": mask,
    }
    if packed:
        row, cell = tf.unique(tf.reshape(row, (-1,)))
        # Keras counts sessions by the column that is first by name.
        found["cell"] = tf.reshape(cell, tf.shape(item))
    found["features"] = tf.gather(table, row)
    for name in cells.keys() - {"item", "click"}:
        dtype = "float32" if cells[name].dtype.is_floating else "int32"
        found[name] = tf.cast(cells[name], dtype)
    return found, tf.cast(cells["click"], "float32")


def _cells(log: ClickLog) -> dict[str, np.ndarray]:
    """The columns of a log; clicks are int8 with -1 at padding, to gather once."""
    click = np.where(log.mask, log.click, -1).astype("int8")
    layout = {n: v for n, v in log.columns().items() if n in LAYOUT}
    layout |= {**(log.presentation or {}), **(log.targets or {})}
    return {"item": log.item, "click": click, **layout}


def checked_weight(weight: np.ndarray, log: ClickLog) -> np.ndarray:
    """The weights as float32, with 0 at padding."""
    weight = np.asarray(weight, "float32")
    if weight.shape != log.item.shape:
        raise ValueError(
            f"weight must have the shape of the log, {log.item.shape}, "
            f"got {weight.shape}"
        )
    wrong = log.mask & ~((weight >= 0) & np.isfinite(weight))
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise ValueError(
            f"weight must be finite, 0 or more, got {weight[row, column]} "
            f"at row {row}, column {column}"
        )
    return np.where(log.mask, weight, np.float32(0))


def _streamed(
    path: str | Path, items: int, shuffle: bool, draws: tf.data.Dataset
) -> tf.data.Dataset:
    """Reads the cells of a log on disk in pieces, through a Python generator."""
    first = next(read_batches(path, 1))
    columns = [name for name in LAYOUT if name in first.columns()]
    columns += [*(first.presentation or ()), *(first.targets or ())]
    signature = {
        name: tf.TensorSpec((None, *value.shape[1:]), value.dtype)
        for name, value in _cells(first).items()
    }

    def pieces(draw: np.ndarray) -> Iterator[dict[str, np.ndarray]]:
        if shuffle:
            rng = np.random.default_rng(int(draw))
            found = shuffled_batches(path, rng, PIECE, columns)
        else:
            found = even_pieces(read_batches(path, columns=columns), PIECE)
        for piece in found:
            yield _cells(piece.check(items))

    def epoch(draw: tf.Tensor) -> tf.data.Dataset:
        return tf.data.Dataset.from_generator(
            pieces, args=(draw,), output_signature=signature
        )

    return draws.flat_map(epoch)
