"""Training of a retrieval model on interactions."""

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
DENSE_ROWS = 1 << 15  # tables up to this size are updated as a whole
AVERAGING = 3.0  # the average covers about the last quarter of all steps
XLA_STEPS = 100  # with fewer steps, compiling does not pay


def optimizer_of() -> RowWiseAdam:
    """The default optimiser: row-wise Adam with averaged weights."""
    return RowWiseAdam(LEARNING_RATE, dense_rows=DENSE_ROWS, averaging=AVERAGING)


def xla_pays(model: RetrievalModel, steps: int) -> bool:
    """Whether training with this number of steps is faster with XLA.

    XLA makes training slower if an embedding table is updated by rows, because XLA
    would update all rows. XLA also makes training with dropout slower: on a CPU,
    dropout takes ten times as long.
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
    """Trains a retrieval model in place, by in-batch softmax with logQ correction.

    The final weights are averages over roughly the last quarter of all steps (see
    `debias.engine.optimizers.RowWiseAdam`). `debias.retrieval.select` chooses the tower
    and the number of passes.

    For another loss or optimiser, compile the model yourself. Keras's own `model.fit`
    with `Batches` works as well, with any callback.

    Args:
        model: A retrieval model for the tables of `log`.
        log: The events, or `Batches` of the events. `Batches` define the candidates,
            negatives, batch size, training events and seed.
        epochs: Number of passes over the events, each in a new random order.
        batch_size: Number of events per step.
        optimizer: The optimiser. If None, it is the optimiser of the compiled model or,
            for a model that is not compiled, `optimizer_of()`.
        learned: (E,) bool, the training events. The remaining events are used only as
            history. If None, all events are training events.
        seed: Random seed of the order of events, one or several non-negative integers.
        repeat: The policy of repeats. With "exclude", items that a user took are not
            negatives of the user's events. With "model", call
            `debias.retrieval.training.repeating.fit_repeat` after training.
        progress: Function that is called after each step with the number of events in
            the step.

    Returns:
        The mean loss of each pass.

    Raises:
        Diverged: A loss is NaN or infinite. After this error, the model is unusable.
        ValueError: An argument is out of range.

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
    # In half precision, an optimiser that scales the loss wraps it.
    if optimizer not in (compiled, getattr(compiled, "inner_optimizer", None)):
        model.build(None)
        steps = epochs * len(batches)
        model.compile(optimizer, jit_compile=xla_pays(model, steps))
    watch = _Watch(progress, batches.batch_size)
    done = model.fit(batches, epochs=epochs, verbose=0, callbacks=[watch])
    return [float(loss) for loss in done.history["loss"]]


class _Watch(keras.callbacks.Callback):
    """Reports progress in events, and stops training if the loss is not finite.

    If the loss is NaN in one step, Keras's running mean of the loss stays NaN.
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
