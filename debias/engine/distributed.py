"""Training by several processes: each takes its rows of every global batch.

The engine is JAX under Keras: parameters are replicated, gradients are summed between
the processes, and a step is the step that one process would take on the whole batch. A
script of your own needs two lines more, and is started once for each process:

    from debias import distributed
    distribution = distributed.join()  # before anything else of Keras
    with distribution.scope():
        model = ...
        model.fit(distributed.share(batches))

`debias.training.fit` shares its batches by itself.
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
    """Waits for the other processes and returns what model and fit are to be run in.

    With `KERAS_BACKEND=jax`, before any array is made.

    Args:
        coordinator: HOST:PORT where process 0 listens; None: $DEBIAS_COORDINATOR.
        processes: How many there are; None: $DEBIAS_PROCESSES.
        process: Which of them this is, from 0; None: $DEBIAS_PROCESS.
        heartbeat: Seconds of silence after which a process counts as dead and all
            others end.

    Raises:
        ValueError: Something is not given, or Keras runs on another backend.
    """
    if keras.backend.backend() != "jax":
        raise ValueError(
            "several processes need Keras on JAX, got "
            f"{keras.backend.backend()}: set KERAS_BACKEND=jax before it is imported"
        )
    where = coordinator or _environment("COORDINATOR", "HOST:PORT of process 0")
    count = int(processes or _environment("PROCESSES", "their number"))
    own = int(_environment("PROCESS", "from 0") if process is None else process)
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
            f"{name.lower()} must be given, or DEBIAS_{name} be set: {what}"
        )
    return found


def me() -> tuple[int, int]:
    """This process, from 0, and how many train together; (0, 1) outside a `scope`."""
    if keras.distribution.distribution() is None:
        return 0, 1
    import jax

    return jax.process_index(), jax.process_count()


def share(
    batches: Any, process: int | None = None, processes: int | None = None
) -> Any:
    """The rows of each global batch that are this process's, as `fit` takes them.

    Process r of n takes rows r m / n to (r + 1) m / n of m. Every process takes as many
    steps. Batches of sessions come with a weight of each: where m is no multiple of n,
    the last session is repeated with weight 0, and the others weigh so much more that
    the mean of the weighted losses is that of the m sessions.

    Args:
        batches: Dataset of `debias.batches`, or `Batches`, the same in every
            process: same seed, global batch size.
        process, processes: r and n; None: of the `scope`.

    Raises:
        ValueError: A retrieval batch has a number of rows that n does not divide, or
            batches are packed.

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
            "packed batches cannot be shared, their features are not rows of sessions "
            "or events: make them with packed=False"
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
    """One process's rows of the batches of another dataset; candidates count as rows.

    The parts of all processes make one array again inside a step, so that every row
    meets the candidates of the whole batch.
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
    """Inside, this process can call a model by itself, on batches of its own.

    Outside, parameters belong to all processes, and so does every operation on them.
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
    """Says what to do where a step failed because another process is gone.

    Raises:
        RuntimeError: In place of the engine's error.
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
            "same command again for all of them, and they go on from the last "
            f"checkpoint ({str(error).splitlines()[0]})"
        ) from error
