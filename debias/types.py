"""Names of what functions take and return; nothing here runs or loads anything."""

from collections.abc import Mapping
from typing import Any

Tensor = Any  # of the backend, a NumPy array, a Keras variable, or what converts to one
Batch = Mapping[str, Tensor]  # see `debias.batches`
Place = int | Mapping[str, int]  # one id for position, row and column, or by name
