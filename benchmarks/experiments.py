"""The tables: which rows, on which crowds, at which size. Loads no TensorFlow.

One experiment is one row on one population; entering it in a `Table` is all it takes to
have it run, resumed, compared and rendered.
"""

import gc
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import coverage, recall, recall_clicks, recall_speed
from benchmarks.plan import Table
from benchmarks.speed import CASES

RESULTS = Path(__file__).with_name("results")

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
BOUNDS = ("logging", "naive", "full_information", "oracle_examination", "ceiling")
CROWDS = ("mixed", "grid", "pbm")

ESTIMATORS = (
    "naive",
    "softmax_naive",
    "ips_known",
    "ips_estimated",
    "affine_known",
    "doubly_robust_known",
    "ips_known_softmax",
    "ips_estimated_softmax",
    "affine_known_softmax",
    "dual_learning",
    "regression_em",
    "pair_debias",
    "product",
    "additive",
    "mixture",
    "full_information",
)

RATES = (0.005, 0.02)
TUNING_SEED = 1000  # the worlds of tuning are those of no other table
REVISIONS = {"dot": 2, "bilinear": 2}  # of a row; raise it when its results change


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
        revision = REVISIONS.get(self.row, 1)
        return {**asdict(self.size), "rate": self.rate, "revision": revision}

    def measure(self, seed: int, data: str | None) -> dict[str, float]:
        from benchmarks.protocol import world
        from benchmarks.rows import measure

        forget()
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
        return {**asdict(self.size), "revision": 1}

    def measure(self, seed: int, data: str | None) -> dict[str, float]:
        from benchmarks.protocol import world
        from benchmarks.rows import fit

        forget()
        seed += TUNING_SEED
        found = world(self.population, seed, data, self.size)
        fitted = fit(self.learner, found, self.size, seed, self.rate)
        return {"validation": fitted.validation}


def forget() -> None:
    """Frees the models of the row before, which refer to themselves."""
    import keras

    keras.backend.clear_session()
    gc.collect()


def tuning(of: str, crowds: Iterable[str], rows: Iterable[str], size: Size) -> Table:
    """The table that chooses the learning rates of table `of`."""
    return Table(
        name=f"tuning-{of}",
        title=f"Validation likelihood by learning rate, for table {of}",
        experiments=tuple(
            Tuning(row, name, size, rate)
            for name in crowds
            for row in rows
            for rate in RATES
        ),
        metrics=("validation",),
        paired=(),
        clicks="",
        seeds=1,
    )


def tuned(table: str) -> dict[tuple[str, str], float]:
    """(population, row) to the rate that predicted validation clicks best.

    Read off the published results of the tuning table, so that a rate is always the
    one that won.
    """
    found: dict[tuple[str, str], dict[float, float]] = {}
    path = RESULTS / f"{table}.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    for record in map(json.loads, lines):
        learner, rate = record["row"].split("@")
        rates = found.setdefault((record["population"], learner), {})
        rates[float(rate)] = record["metrics"]["validation"]
    return {place: max(rates, key=rates.__getitem__) for place, rates in found.items()}


def trials(
    table: str, crowds: Iterable[str], rows: Iterable[str], size: Size
) -> tuple[Trial, ...]:
    """Every row on every crowd, at the rates that tuning table `table` chose.

    Before that table has been run and published, all rows learn at the lower rate.
    """
    rates = tuned(table)
    return tuple(
        Trial(row, name, size, rates.get((name, row), RATES[0]))
        for name in crowds
        for row in ("logging", *rows, "ceiling")
    )


FULL = Size()
QUICK = Size(queries=1000, sessions=40_000, epochs=6)
HALF = Size(queries=1500, sessions=50_000, epochs=6)

TUNING_MAIN = tuning("main", CROWDS, LEARNERS, FULL)

MAIN = Table(
    name="main",
    title="What a ranker learns from biased clicks, by model and by crowd",
    experiments=trials(TUNING_MAIN.name, CROWDS, LEARNERS, FULL),
    metrics=("ndcg@1", "ndcg@3", "ndcg@5", "ndcg@10", "click_log_likelihood"),
    baseline="additive",
    bounds=BOUNDS,
    quick=trials(TUNING_MAIN.name, ("mixed",), LEARNERS, QUICK),
)

TRUSTING = ("pbm", "trust")
TUNING_ESTIMATORS = tuning("estimators", TRUSTING, ESTIMATORS, HALF)

CORRECTIONS = Table(
    name="estimators",
    title="Corrections of the field beside click models, by crowd",
    experiments=trials(TUNING_ESTIMATORS.name, TRUSTING, ESTIMATORS, HALF),
    metrics=("ndcg@1", "ndcg@5", "ndcg@10", "click_log_likelihood"),
    baseline="product",
    bounds=("logging", "naive", "full_information", "ceiling"),
)

SPEED = Table(
    name="speed",
    title="Rates by second, ours and a peer's in the same process",
    experiments=(*CASES, *recall_speed.CASES),
    metrics=(
        "rate",
        "peer_rate",
        "ratio",
        "floor_fraction",
        "clax_rate",
        "clax_ratio",
        "write_rate",
    ),
    paired=(),
    clicks="",
    seeds=3,
    workers=1,
)

COVERAGE = Table(
    name="coverage",
    title="How often intervals of 95% hold the true examination, 20 logs a seed",
    experiments=coverage.CASES,
    metrics=("coverage", "rank@2", "rank@3", "rank@4", "rank@5", "told"),
    paired=(),
    clicks="",
    seeds=10,
)

RECALL = (*recall.TABLES, recall_clicks.TABLE)

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        MAIN,
        TUNING_MAIN,
        CORRECTIONS,
        TUNING_ESTIMATORS,
        *RECALL,
        SPEED,
        COVERAGE,
    )
}
