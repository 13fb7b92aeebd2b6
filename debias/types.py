"""Types of arguments and results. This module needs only the standard library."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

Tensor = Any  # backend tensor, NumPy array, Keras variable, or a convertible value
Batch = Mapping[str, Tensor]  # see `debias.batches`
Place = int | Mapping[str, int]  # one id for position, row and column, or ids by name
Over = Callable[..., Iterator[Any]]  # `map`, or its equivalent on a cluster
