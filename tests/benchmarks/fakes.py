"""Experiments that need no learning library, for tests of the harness.

At the top of a module, so that worker processes can unpickle them. `LOG` names a file
in which every measurement leaves a line when it begins.
"""

import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.harness import store
from benchmarks.harness.plan import Derived, Table

LOG = "FAKE_EXPERIMENTS_LOG"


@dataclass(frozen=True)
class Fake:
    row: str
    population: str = "mixed"
    value: float = 0.5
    seconds: float = 0.0
    fault: str = ""

    def settings(self) -> Mapping[str, Any]:
        return {"value": self.value, "hidden": (64, 32)}

    def measure(self, seed: int, data: str | None) -> Mapping[str, float]:
        if LOG in os.environ:
            with Path(os.environ[LOG]).open("a") as log:
                log.write(f"{self.row} {self.population} {seed} {os.getpid()} {data}\n")
        time.sleep(self.seconds)
        if self.fault == "raise":
            raise ValueError(f"row {self.row} cannot learn")
        if self.fault == "kill":
            print("these are its last words", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault == "nan":
            return {"ndcg@5": float("nan")}
        if self.fault == "threads":
            return {
                name: float(os.environ[name])
                for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")
            }
        # A difference of rows that is the same for no two seeds.
        return {
            "ndcg@5": self.value + 0.01 * seed + 0.001 * seed * len(self.row),
            "click_log_likelihood": -2.0 - self.value,
        }


def table(*experiments: Any, name: str = "main", **options: Any) -> Table:
    """A table of fakes; the baseline is the first row."""
    given: dict[str, Any] = {
        "title": "Fakes",
        "metrics": ("ndcg@5", "click_log_likelihood"),
        "baseline": experiments[0].row,
        "quick": experiments,
        "seeds": 3,
        "quick_seeds": 2,
        "quick_note": "The full table has more.",
    }
    return Table(name=name, experiments=experiments, **{**given, **options})


def records(
    values: Mapping[int, Any],
    row: str = "additive",
    metric: str = "ndcg@5",
    population: str = "mixed",
    **config: Any,
) -> list[store.Record]:
    """Records of fakes named `row`, one for each seed of `values`."""
    fake = Fake(row, population)
    return [
        store.Record(
            "main",
            row,
            "generated",
            population,
            seed,
            metrics=value if isinstance(value, dict) else {metric: value},
            seconds=2.0,
            config={**fake.settings(), **config},
            versions={},
        )
        for seed, value in values.items()
    ]


def best_of_main(found: Mapping[str, Sequence[store.Record]]) -> list[store.Record]:
    """The row dot of the table main as a row of its own."""
    return [
        replace(record, table="derived", row="best", config={})
        for record in found["main"]
        if (record.row, record.population) == ("dot", "mixed")
    ]


TABLES = {
    "main": table(
        Fake("additive", value=0.5),
        Fake("dot", value=0.6),
        Fake("naive", value=0.4),
        Fake("additive", "grid", value=0.3),
        bounds=("naive",),
    ),
    "speed": table(Fake("rate", value=0.7), name="speed", baseline=""),
    "slow": table(
        *(Fake(f"row{i}", value=0.1 * i, seconds=0.25) for i in range(6)), name="slow"
    ),
    "once": table(
        Fake("long-name-of-a-row"),
        Fake("long-name-of-a-row", "grid"),
        name="once",
        seeds=1,
    ),
    "endless": table(Fake("sound"), Fake("endless", seconds=600.0), name="endless"),
    "given": table(Fake("row"), name="given", quick=(), needs_data=True),
    "derived": table(
        Derived("best", "mixed"),
        name="derived",
        quick=(),
        sources=("main", "speed"),
        derive=best_of_main,
    ),
    "broken": table(
        Fake("sound"),
        Fake("raising", fault="raise"),
        Fake("dying", fault="kill"),
        name="broken",
    ),
}
