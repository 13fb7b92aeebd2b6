"""Seconds a training step of a two-tower on ids, as the vocabulary grows."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

VOCABULARIES = {
    "150k": (100_000, 50_000),
    "1.5M": (1_000_000, 500_000),
    "7.5M": (5_000_000, 2_500_000),
}
Sizes = tuple[int, int]  # of the tables of users and of items


def step_seconds(
    cases: Sequence[tuple[str, Sizes]],
    batch_size: int = 4096,
    dim: int = 32,
    steps: int = 15,
    warm: int = 3,
    seed: int = 0,
) -> list[float]:
    """Median processor seconds of a step of each case: in-batch softmax, ids only.

    The cases take turns, step by step, so that a slow spell of the machine falls on
    all; processor time, which neighbours on a machine disturb less than the clock.

    Args:
        cases: Engine and sizes. "row-wise": our tower, `RowEmbedding` and
            `RowWiseAdam`. "keras-adam": the same scores from `keras.layers.Embedding`
            and Adam. "torch-sparse": torch, sparse embeddings and SparseAdam.
    """
    for engine, _ in cases:
        if engine not in ENGINES:
            raise ValueError(f"engine must be one of {list(ENGINES)}, got {engine!r}")
    rng = np.random.default_rng(seed)
    made = [ENGINES[engine](*sizes, dim) for engine, sizes in cases]
    spent = np.empty((warm + steps, len(cases)))
    for number in range(warm + steps):
        for place, (_, (users, items)) in enumerate(cases):
            user = rng.integers(0, users, batch_size)
            item = rng.integers(0, items, batch_size)
            start = time.process_time()
            made[place](user, item)
            spent[number, place] = time.process_time() - start
    return np.median(spent[warm:], axis=0).tolist()


def _row_wise(users: int, items: int, dim: int) -> Any:
    from debias.models.recall import fm_tower
    from debias.optimizers import RowWiseAdam

    def schema(size: int) -> dict[str, dict[str, Any]]:
        return {"id": {"kind": "categorical", "size": size + 2}}

    model = fm_tower(schema(users), schema(items), dim, history=None)
    model.compile(RowWiseAdam())

    def step(user: np.ndarray, item: np.ndarray) -> None:
        positive = np.arange(len(user), dtype=np.int32)
        batch = {"user": {"id": user + 2}, "item": {"id": item + 2}}
        model.train_on_batch({**batch, "positive": positive}, positive)

    return step


def _keras(users: int, items: int, dim: int) -> Any:
    import keras
    from keras import ops

    from debias.layers.logq import accidental_hits, mask_columns
    from debias.retrieval_losses import RetrievalLoss

    class Plain(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.user = keras.layers.Embedding(users, dim)
            self.item = keras.layers.Embedding(items, dim)

        def call(self, batch: Any) -> Any:
            u = ops.normalize(self.user(batch["user"]), axis=-1)
            v = ops.normalize(self.item(batch["item"]), axis=-1)
            scores = ops.matmul(u, ops.transpose(v)) / 0.1
            hits = accidental_hits(batch["item"], ops.arange(ops.shape(scores)[0]))
            return mask_columns(scores, hits)

    model = Plain()
    model.compile(keras.optimizers.Adam(), RetrievalLoss(), jit_compile=False)

    def step(user: np.ndarray, item: np.ndarray) -> None:
        positive = np.arange(len(user), dtype=np.int32)
        model.train_on_batch({"user": user, "item": item}, positive)

    return step


def _torch(users: int, items: int, dim: int) -> Any:
    import torch

    user_table = torch.nn.Embedding(users, dim, sparse=True)
    item_table = torch.nn.Embedding(items, dim, sparse=True)
    parameters = [*user_table.parameters(), *item_table.parameters()]
    optimizer = torch.optim.SparseAdam(parameters)

    def step(user: np.ndarray, item: np.ndarray) -> None:
        optimizer.zero_grad()
        ids = torch.from_numpy(item)
        u = torch.nn.functional.normalize(user_table(torch.from_numpy(user)))
        v = torch.nn.functional.normalize(item_table(ids))
        scores = u @ v.T / 0.1
        same = (ids[:, None] == ids) & ~torch.eye(len(ids), dtype=torch.bool)
        scores = scores.masked_fill(same, -1e9)
        torch.nn.functional.cross_entropy(scores, torch.arange(len(ids))).backward()
        optimizer.step()

    return step


ENGINES = {"row-wise": _row_wise, "keras-adam": _keras, "torch-sparse": _torch}


@dataclass(frozen=True)
class RecallSpeed:
    """Steps a second at one vocabulary, of ours and of the peers there are."""

    population: str
    row: str = "recall"

    def settings(self) -> dict[str, Any]:
        sizes = VOCABULARIES[self.population]
        return {"batch_size": 4096, "dim": 32, "ids": sum(sizes), "steps": 15}

    def measure(self, seed: int, data: str | None) -> dict[str, float]:
        """`growth`: seconds of a step over those at the smallest vocabulary."""
        from benchmarks.experiments import forget

        forget()
        sizes, smallest = VOCABULARIES[self.population], VOCABULARIES["150k"]
        cases = [("row-wise", sizes), ("row-wise", smallest), ("keras-adam", sizes)]
        if find_spec("torch"):
            cases.append(("torch-sparse", sizes))
        own, base, peer, *torch = step_seconds(cases, seed=seed)
        found = {"rate": 1 / own, "peer_rate": 1 / peer, "ratio": peer / own}
        found["growth"] = own / base
        if torch:
            found |= {"torch_rate": 1 / torch[0], "torch_ratio": torch[0] / own}
        return found


CASES = tuple(RecallSpeed(name) for name in VOCABULARIES)
