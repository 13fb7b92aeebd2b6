"""Costs of a session, an event and an item, and estimates for large jobs.

All costs are processor time in processes that may use one core. Rankers train on a
simulated log with 2,000 queries and lists of ten items. Their towers have 136 inputs,
hidden layers of 64 and 32 units, and one output. Their batches have 4,096 sessions.
DSSM trains with batches of 1,024 events. Vectors have 64 dimensions. `hours`
extrapolates these costs to large jobs.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.rates.speed import ONE_CORE, on_one_core

QUERIES, SESSIONS, BATCH = 2000, 1 << 18, 4096
EVENTS, EVENT_BATCH, DIM, LINKS = 1 << 14, 1024, 64, 16
VECTORS = 100_000
UTILISATION = 0.8  # of processes that wait for each other; an assumption
MANY = 16


def hours(count: float, divided: float, processes: int = 1, each: float = 0) -> float:
    """Estimated hours for a job: count (divided / (n u) + each) / 3.6e9.

    Args:
        count: Number of units of the job, such as sessions.
        divided: Microseconds per unit of the work that n processes share. The
            utilisation u of several processes is `UTILISATION`; a single process has
            u = 1.
        processes: Number n of processes.
        each: Microseconds per unit of the work that every process does.

    >>> hours(3.6e9, 0.8), hours(3.6e9, 12.8, processes=16, each=0.5)
    (0.8, 1.5)
    """
    share = 1 if processes == 1 else processes * UTILISATION
    return count * (divided / share + each) / 3.6e9


def microseconds(run: Callable[[], Any], units: float) -> float:
    """Processor time of `run`, in microseconds per unit."""
    start = time.process_time()
    run()
    return 1e6 * (time.process_time() - start) / units


def simulated(seed: int) -> tuple[Any, Any]:
    """Ranking data with standardised features, and a log."""
    import simulators
    from debias.data import RankingData
    from debias.layers import Standardize

    data = simulators.generate(QUERIES, seed)
    shown = simulators.PlackettLuce(simulators.weak_ranker(data), temperature=0.5)
    log = simulators.simulate(data, shown, "pbm", sessions=SESSIONS, seed=seed)
    scaled = np.asarray(Standardize().adapt(data.features)(data.features))
    return RankingData.trusted(scaled, None, np.array([0, len(scaled)])), log


def reading(seed: int) -> dict[str, float]:
    """Bytes per session on disk, and the time per session to read in random order."""
    from debias.data import ClickLog, Stream

    _, log = simulated(seed)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "log.parquet"
        ClickLog(log.query, log.item, log.click).write(path)
        stream = Stream(path)

        def read() -> None:
            for window in range(stream.windows):
                stream.read(window, [seed])

        size = path.stat().st_size / SESSIONS
        return {"disk_bytes": size, "read_us": microseconds(read, SESSIONS)}


def models(seed: int) -> dict[str, Any]:
    from debias.layers import BiasTower, Tower
    from debias.models import XPA, Additive, Mixture, Naive, Product

    def bias(out: int = 1) -> BiasTower:
        return BiasTower({"position": 10}, out=out, init_std=0.5, seed=seed)

    def product(number: int) -> Product:
        return Product(Tower((64, 32), seed=number), bias())

    return {
        "naive": Naive(Tower((64, 32), seed=seed)),
        "product": product(seed),
        "additive": Additive(Tower((64, 32), seed=seed), bias()),
        "xpa": XPA(Tower((64, 32), out=8, seed=seed), bias(8), seed=seed),
        "mixture": Mixture([product(seed + number) for number in range(3)]),
    }


def learning(seed: int) -> dict[str, float]:
    """Training time per session in `fit`, and the number of parameters."""
    return _learning(seed, models(seed))


def learning_on_jax(seed: int) -> dict[str, float]:
    made = models(seed)
    found = _learning(seed, {name: made[name] for name in ("product", "mixture")})
    return {f"jax_{name}": value for name, value in found.items() if "us" in name}


def _learning(seed: int, models: dict[str, Any]) -> dict[str, float]:
    import keras

    from debias.engine.optimizers import RowWiseAdam
    from debias.models.batches import batches

    data, log = simulated(seed)
    jit = keras.backend.backend() == "jax"
    found: dict[str, float] = {}
    feed = batches(log, data, BATCH, seed=seed, packed=not jit)
    for name, model in models.items():
        model.compile(RowWiseAdam(), jit_compile=jit, steps_per_execution=16)
        model.fit(feed.take(16), verbose=0)  # compiles
        epoch = microseconds(partial(model.fit, feed, verbose=0), SESSIONS)
        found |= {f"{name}_us": epoch, f"{name}_parameters": model.count_params()}
    return found


def retrieving(seed: int) -> dict[str, float]:
    """Training time of DSSM per event, and encoding time per item."""
    from debias.engine.optimizers import RowWiseAdam
    from debias.retrieval.models import dssm
    from debias.retrieval.training.batches import Batches
    from simulators.interactions import generate_interactions

    rng = np.random.default_rng(seed)
    log, _ = generate_interactions(rng, users=EVENTS // 16, items=5000, events=16)
    model = dssm(log.users.schema, log.items.schema, DIM, seed=seed)
    model.compile(RowWiseAdam(), jit_compile=False, steps_per_execution=4)
    feed = Batches(log, EVENT_BATCH, seed=seed)

    def learn() -> None:
        model.fit(feed, verbose=0)

    many = np.resize(np.arange(len(log.items)), VECTORS)

    def encode() -> None:
        model.item_vectors(log.items.take(many))

    learn()  # compile both
    encode()
    return {
        "event_us": microseconds(learn, len(feed) * EVENT_BATCH),
        "encode_us": microseconds(encode, VECTORS),
    }


def searching(seed: int) -> dict[str, float]:
    """Time and memory to add a vector to an HNSW graph."""
    import faiss

    from debias.retrieval.serving.index import hnsw

    vectors = np.random.default_rng(seed).normal(size=(VECTORS, DIM))
    start = time.process_time()
    graph = hnsw(vectors.astype(np.float32), links=LINKS)
    spent = 1e6 * (time.process_time() - start) / VECTORS
    size = faiss.serialize_index(graph.index).nbytes / VECTORS
    return {"hnsw_us": spent, "hnsw_bytes": size}


def jobs(cost: dict[str, float]) -> dict[str, float]:
    """Estimated hours, gigabytes and communicated kilobytes of large jobs."""
    parameters = cost["product_parameters"]
    return {
        "disk_gb": cost["disk_bytes"],  # for 1e9 sessions
        "product_hours": hours(1e9, cost["product_us"], each=cost["read_us"]),
        **{
            f"jax_{name}_hours": hours(
                1e9, cost[f"jax_{name}_us"], MANY, cost["read_us"]
            )
            for name in ("product", "mixture")
        },
        "retrieval_hours": hours(1e9, cost["event_us"]),
        "encode_hours": hours(1e8, cost["encode_us"], MANY),
        "hnsw_hours": hours(1e8, cost["hnsw_us"], MANY),
        "hnsw_gb": cost["hnsw_bytes"] / 10,  # for 1e8 items
        "sent_kb": 4 * parameters * 2 * (MANY - 1) / MANY / 1e3,
    }


@contextmanager
def backend(name: str) -> Iterator[None]:
    """Context manager: new processes run Keras on the given backend."""
    before = os.environ.get("KERAS_BACKEND")
    os.environ["KERAS_BACKEND"] = name
    try:
        yield
    finally:
        del os.environ["KERAS_BACKEND"]
        if before is not None:
            os.environ["KERAS_BACKEND"] = before


PARTS = (
    (reading, "tensorflow"),
    (learning, "tensorflow"),
    (learning_on_jax, "jax"),
    (retrieving, "tensorflow"),
    (searching, "tensorflow"),
)


@dataclass(frozen=True)
class Costs:
    """All costs, each part in a separate process."""

    row: str = "debias"
    population: str = ONE_CORE

    def settings(self) -> dict[str, Any]:
        return {
            "queries": QUERIES,
            "sessions": SESSIONS,
            "batch_size": BATCH,
            "events": EVENTS,
            "event_batch_size": EVENT_BATCH,
            "dim": DIM,
            "links": LINKS,
            "vectors": VECTORS,
            "utilisation": UTILISATION,
        }

    def measure(self, seed: int, data: str | None) -> dict[str, float]:
        cost: dict[str, float] = {}
        for part, engine in PARTS:
            with backend(engine):
                cost |= on_one_core(part, seed)
        return cost | jobs(cost)


CASES = (Costs(),)
