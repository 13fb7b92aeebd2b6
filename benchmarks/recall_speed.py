"""Seconds a training step of a two-tower on ids, as the vocabulary grows."""

import time
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

VOCABULARIES = {
    "150k": (100_000, 50_000),
    "1.5M": (1_000_000, 500_000),
    "7.5M": (5_000_000, 2_500_000),
}
ENGINES = ("row-wise", "keras-adam", "torch-sparse")


def step_seconds(
    engine: str,
    users: int,
    items: int,
    batch_size: int = 4096,
    dim: int = 32,
    steps: int = 10,
    warm: int = 3,
    seed: int = 0,
) -> dict[str, float]:
    """Median wall and processor seconds of a step: in-batch softmax, ids only.

    Args:
        engine: "row-wise": our tower, `RowEmbedding` and `RowWiseAdam`. "keras-adam":
            the same scores from `keras.layers.Embedding` and Adam. "torch-sparse":
            torch, sparse embeddings and SparseAdam.

    Returns:
        seconds and cpu_seconds, medians over `steps` after `warm`.
    """
    rng = np.random.default_rng(seed)
    batches = [
        (rng.integers(0, users, batch_size), rng.integers(0, items, batch_size))
        for _ in range(steps + warm)
    ]
    makers = {"row-wise": _row_wise, "keras-adam": _keras, "torch-sparse": _torch}
    if engine not in makers:
        raise ValueError(f"engine must be one of {list(ENGINES)}, got {engine!r}")
    step = makers[engine](users, items, dim)
    wall, cpu = [], []
    for number, batch in enumerate(batches):
        start, start_cpu = time.perf_counter(), time.process_time()
        step(*batch)
        if number >= warm:
            wall.append(time.perf_counter() - start)
            cpu.append(time.process_time() - start_cpu)
    return {"seconds": float(np.median(wall)), "cpu_seconds": float(np.median(cpu))}


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


@dataclass(frozen=True)
class RecallSpeed:
    """Steps a second at one vocabulary, of ours and of the peers there are."""

    population: str
    row: str = "recall"

    def settings(self) -> dict[str, Any]:
        return {
            "batch_size": 4096,
            "dim": 32,
            "ids": sum(VOCABULARIES[self.population]),
        }

    def measure(self, seed: int, data: str | None) -> dict[str, float]:
        """Rates by processor time, which neighbours on a machine disturb less.

        `growth` is the seconds of a step over those at the smallest vocabulary.
        """

        from benchmarks.experiments import forget

        def rate(engine: str, size: tuple[int, int]) -> float:
            forget()  # the tables of the engine before
            return 1 / step_seconds(engine, *size, seed=seed)["cpu_seconds"]

        size = VOCABULARIES[self.population]
        own, peer = rate("row-wise", size), rate("keras-adam", size)
        found = {"rate": own, "peer_rate": peer, "ratio": own / peer}
        found["growth"] = rate("row-wise", VOCABULARIES["150k"]) / own
        if find_spec("torch"):
            torch = rate("torch-sparse", size)
            found |= {"torch_rate": torch, "torch_ratio": own / torch}
        return found


CASES = tuple(RecallSpeed(name) for name in VOCABULARIES)
