"""Training batches from a click log; features stay in one table and are gathered.

The log holds item numbers. The pipeline draws a batch of sessions, from the log in
memory or from shards on disk. Then it gathers the feature rows of the items of these
sessions. So a million sessions need memory only for item numbers, and no feature is
stored twice.
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
        log: Sessions whose `item` indexes the items of `data`; or the Parquet file or
            folder of such a log, which is then streamed and never loaded, see
            `debias.data.shuffled_batches`.
        data: The items' features, shared by all batches.
        batch_size: Sessions per batch; the last batch may be smaller.
        shuffle: Whether to draw a new order of all sessions for every epoch. A streamed
            log of up to a million sessions is shuffled uniformly. A longer streamed log
            is shuffled by row groups, and within windows of a million sessions.
        seed: Random seed of the order of sessions: the same seed gives the same
            batches.
        preprocess: Layer applied once to the feature table, such as `Standardize`. Give
            the same layer to `ranker`.
        weight: (S, L) loss weight of each cell of `log`, such as the `weight` of
            `debias.propensity.policy_weights`. Values at padding are ignored. Only for
            a log in memory.
        packed: Whether the towers encode each distinct item of a batch once, and
            padding never. With dropout, all places that show an item share one mask.
            The number of rows varies with the number of distinct items, so packed
            batches do not suit XLA or JAX, which compile for each shape.

    Returns:
        Dataset of pairs: a dict and the clicks, (batch, list_size) float32, -1 at
        padding. The dict has `features` (batch, list_size, F) float32, `position`
        (batch, list_size) int32 (1 = top, 0 = padding), `mask` (batch, list_size) bool,
        and `weight` (batch, list_size) float32 if given. The dict also has the log's
        `row`, `column`, `device`, `context`, presentation columns and targets, by name
        and with as many axes as in the log. In a packed batch, `features` are (U, F),
        the rows of the U distinct items of the batch. `cell` (batch, list_size) int32
        then gives the row of each cell; at padding, it is arbitrary.

    Raises:
        ValueError: The log is empty or names an item that `data` lacks; `weight` does
            not have one finite number of at least 0 for each cell, or is given for a
            streamed log. If a streamed log names an unknown item, TensorFlow raises its
            own error when it reads the item.

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
    """A log in memory, in its own order; `batches` explains the arguments."""
    if log.sessions == 0:
        raise ValueError("log has no sessions, so there is no batch")
    columns = _cells(log.check(data.items))
    if weight is not None:
        columns["weight"] = _checked(weight, log)
    kept = {name: tf.constant(column) for name, column in columns.items()}
    table, order = _table(data, preprocess), tf.range(log.sessions)
    return Epoch(kept, table, order, packed, log.list_size, batch_size)


def log_batches(whole: "Epoch", shuffle: bool = True, seed: int = 0) -> "LogBatches":
    """Batches of a log in memory; on TensorFlow, a compiled loop can run them."""

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
    """A random number per epoch, which seeds the order of its sessions."""
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
    """A log in memory in the order of an epoch; a training step makes its own batch."""

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
        """The batch with this number in the epoch, from 0."""
        first = place * self.batch_size
        return self.batch_of(self.order[first : first + self.batch_size])


class LogBatches(tf.data.Dataset):
    """Batches of a log in memory, which a compiled loop can make by itself.

    For Keras, `pipeline` makes the same batches in parallel to the training steps. To
    build a pipeline takes longer than to train on a small log, so it is built when it
    is first used.
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
        """Implements `debias.engine.steps.MakesExecutions`, in the order of Keras."""
        steps = int(self.cardinality())
        while True:
            epoch = self._epoch(next(iter(self._draws)))
            for first in range(0, steps, size):
                if first + size >= steps:
                    # Keras ends an epoch with an extra iterator that it does not use.
                    # This one keeps the orders of later epochs the same.
                    iter(self._draws)
                count = tf.constant(min(size, steps - first))
                yield epoch, count, tf.constant(first)


_TABLES: WeakKeyDictionary[RankingData, tf.Tensor] = WeakKeyDictionary()


def shareable(shape: tuple[int, ...]) -> np.ndarray:
    """An uninitialised float32 array whose memory a tensor can share: see `share`."""
    size = int(np.prod(shape)) * 4
    raw = np.empty(size + ALIGNED, np.uint8)
    start = -raw.ctypes.data % ALIGNED
    return raw[start : start + size].view(np.float32).reshape(shape)


def share(data: RankingData) -> None:
    """Lets all batches of this data read its features in place, without a copy.

    Args:
        data: Ranking data whose features do not change. On a GPU, or if features are
            not `shareable`, they are copied.
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
    """Applies a layer to features (items, F) in pieces; None leaves them unchanged.

    Args:
        layer: The layer.
        features: Raw features.
        recode: Function applied to each piece before the layer.

    Returns:
        An array that is `shareable`.
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


def _checked(weight: np.ndarray, log: ClickLog) -> np.ndarray:
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
