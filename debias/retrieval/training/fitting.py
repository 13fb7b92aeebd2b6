"""Passes over interactions: the loop that commands, learners and Python users share."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from debias.engine.optimizers import RowWiseAdam
from debias.retrieval.data.interactions import Interactions
from debias.retrieval.models.two_tower import RetrievalModel
from debias.retrieval.training.batches import Batches
from debias.retrieval.training.evaluation import history_length

EPOCHS, BATCH_SIZE, LEARNING_RATE = 3, 512, 0.003
DENSE_ROWS = 1 << 15  # tables up to this size are stepped whole
AVERAGING = 3.0  # the average spans, about, the last quarter of all steps
XLA_STEPS = 100  # fewer do not pay for compiling


def optimizer_of(rate: float = LEARNING_RATE) -> RowWiseAdam:
    """The optimiser of the recipe: Adam whose averaged weights are kept at the end."""
    return RowWiseAdam(rate, dense_rows=DENSE_ROWS, averaging=AVERAGING)


def xla_pays(model: RetrievalModel, steps: int) -> bool:
    """Tells whether so many steps are faster as one XLA program.

    Not where a table is stepped row by row, which XLA would do densely, or where
    dropout draws: on a CPU that is ten times slower under XLA.
    """
    sizes = [weight.shape[0] for weight in model.trainable_variables if weight.shape]
    drawn = any(
        isinstance(layer, keras.layers.Dropout | keras.layers.MultiHeadAttention)
        and getattr(layer, "rate", getattr(layer, "_dropout", 0))
        for layer in model._flatten_layers()
    )
    tensorflow = keras.backend.backend() == "tensorflow"
    small = max(sizes, default=0) <= DENSE_ROWS
    return steps >= XLA_STEPS and tensorflow and small and not drawn


class Diverged(ValueError):
    """A loss is NaN or infinite."""


def fit(
    model: RetrievalModel,
    log: Interactions | Batches,
    *,
    epochs: int = EPOCHS,
    batch_size: int = BATCH_SIZE,
    optimizer: Any = None,
    learned: np.ndarray | None = None,
    seed: int | Sequence[int] = 0,
    repeat: str = "exclude",
    progress: Callable[[int], None] = lambda events: None,
) -> list[float]:
    """Trains a retrieval model by in-batch softmax with logQ; changes it in place.

    The weights that the model has in the end are averages over, about, the last quarter
    of all steps (see `debias.engine.optimizers.RowWiseAdam`). How many passes, and
    which tower, `debias.retrieval.select` finds out.

    Compile the model yourself for another loss or optimiser. Keras's own `model.fit`
    with `Batches` works as well, with any callback.

    Args:
        model: Built for the tables of `log`.
        log: What users took; or `Batches` of it, with candidates and negatives as they
            say, which also have the batch size, the events to learn from and the seed.
        epochs: Passes over the events, each in an order drawn anew.
        batch_size: Events a step.
        optimizer: The optimiser; None: that of the compiled model, or `optimizer_of()`.
        learned: (E,) bool, the events to learn from; the others only tell what users
            took before. None: all.
        seed: Determines the order of events; one or more non-negative integers.
        repeat: The policy of repeats; "exclude": what a user took is no negative of
            its events. With "model", `debias.retrieval.training.repeating.fit_repeat`
            is to follow.
        progress: Called after each step with its number of events.

    Returns:
        The mean loss of each pass.

    Raises:
        Diverged: A loss is NaN or infinite. The model is then of no use.
        ValueError: A number is out of its range.

    >>> from debias.retrieval.data.interactions import from_columns
    >>> from debias.retrieval.models import fm_tower
    >>> log = from_columns(["u", "v", "u"], ["i", "j", "j"], [1, 2, 3])
    >>> model = fm_tower(log.users.schema, log.items.schema, 4, length=2, seed=0)
    >>> len(fit(model, log, epochs=2, batch_size=3))
    2
    """
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1, got {epochs}")
    if isinstance(log, Batches):
        batches = log
    else:
        length = history_length(model)
        batches = Batches(
            log,
            batch_size,
            exclude_known=repeat == "exclude",
            history=length,
            learned=learned,
            seed=seed,
        )
    if optimizer is None:
        optimizer = model.optimizer if model.compiled else optimizer_of()
    compiled = model.optimizer if model.compiled else None
    # In half precision, one that scales the loss stands around it.
    if optimizer not in (compiled, getattr(compiled, "inner_optimizer", None)):
        model.build(None)
        steps = epochs * len(batches)
        model.compile(optimizer, jit_compile=xla_pays(model, steps))
    watch = _Watch(progress, batches.batch_size)
    done = model.fit(batches, epochs=epochs, verbose=0, callbacks=[watch])
    return [float(loss) for loss in done.history["loss"]]


class _Watch(keras.callbacks.Callback):
    """Reports events as they are learned from, and stops at a loss that is no number.

    Keras's running mean of the loss is NaN from the first NaN on.
    """

    def __init__(self, progress: Callable[[int], None], events: int):
        super().__init__()
        self.progress, self.events, self.steps = progress, events, 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        loss = float((logs or {}).get("loss", 0.0))
        self.steps += 1
        if not np.isfinite(loss):
            rate = float(self.model.optimizer.learning_rate)
            raise Diverged(
                f"training diverged: loss {loss} at step {self.steps}, learning rate "
                f"{rate:g}; try a lower rate, such as {rate / 10:g}, a higher "
                "temperature, or look for features of extreme size. Nothing was saved"
            )
        self.progress(self.events)
