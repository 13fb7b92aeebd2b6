"""A step of a two-tower model on ids in torch, with SparseAdam.

The loss is in-batch softmax. `setup` has "users", "items", "dim", "batch" and "seed".
The compared value is the loss of the first step.
"""

from collections.abc import Callable
from typing import Any


def prepare(
    setup: dict[str, Any], arrays: dict[str, Any]
) -> tuple[Callable[[], float], Callable[[float], float]]:
    import torch

    torch.manual_seed(setup["seed"])
    size, dim = setup["batch"], setup["dim"]
    user_table = torch.nn.Embedding(setup["users"], dim, sparse=True)
    item_table = torch.nn.Embedding(setup["items"], dim, sparse=True)
    parameters = [*user_table.parameters(), *item_table.parameters()]
    optimizer = torch.optim.SparseAdam(parameters)
    normalize = torch.nn.functional.normalize

    def step() -> float:
        user = torch.randint(setup["users"], (size,))
        item = torch.randint(setup["items"], (size,))
        optimizer.zero_grad()
        scores = normalize(user_table(user)) @ normalize(item_table(item)).T / 0.1
        same = (item[:, None] == item) & ~torch.eye(size, dtype=torch.bool)
        scores = scores.masked_fill(same, -1e9)
        loss = torch.nn.functional.cross_entropy(scores, torch.arange(size))
        loss.backward()
        optimizer.step()
        return loss.item()

    return step, float
