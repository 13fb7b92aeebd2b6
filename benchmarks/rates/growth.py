"""Growth of cost with size: the exponent b of seconds ~ size^b.

Each case trains one model while one size grows. All other sizes have their default
values in `Sizes`. Each round measures all sizes in turn, so that a slow period of the
machine affects all of them. The result is the median round. Fixed costs, such as the
start of a step, make the exponent smaller than the exponent of the arithmetic.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from benchmarks.rates.speed import seconds

ROUNDS = 3


@dataclass(frozen=True)
class Sizes:
    """Sizes of the data and of the model in one timed call."""

    sessions: int = 8192
    batch: int = 512
    length: int = 10
    features: int = 32
    components: int = 2
    vocabulary: int = 100_000


SPANS: Mapping[str, tuple[int, ...]] = {
    "sessions": (10_000, 100_000, 1_000_000, 10_000_000),
    "batch": (64, 256, 1024, 4096),
    "length": (10, 25, 50, 100, 200),
    "features": (10, 100, 700),
    "components": (1, 2, 4, 8),
    "vocabulary": (100_000, 1_000_000, 10_000_000),
}


def model_of(name: str, sizes: Sizes) -> Any:
    from debias.layers import BiasTower, Tower
    from debias.models import XPA, Additive, Mixture, Product

    def bias(out: int = 1) -> BiasTower:
        return BiasTower({"position": sizes.length}, out=out, init_std=0.5)

    if name == "additive":
        return Additive(Tower((32,)), bias())
    if name == "mixture":
        return Mixture([Product(Tower((32,)), bias()) for _ in range(sizes.components)])
    return XPA(Tower((32,), out=8), bias(8))


def epoch(name: str, sizes: Sizes, seed: int) -> Callable[[], Any]:
    """One pass of `fit` over sessions, with a small table of items."""
    import keras

    from debias.data import ClickLog, RankingData
    from debias.models.batches import batches

    rng, items = np.random.default_rng(seed), 2000
    features = rng.normal(size=(items, sizes.features)).astype("float32")
    shape = sizes.sessions, sizes.length
    item = rng.integers(0, items, shape, np.int32)
    log = ClickLog(np.zeros(len(item), np.int32), item, rng.random(shape) < 0.2)
    data = RankingData(features, None, np.array([0, items]))
    feed = batches(log, data, sizes.batch, seed=seed)
    model = model_of(name, sizes)
    model.compile(keras.optimizers.Adam(), jit_compile=False, steps_per_execution=16)
    return lambda: model.fit(feed, verbose=0)


def retrieval_epoch(name: str, sizes: Sizes, seed: int) -> Callable[[], Any]:
    """Training steps of a retrieval model on ids.

    A step reads and writes only the embedding rows of the ids in its batch.
    """
    from debias.engine.optimizers import RowWiseAdam
    from debias.retrieval.models import fm_tower

    rng, batch = np.random.default_rng(seed), sizes.batch
    items = sizes.vocabulary // 3
    counts = {"user": sizes.vocabulary - items, "item": items}
    schemas: dict[str, Any] = {
        side: {"id": {"kind": "categorical", "size": count + 2}}
        for side, count in counts.items()
    }
    model = fm_tower(schemas["user"], schemas["item"], 32, history=None)
    model.compile(RowWiseAdam(), jit_compile=False)

    def steps() -> None:
        positive = np.arange(batch, dtype=np.int32)
        for _ in range(sizes.sessions // batch):
            drawn = {
                side: {"id": rng.integers(2, count + 2, batch)}
                for side, count in counts.items()
            }
            model.train_on_batch({**drawn, "positive": positive}, positive)

    return steps


def exponent(sizes: tuple[int, ...], cost: np.ndarray) -> float:
    """Slope of log cost on log size, by least squares.

    >>> round(exponent((1, 2, 4), np.array([3.0, 12.0, 48.0])), 6)
    2.0
    """
    return float(np.polyfit(np.log(sizes), np.log(cost), 1)[0])


@dataclass(frozen=True)
class Growth:
    """One row: a model with one growing size, which `population` names."""

    row: str
    population: str

    def settings(self) -> dict[str, Any]:
        return {**asdict(Sizes()), "span": SPANS[self.population], "rounds": ROUNDS}

    def measure(self, seed: int, data: str | None) -> dict[str, float]:
        """`exponent`, and the cost at the smallest and the largest size."""
        span, plain = SPANS[self.population], Sizes()
        runs, counts = [], []
        for size in span:
            sizes = replace(plain, **{self.population: size})
            if self.population == "batch":  # the same number of steps for each size
                sizes = replace(sizes, sessions=16 * size)
            make = retrieval_epoch if self.row == "retrieval" else epoch
            runs.append(make(self.row, sizes, seed))
            counts.append(sizes.sessions)
        for run in runs:
            run()
        cost = np.median([[seconds(run) for run in runs] for _ in range(ROUNDS)], 0)
        each = 1e6 * cost / np.array(counts)
        return {
            "exponent": exponent(span, cost),
            "first_ms": float(each[0]),
            "last_ms": float(each[-1]),
        }


CASES = (
    Growth("additive", "sessions"),
    Growth("xpa", "batch"),
    Growth("additive", "length"),
    Growth("xpa", "length"),
    Growth("additive", "features"),
    Growth("mixture", "components"),
    Growth("retrieval", "vocabulary"),
)
