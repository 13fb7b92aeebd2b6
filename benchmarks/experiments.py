"""The tables: which rows, on which crowds, at which size. Loads no TensorFlow.

One experiment is one row on one population; entering it in a `Table` is all it takes to
have it run, resumed, compared and rendered.
"""

import gc
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.plan import Table
from benchmarks.speed import CASES

LEARNERS = (
    "naive",
    "position_feature",
    "product",
    "additive",
    "dot",
    "bilinear",
    "mixture",
    "xpa",
    "full_information",
    "oracle_examination",
)
BOUNDS = ("logging", "naive", "full_information", "oracle_examination")
CROWDS = ("mixed", "grid", "pbm")

RATES = (0.005, 0.02)
TUNING_SEED = 1000  # the worlds of `tuning` are those of no other table
TUNED: dict[tuple[str, str], float] = {
    ("mixed", "naive"): 0.02,
    ("mixed", "position_feature"): 0.02,
    ("mixed", "product"): 0.005,
    ("mixed", "additive"): 0.02,
    ("mixed", "dot"): 0.02,
    ("mixed", "bilinear"): 0.02,
    ("mixed", "mixture"): 0.02,
    ("mixed", "xpa"): 0.02,
    ("mixed", "full_information"): 0.02,
    ("mixed", "oracle_examination"): 0.005,
    ("grid", "naive"): 0.02,
    ("grid", "position_feature"): 0.02,
    ("grid", "product"): 0.02,
    ("grid", "additive"): 0.02,
    ("grid", "dot"): 0.02,
    ("grid", "bilinear"): 0.02,
    ("grid", "mixture"): 0.02,
    ("grid", "xpa"): 0.02,
    ("grid", "full_information"): 0.02,
    ("grid", "oracle_examination"): 0.02,
    ("pbm", "naive"): 0.02,
    ("pbm", "position_feature"): 0.02,
    ("pbm", "product"): 0.02,
    ("pbm", "additive"): 0.02,
    ("pbm", "dot"): 0.02,
    ("pbm", "bilinear"): 0.02,
    ("pbm", "mixture"): 0.02,
    ("pbm", "xpa"): 0.02,
    ("pbm", "full_information"): 0.02,
    ("pbm", "oracle_examination"): 0.02,
}
"""(population, row) to the rate that predicted validation clicks best in `tuning`."""

REVISION = 1  # of protocol and rows: raise it when their results change


@dataclass(frozen=True)
class Size:
    """How large a trial is: queries generated, training sessions, training length."""

    queries: int = 3000
    sessions: int = 100_000
    batch_size: int = 512
    epochs: int = 8
    patience: int = 2


@dataclass(frozen=True)
class Trial:
    """A row of a table of rankers: a model trained on the clicks of one crowd."""

    row: str
    population: str
    size: Size
    rate: float

    def settings(self) -> dict[str, Any]:
        return {**asdict(self.size), "rate": self.rate, "revision": REVISION}

    def measure(self, seed: int, data: str | None) -> dict[str, float]:
        from benchmarks.protocol import world
        from benchmarks.rows import measure

        _forget()
        found = world(self.population, seed, data, self.size)
        return measure(self.row, found, self.size, seed, self.rate)


@dataclass(frozen=True)
class Tuning:
    """One learner at one learning rate, judged by validation clicks alone."""

    learner: str
    population: str
    size: Size
    rate: float

    @property
    def row(self) -> str:
        return f"{self.learner}@{self.rate}"

    def settings(self) -> dict[str, Any]:
        return {**asdict(self.size), "revision": REVISION}

    def measure(self, seed: int, data: str | None) -> dict[str, float]:
        from benchmarks.protocol import world
        from benchmarks.rows import fit

        _forget()
        seed += TUNING_SEED
        found = world(self.population, seed, data, self.size)
        fitted = fit(self.learner, found, self.size, seed, self.rate)
        return {"validation": fitted.validation}


def _forget() -> None:
    """Frees the models of the row before, which refer to themselves."""
    import keras

    keras.backend.clear_session()
    gc.collect()


def trials(*populations: str, size: Size) -> tuple[Trial, ...]:
    return tuple(
        Trial(row, name, size, TUNED.get((name, row), RATES[0]))
        for name in populations
        for row in ("logging", *LEARNERS)
    )


FULL = Size()
QUICK = Size(queries=1000, sessions=40_000, epochs=6)

TUNING = Table(
    name="tuning",
    title="Validation likelihood by learning rate",
    experiments=tuple(
        Tuning(row, name, FULL, rate)
        for name in CROWDS
        for row in LEARNERS
        for rate in RATES
    ),
    metrics=("validation",),
    paired=(),
    clicks="",
    seeds=1,
)

MAIN = Table(
    name="main",
    title="What a ranker learns from biased clicks, by model and by crowd",
    experiments=trials(*CROWDS, size=FULL),
    metrics=("ndcg@1", "ndcg@3", "ndcg@5", "ndcg@10", "click_log_likelihood"),
    baseline="additive",
    bounds=BOUNDS,
    quick=trials("mixed", size=QUICK),
)

SPEED = Table(
    name="speed",
    title="Rates by second, ours and a peer's in the same process",
    experiments=CASES,
    metrics=("rate", "peer_rate", "ratio", "floor_fraction"),
    paired=(),
    clicks="",
    seeds=3,
    workers=1,
)

TABLES: dict[str, Table] = {table.name: table for table in (MAIN, TUNING, SPEED)}
