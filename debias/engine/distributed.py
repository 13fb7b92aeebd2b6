"""Distributed training: each process trains on its share of every global batch.

This module uses Keras on JAX. Parameters are replicated, and gradients are summed over
the processes. So a distributed step equals the step of a single process on the whole
batch. Add these lines to a script, and start the script once per process:

    from debias import distributed
    distribution = distributed.join()  # before anything else of Keras
    with distribution.scope():
        model = ...
        model.fit(distributed.share(batches))

`debias.training.fit` divides its batches among the processes automatically.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

HEARTBEAT = 30  # seconds without a sign of life after which a process counts as dead


def join(
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    heartbeat: int = HEARTBEAT,
) -> keras.distribution.DataParallel:
    """Waits for the other processes and returns a Keras distribution.

    `join` needs `KERAS_BACKEND=jax`. Call `join` before any array is created.

    Args:
        coordinator: HOST:PORT of process 0. The default is the environment variable
            DEBIAS_COORDINATOR.
        processes: Number of processes. The default is the environment variable
            DEBIAS_PROCESSES.
        process: Index of this process, from 0. The default is the environment variable
            DEBIAS_PROCESS.
        heartbeat: Seconds without a heartbeat after which a process counts as dead and
            the other processes end.

    Raises:
        ValueError: A value is missing, or Keras does not run on JAX.
    """
    if keras.backend.backend() != "jax":
        raise ValueError(
            "several processes need Keras on JAX, got "
            f"{keras.backend.backend()}: set KERAS_BACKEND=jax before it is imported"
        )
    where = coordinator or _environment("COORDINATOR", "HOST:PORT of process 0")
    count = int(processes or _environment("PROCESSES", "number of processes"))
    own = int(_environment("PROCESS", "index from 0") if process is None else process)
    if not 0 <= own < count:
        raise ValueError(f"process must be in 0..{count - 1}, got {own}")
    import jax

    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(where, count, own, heartbeat_timeout_seconds=heartbeat)
    return keras.distribution.DataParallel(auto_shard_dataset=False)


def _environment(name: str, what: str) -> str:
    found = os.environ.get(f"DEBIAS_{name}")
    if not found:
        raise ValueError(
            f"give {name.lower()} ({what}), or set the environment variable "
            f"DEBIAS_{name}"
        )
    return found


def me() -> tuple[int, int]:
    """Index of this process, and number of processes; (0, 1) outside a `scope`."""
    if keras.distribution.distribution() is None:
        return 0, 1
    import jax

    return jax.process_index(), jax.process_count()


def share(
    batches: Any, process: int | None = None, processes: int | None = None
) -> Any:
    """Dataset with this process's rows of each global batch, for `fit`.

    Process r of n processes takes the rows from r m / n to (r + 1) m / n of a batch of
    m rows. All processes take the same number of steps. In batches of sessions, each
    session gets a weight. If n does not divide m, the last session is repeated with
    weight 0, and the other weights are increased so that the mean weighted loss is
    unchanged.

    Args:
        batches: Dataset from `debias.batches`, or `Batches` of retrieval events, with
            the global batch size. All processes must pass equal datasets, so use the
            same seed in all processes.
        process, processes: Index r of this process, and number n of processes. The
            defaults are the values of the `scope`.

    Raises:
        ValueError: Batches are packed, or the number of processes does not divide the
            number of rows of a retrieval batch.

    >>> import tensorflow as tf
    >>> batch = tf.data.Dataset.from_tensors(({"x": [1, 2, 3]}, [0, 1, 0]))
    >>> for row in share(batch, 1, 2).as_numpy_iterator():
    ...     print(row[0]["x"].tolist(), row[2].round(2).tolist())
    [3, 3] [1.3300000429153442, 0.0]
    """
    own, count = me()
    own, count = own if process is None else process, processes or count
    retrieval = isinstance(batches, keras.utils.PyDataset)
    if retrieval:
        packed = getattr(batches, "packed", False)
    else:
        packed = "cell" in batches.element_spec[0]
    if packed:
        raise ValueError(
            "packed batches cannot be shared between processes, because their "
            "features are not rows of sessions or events: make them with packed=False"
        )
    if retrieval:
        return _Rows(batches, own, count)
    import tensorflow as tf

    def rows(x: Any, y: Any) -> tuple[Any, Any, Any]:
        size = tf.shape(y)[0]
        each = -(-size // count)
        row = tf.range(own * each, (own + 1) * each)
        weight = tf.cast(each * count, "float32") / tf.cast(size, "float32")
        taken = tf.nest.map_structure(
            lambda value: tf.gather(value, tf.minimum(row, size - 1)), (x, y)
        )
        return *taken, tf.where(row < size, weight, 0.0)

    return batches.map(rows)


class _Rows(keras.utils.PyDataset):
    """One process's rows and candidates of each batch of a retrieval dataset.

    Within a training step, the rows of all processes form one array. So every row is
    compared with the candidates of the whole batch.
    """

    def __init__(self, whole: keras.utils.PyDataset, process: int, processes: int):
        super().__init__()
        self.whole, self.process, self.processes = whole, process, processes

    def __len__(self) -> int:
        return self.whole.num_batches or 0

    def __getitem__(self, index: int) -> Any:
        return keras.tree.map_structure(self._own, self.whole[index])

    def _own(self, value: np.ndarray) -> np.ndarray:
        if len(value) % self.processes:
            raise ValueError(
                f"a batch has {len(value)} rows or candidates, which {self.processes} "
                "processes cannot share evenly: choose a multiple"
            )
        each = len(value) // self.processes
        return np.asarray(value)[self.process * each : (self.process + 1) * each]

    def on_epoch_end(self) -> None:
        self.whole.on_epoch_end()


@contextmanager
def held_alone(model: keras.Model) -> Iterator[None]:
    """Context manager in which this process can call a model alone.

    Outside this context, parameters belong to all processes, and all processes must
    take part in every operation on them.
    """
    if me()[1] == 1:
        yield
        return
    import jax.numpy as jnp

    own = [(v, jnp.asarray(np.asarray(v.value))) for v in model.variables]
    with keras.StatelessScope(state_mapping=own):
        yield


@contextmanager
def lost_process() -> Iterator[None]:
    """Context manager that explains errors caused by the death of another process.

    Raises:
        RuntimeError: Another process has died. This error replaces the error of JAX.
    """
    count = me()[1]
    try:
        yield
    except Exception as error:
        named = type(error).__name__ in ("JaxRuntimeError", "XlaRuntimeError")
        if count == 1 or not (named or "Gloo" in str(error)):
            raise
        raise RuntimeError(
            f"one of the {count} processes is gone or cannot be reached; start the "
            "same command again for all processes, which then continue from the last "
            f"checkpoint ({str(error).splitlines()[0]})"
        ) from error
