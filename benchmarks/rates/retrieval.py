"""Training speed of retrieval models by vocabulary size, and on MovieLens."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from benchmarks.rates.peer_process import Peer, peer

VOCABULARIES = {
    "150k": (100_000, 50_000),
    "1.5M": (1_000_000, 500_000),
    "7.5M": (5_000_000, 2_500_000),
}
BATCH, DIM = 4096, 32
Sizes = tuple[int, int]  # numbers of users and items


Step = Callable[[np.ndarray, np.ndarray], Any]  # of the ids of users and of items


def step_seconds(
    cases: Sequence[tuple[str, Sizes]],
    batch_size: int = BATCH,
    dim: int = DIM,
    steps: int = 15,
    warm: int = 3,
    seed: int = 0,
) -> list[float | None]:
    """Median processor time of a training step, by case; in-batch softmax on ids.

    The cases take turns at every step, so that a slow period of the machine affects all
    of them. Times are processor times, because other processes affect them less than
    wall-clock times.

    Args:
        cases: Engine and sizes. "row-wise" is a tower of this library, with
            `RowEmbedding` and `RowWiseAdam`. "keras-adam" computes the same scores with
            `keras.layers.Embedding` and Adam. "torch-sparse" uses torch, sparse
            embeddings and SparseAdam in a separate process; its result is None if torch
            is not installed.
    """
    for engine, _ in cases:
        if engine not in (*ENGINES, TORCH):
            known = [*ENGINES, TORCH]
            raise ValueError(f"engine must be one of {known}, got {engine!r}")
    rng = np.random.default_rng(seed)

    def timed(step: Step, users: int, items: int) -> Callable[[], float]:
        def run() -> float:
            user = rng.integers(0, users, batch_size)
            item = rng.integers(0, items, batch_size)
            start = time.process_time()
            step(user, item)
            return time.process_time() - start

        return run

    def absent() -> float:
        return np.nan

    with ExitStack() as stack:
        runs = []
        for engine, (users, items) in cases:
            if engine != TORCH:
                runs.append(timed(ENGINES[engine](users, items, dim), users, items))
                continue
            setup = {"users": users, "items": items, "dim": dim}
            setup |= {"batch": batch_size, "seed": seed}
            torch = stack.enter_context(peer("torch_sparse", setup))
            runs.append(absent if torch is None else torch.cpu_seconds)
        spent = np.array([[run() for run in runs] for _ in range(warm + steps)])
    found = np.median(spent[warm:], axis=0)
    return [None if np.isnan(each) else float(each) for each in found]


def _row_wise(users: int, items: int, dim: int) -> Any:
    from debias.engine.optimizers import RowWiseAdam
    from debias.retrieval.models import fm_tower

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

    from debias.retrieval.layers.logq import accidental_hits, mask_columns
    from debias.retrieval.losses import RetrievalLoss

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


TORCH = "torch-sparse"
ENGINES: dict[str, Callable[[int, int, int], Step]] = {
    "row-wise": _row_wise,
    "keras-adam": _keras,
}


@dataclass(frozen=True)
class RetrievalSpeed:
    """Steps per second at one vocabulary size, for this library and peers.

    All times are processor times, including the lower bound, `products_seconds`.
    """

    population: str
    row: str = "retrieval"

    def settings(self) -> dict[str, Any]:
        ids = sum(VOCABULARIES[self.population])
        return {"batch_size": BATCH, "dim": DIM, "ids": ids, "steps": 15}

    def measure(self, seed: int, data: str | None) -> dict[str, float]:
        """`growth` is the time per step relative to the smallest vocabulary."""
        from benchmarks.harness.memory import forget

        forget()
        sizes, smallest = VOCABULARIES[self.population], VOCABULARIES["150k"]
        cases = [("row-wise", sizes), ("row-wise", smallest), ("keras-adam", sizes)]
        own, base, other, torch = step_seconds([*cases, (TORCH, sizes)], seed=seed)
        assert own and base and other  # these rows always exist
        found = {"rate": 1 / own, "peer_rate": 1 / other, "ratio": other / own}
        found["growth"] = own / base
        floor = products_seconds(BATCH, DIM, steps=4, clock=time.process_time)
        found["floor_fraction"] = floor / own
        return found if torch is None else found | {"torch_ratio": torch / own}


LIBRARIES = {"keras_rs": 1, "tfrs": 1, "rechub": 8}
"""Peers on MovieLens, and the divisor of the number of their events: an epoch of
torch-rechub on all events takes half a minute or more."""


def products_seconds(
    batch: int,
    dim: int,
    steps: int = 64,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Time of a step with only the matrix products of in-batch softmax.

    There are three matrix products of (batch, dim) and (batch, batch) arrays: the
    scores, and their gradients with respect to users and to items. The result is the
    smallest of five measurements of `steps` steps.
    """
    import tensorflow as tf

    users, items = tf.random.normal((2, batch, dim))

    @tf.function
    def products() -> Any:
        total = tf.zeros((batch, dim))
        for step in tf.range(steps):
            now = users * tf.cast(step, "float32")  # keeps them inside the loop
            scores = tf.matmul(now, items, transpose_b=True)
            total += tf.matmul(scores, items) + tf.matmul(scores, now, transpose_a=True)
        return total

    def once() -> float:
        start = clock()
        products()
        return (clock() - start) / steps

    products()
    return min(once() for _ in range(5))


@dataclass(frozen=True)
class MovieLens:
    """Events per second on MovieLens-100K, with ids, batches of 512 and dimension 32.

    All libraries except torch-rechub apply the logQ correction, mask accidental hits,
    and run 16 steps per execution. Batches of this library are packed: they contain
    only the distinct users and items. The lower bound of the time is `products_seconds`
    for all users and items of a batch.
    """

    population: str = "movielens-100k"
    row: str = "retrieval"

    def settings(self) -> dict[str, Any]:
        return {"batch_size": 512, "dim": 32, "libraries": list(LIBRARIES), "steps": 16}

    def measure(self, seed: int, data: str | None) -> dict[str, float]:
        from benchmarks.harness.memory import forget
        from benchmarks.rates.speed import MANY_ROUNDS, alternating, timed
        from benchmarks.retrieval.rows import split
        from debias.engine.optimizers import RowWiseAdam
        from debias.retrieval.losses import RetrievalLoss
        from debias.retrieval.models import fm_tower
        from debias.retrieval.training.batches import Batches

        forget()
        whole, _ = split(self.population)
        users, items = (
            replace(side, columns={"id": side.columns["id"]})
            for side in (whole.users, whole.items)
        )
        log = replace(whole, users=users, items=items)
        size, dim = 512, 32
        model = fm_tower(users.schema, items.schema, dim, history=None, seed=seed)
        model.compile(
            RowWiseAdam(0.003, dense_rows=1 << 15),
            RetrievalLoss(),
            jit_compile=True,
            steps_per_execution=16,
        )
        feed = Batches(
            log, size, history=0, packed=True, exclude_known=False, seed=seed
        )
        ours = timed(lambda: model.fit(feed, verbose=0))
        setup = {"users": len(log.users), "items": len(log.items)}
        setup |= {"dim": dim, "batch": size}
        rounds: dict[str, Peer] = {}
        with ExitStack() as stack:
            for library, part in LIBRARIES.items():
                some = slice(0, len(log) // part)
                arrays = {"user": log.user[some], "item": log.item[some]}
                given = {**setup, "library": library}
                other = stack.enter_context(peer("movielens", given, arrays))
                if other is not None:
                    rounds[library] = other
            asked = (other.seconds for other in rounds.values())
            own, *others = alternating(ours, *asked, times=MANY_ROUNDS)
        rate = len(log) / own
        ratios = {
            f"{library}_ratio": rate * spent / rounds[library].value
            for library, spent in zip(rounds, others, strict=True)
        }
        floor = rate / size * products_seconds(size, dim)
        return {"rate": rate, **ratios, "floor_fraction": floor}


CASES: tuple[RetrievalSpeed | MovieLens, ...] = (
    *(RetrievalSpeed(name) for name in VOCABULARIES),
    MovieLens(),
)
