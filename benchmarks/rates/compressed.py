"""Compressed id tables: cost of a step, and accuracy.

Each row of this table is a way in which ids share embedding rows. For example,
`hash_16` has one embedding row for every sixteen ids, and hashing assigns ids to
embedding rows. There are three populations:

1. `movielens-100k`: the FM tower with the recipe of table `retrieval` and 32
   dimensions. Events that are held out of the training events determine the number of
   passes, separately for each row.
2. `1e7`: the FM tower with 32 dimensions, after three passes, on a generated log of ten
   million items. Each of a thousand tastes has 10,000 items, which users take in
   proportion to 1 / (rank + 10). Each of 200,000 users has a taste and takes six items.
   An item is of the user's own taste with probability 4/5, and of a random taste
   otherwise. If all tastes were known, the hit rate at 50 would be .21. The last items
   of 500 users are ranked among all ten million items.
3. `1e8`: a thousand steps on random ids of a hundred million items and ten million
   users. This population shows whether the tables fit into memory, and the cost of a
   step. Without sharing, the tables would take 38 GB.

`table_mb` is the size of the id tables. `step_ms` is the time of a step of 1,024
events. `peak_gb` is the peak memory of a process that does nothing else.

    python -m benchmarks.rates.compressed 1e8 hash_16 0    # one row, one seed
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.harness.plan import Table
from benchmarks.rates.peer_process import peer
from benchmarks.rates.speed import beside, copy_rate, timed

WAYS = ("hash", "quotient_remainder")
SHARING = tuple(f"{way}_{share}" for way in WAYS for share in (4, 16))
DIM, BATCH, STEPS = 32, 1024, 1000
TASTES, ITEMS, USERS, EVENTS = 1000, 10_000_000, 200_000, 6
OWN, PASSES, JUDGED = 0.8, 3, 500


def shared(row: str, size: int) -> tuple[str | None, int | None]:
    """Arguments `compress` and `rows` of `RowEmbedding` for a row and `size` ids.

    >>> shared("whole", 100), shared("hash_16", 160)
    ((None, None), ('hash', 10))
    """
    if row == "whole":
        return None, None
    way, _, share = row.rpartition("_")
    return way, max(1, size // int(share))


def generated(
    rng: np.random.Generator,
    items: int = ITEMS,
    users: int = USERS,
    tastes: int = TASTES,
) -> Any:
    """The simulated log, in which each user takes `EVENTS` items."""
    from debias.retrieval.data.interactions import FeatureTable, Interactions

    of_taste = items // tastes
    weight = np.cumsum(1 / (np.arange(of_taste) + 10))
    user = np.repeat(np.arange(users), EVENTS)
    own = rng.integers(tastes, size=users)[user]
    other = rng.integers(tastes, size=len(user))
    taste = np.where(rng.random(len(user)) < OWN, own, other)
    rank = np.searchsorted(weight, rng.random(len(user)) * weight[-1])
    return Interactions(
        user.astype(np.int32),
        (rank * tastes + taste).astype(np.int32),
        np.arange(len(user)),
        FeatureTable.build({"id": np.arange(users)}),
        FeatureTable.build({"id": np.arange(items)}),
    )


def accuracy(row: str, population: str, seed: int) -> dict[str, float]:
    """HR and NDCG for each user's last item, and the size of the id tables."""
    from benchmarks.retrieval.recipes import split
    from debias.retrieval.data.interactions import leave_last_out
    from debias.retrieval.training import selection
    from debias.retrieval.training.evaluation import evaluate_scores
    from debias.retrieval.training.recipe import Recipe

    movielens = population == "movielens-100k"
    if movielens:
        train, held_out = split(population)
    else:
        log = generated(np.random.default_rng(seed))
        train, held_out = leave_last_out(log)
        held_out = held_out.take(np.arange(JUDGED))
    way, rows = shared(row, len(train.items))
    recipe = Recipe("fm", DIM, (), seed=seed, compress=way, rows=rows)
    passes = PASSES
    if movielens:
        passes = selection.trial(recipe, selection.hold_out(train)).passes
    learner = selection.trained(train, recipe, passes)
    users, query = np.unique(held_out.user, return_inverse=True)
    score = selection.scorer(learner)
    metrics = evaluate_scores(
        lambda asked: score(users[asked]),
        query,
        held_out.item,
        train.seen(users),
        train.popularity(),
        block=256 if movielens else 2,
    )
    tables = (w for w in learner.model.weights if len(w.shape) == 2)
    sizes = [4 * w.shape[0] * w.shape[1] / 1e6 for w in tables]
    return {
        "hr@50": metrics["hr@50"],
        "ndcg@50": metrics["ndcg@50"],
        "table_mb": sum(sizes),
    }


def cost(row: str, items: int, steps: int, seed: int) -> dict[str, float]:
    """Milliseconds per step with in-batch softmax, and the size of the tables.

    Args:
        row: How items share table rows. Users share rows in the same way, and their
            number is a tenth of the number of items.
        items: Number of items.
        steps: Number of timed steps, after three warm-up steps.
    """
    import keras

    from debias.layers.embedding import RowEmbedding
    from debias.retrieval.models import TwoTower

    class Side(keras.layers.Layer):
        def __init__(self, table: RowEmbedding):
            super().__init__()
            self.table, self.built = table, True

        def call(self, features: Any, training: bool = False) -> Any:
            return self.table(features["id"])

    def side(size: int) -> Side:
        way, rows = shared(row, size)
        return Side(RowEmbedding(2 + size, DIM, seed=seed, compress=way, rows=rows))

    sizes = {"user": items // 10, "item": items}
    model = TwoTower(side(sizes["user"]), side(sizes["item"]))
    model.compile()
    rng = np.random.default_rng(seed)

    def step() -> None:
        ids = {
            name: {"id": rng.integers(2, 2 + size, BATCH)}
            for name, size in sizes.items()
        }
        model.train_on_batch({**ids, "positive": np.arange(BATCH)}, np.arange(BATCH))

    for _ in range(3):
        step()
    begun = time.perf_counter()
    for _ in range(steps):
        step()
    taken = time.perf_counter() - begun
    tables = [w for w in model.weights if len(w.shape) == 2]
    return {
        "step_ms": 1e3 * taken / steps,
        "table_mb": sum(4 * w.shape[0] * w.shape[1] / 1e6 for w in tables),
    }


def measured(row: str, population: str, seed: int) -> dict[str, float]:
    """All measurements of a row, in this process."""
    if population == "1e8":
        found = cost(row, 100_000_000, STEPS, seed)
    else:
        found = accuracy(row, population, seed)
        if population == "1e7":
            found |= {"step_ms": cost(row, ITEMS, 100, seed)["step_ms"]}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # KB on Linux
    return {**found, "peak_gb": peak}


@dataclass(frozen=True)
class Compressed:
    """A row of the table `compressed`, measured in a separate process."""

    row: str
    population: str

    def settings(self) -> Mapping[str, Any]:
        return {"dim": DIM, "batch_size": BATCH, "version": 1}

    def measure(self, seed: int, data: str | None = None) -> Mapping[str, float]:
        words = [self.population, self.row, str(seed)]
        command = [sys.executable, "-m", "benchmarks.rates.compressed", *words]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        return dict(json.loads(done.stdout.splitlines()[-1]))


# Lookups beside NumPy and torch, rows of the table `speed`

CODES, LOOKED_UP = 1_000_000, 1 << 16


def lookups(way: str, seed: int) -> dict[str, float]:
    """Vectors per second of `RowEmbedding`, compared with plain NumPy.

    If torch is installed, its `EmbeddingBag` is measured too. All libraries look up the
    same ids. The ids are drawn from a million ids that share 62,500 table rows. The
    lower bound of the time is the time to copy the vectors.

    Raises:
        RuntimeError: The vectors differ.
    """
    import tensorflow as tf

    from debias.layers.embedding import FIRST, RowEmbedding

    rows = CODES // 16
    layer = RowEmbedding(FIRST + CODES, DIM, seed=seed, compress=way, rows=rows)
    rng = np.random.default_rng(seed)
    ids = rng.integers(FIRST, FIRST + CODES, LOOKED_UP, np.int32)
    tables = [np.array(weight) for weight in layer.weights]
    given = tf.constant(ids)

    @tf.function
    def looked_up() -> Any:
        return layer(given)

    def ours() -> np.ndarray:
        return looked_up().numpy()

    def plain() -> np.ndarray:
        value = ids - FIRST
        found = tables[0][FIRST + value % rows]
        return found * tables[1][value // rows] if len(tables) > 1 else found

    if not np.allclose(ours(), plain(), atol=1e-6):
        raise RuntimeError("plain NumPy finds other vectors")
    names = ("table", "quotients")
    arrays = {"ids": ids - FIRST, **dict(zip(names, tables, strict=False))}
    most = copy_rate() / (4 * DIM)
    with peer("torch_bag", {"rows": rows, "first": FIRST}, arrays) as torch:
        others = {} if torch is None else {"torch": torch.seconds}
        if torch is not None and abs(torch.value - ours().sum()) > 1e-2:
            raise RuntimeError("torch finds other vectors")
        return beside(LOOKED_UP, most, timed(ours), timed(plain), others)


@dataclass(frozen=True)
class Lookups:
    """A row of the table `speed`; `population` is the way in which ids share rows."""

    population: str
    row: str = "embed"

    def settings(self) -> Mapping[str, Any]:
        return {"peer": "plain NumPy", "codes": CODES, "dim": DIM}

    def measure(self, seed: int, data: str | None = None) -> Mapping[str, float]:
        return lookups(self.population, seed)


CASES = tuple(map(Lookups, WAYS))

TABLE = Table(
    name="compressed",
    title="Id tables with shared rows: accuracy, memory and time per step",
    experiments=(
        *(Compressed(row, "movielens-100k") for row in ("whole", *SHARING)),
        *(Compressed(row, "1e7") for row in ("whole", *SHARING)),
        *(Compressed(f"{way}_16", "1e8") for way in WAYS),
    ),
    metrics=("hr@50", "ndcg@50", "table_mb", "step_ms", "peak_gb"),
    baseline="whole",
    paired=("hr@50", "ndcg@50"),
    lower=("table_mb", "step_ms", "peak_gb"),
    clicks="",
    dataset="public",
    seeds=1,
    workers=1,
    threads=None,
)


if __name__ == "__main__":
    population, row, seed = sys.argv[1:]
    print(json.dumps(measured(row, population, int(seed))))
