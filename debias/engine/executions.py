"""`fit` on TensorFlow whose executions of several steps are one loop of ours.

Keras's own loop asks before each batch whether there is one, calls the step anew and
makes two iterators an epoch: a twentieth of a step of 3 ms, a third of one of 1 ms.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras


def of_several_steps(model: keras.Model) -> bool:
    """Whether an execution of `fit` takes several steps in one compiled function."""
    return (
        keras.backend.backend() == "tensorflow"
        and model.steps_per_execution > 1
        and not model.run_eagerly
        and model._distribute_strategy is None
    )


@contextmanager
def stepping(model: Any, execution: Callable[[Any], Any]) -> Iterator[None]:
    """Inside, `fit` has `execution` take its steps, and what it is given it counts."""
    usual, model.train_function = model.train_function, execution
    try:
        yield
    finally:
        model.train_function = usual


def once(model: Any, make: Callable[[Any], Any]) -> Any:
    """What `make` makes of the model, once after each `compile`."""
    mean = model.metrics[0]  # of the loss; compile begins another
    if not hasattr(mean, make.__name__):
        setattr(mean, make.__name__, make(model))
    return getattr(mean, make.__name__)


def looped(model: Any) -> Any:
    """A compiled function of an iterator and how many of its batches to step by."""
    step = _step(model)
    return _loop(model, lambda batches, index: step(next(batches)))


def looped_on_log(model: Any) -> Any:
    """The same of a log in memory and its order (`pipeline.Held`), from a place on."""
    step = _step(model)

    def one(batches: Any, index: Any) -> None:
        held, order = batches
        step(held.at(order, index))

    # Logs differ in length; after a few of them one trace serves all.
    return _loop(model, one, reduce_retracing=True)


def looped_on_stack(model: Any) -> Any:
    """The same of batches along a first axis; if compiled by XLA, as one program."""
    import tensorflow as tf

    def step(batches: Any, index: Any) -> None:
        model.train_step(tf.nest.map_structure(lambda x: x[index], batches))

    return _loop(model, step, jit_compile=model.jit_compile)


def _step(model: Any) -> Any:
    import tensorflow as tf

    if not model.jit_compile:
        return model.train_step
    return tf.function(model.train_step, jit_compile=True, autograph=False)


def _loop(model: Any, step: Callable[[Any, Any], Any], **options: bool) -> Any:
    import tensorflow as tf

    @tf.function(autograph=False, **options)
    def steps(batches: Any, count: Any, first: Any = 0) -> Any:
        def one(index: Any) -> Any:
            step(batches, index)
            return [index + 1]

        tf.while_loop(lambda index: index < first + count, one, [first])
        return model.get_metrics_result()

    return steps
