"""Types of arguments and results; this module loads nothing."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

Tensor = Any  # of the backend, a NumPy array, a Keras variable, or what converts to one
Batch = Mapping[str, Tensor]  # see `debias.batches`
Place = int | Mapping[str, int]  # one id for position, row and column, or by name
Over = Callable[..., Iterator[Any]]  # `map`, or what does the same on a cluster
