"""Lookups of ids that share rows, by `EmbeddingBag` of torch.

`setup` has "rows", the number of shared rows, and "first", the index of the first
shared row. `arrays` has `ids` (numbers from 0) and the `table`. If ids are hashed by
quotient and remainder, `arrays` also has the table `quotients`. The compared value is
the sum of all vectors.
"""

from collections.abc import Callable
from typing import Any


def prepare(
    setup: dict[str, Any], arrays: dict[str, Any]
) -> tuple[Callable[[], float], Callable[[float], float]]:
    import torch

    def bag(name: str) -> Any:
        weights = torch.from_numpy(arrays[name])
        return torch.nn.EmbeddingBag.from_pretrained(weights, mode="sum")

    ids = torch.from_numpy(arrays["ids"]).long()
    table = bag("table")
    quotients = bag("quotients") if "quotients" in arrays else None

    def look_up() -> Any:
        found = table((setup["first"] + ids % setup["rows"])[:, None])
        if quotients is not None:
            found = found * quotients((ids // setup["rows"])[:, None])
        return found

    return look_up, lambda found: float(found.sum())
