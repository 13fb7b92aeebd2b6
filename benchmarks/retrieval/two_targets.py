"""Table `retrieval-targets`: towers trained on clicks, on orders, or on both.

Users take items of the genre that they like, as in `generate_interactions`. An event is
either an order or a click. The probability of an order falls from .4 in the cheapest
price class to .02 in the most expensive class. So users click and order different
items, and about a sixth of the events are orders. Both kinds of events show which genre
a user likes.

Rows are towers with the same settings. `clicks` learns from clicks only, and `orders`
from orders only. `together` treats clicks and orders as the same kind of event. In
`both`, each target has its own part of the vectors (argument `worth` of
`debias.retrieval.models.TwoTower`), and an order is worth 5 clicks. `both_orders` is
like `both`, but clicks are worth nothing. Each user takes 30 items, and all after the
first 24 are held out.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from benchmarks.harness.plan import Table
from benchmarks.retrieval.rows import evaluate_on, scorer
from debias.retrieval.data.interactions import Interactions, from_columns, time_split
from simulators.interactions import generate_interactions

WORTH = {"both": (1.0, 5.0), "both_orders": (0.0, 1.0)}
ROWS = ("clicks", "orders", "together", *WORTH)
LENGTH, PASSES, DIM = 20, 4, 32
CHANCE = np.array([0.4, 0.2, 0.1, 0.05, 0.02])  # P(order) by price class


@lru_cache(maxsize=1)
def world(
    seed: int, users: int = 1500, items: int = 500
) -> tuple[Interactions, Interactions]:
    """Training events and later events, each with clicks and orders."""
    rng = np.random.default_rng((seed, 5))
    log, _ = generate_interactions(rng, users, items, 30, genres=25)
    price = rng.integers(len(CHANCE), size=items)
    ordered = rng.random(len(log)) < CHANCE[price[log.item]]
    both = from_columns(
        log.user,
        log.item,
        log.time,
        users={"id": np.arange(users)},
        items={
            "id": np.arange(items),
            "genre": log.items.columns["genre"],
            "price": price,
        },
        target=np.where(ordered, "order", "click"),
    )
    return time_split(both, 24)


def learned_from(row: str, log: Interactions) -> Interactions:
    """The training events of a row."""
    if row in ("clicks", "orders"):
        log = log.of_target(row[:-1])
    return log if row in WORTH else replace(log, target=None, targets=())


@dataclass(frozen=True)
class TargetExperiment:
    """A row of the table; implements `benchmarks.harness.plan.Experiment`."""

    row: str
    population: str = "two-targets"

    def settings(self) -> Mapping[str, Any]:
        worth = list(WORTH.get(self.row, ()))
        return {"row": self.row, "passes": PASSES, "dim": DIM, "worth": worth}

    def measure(self, seed: int, data: str | None = None) -> Mapping[str, float]:
        from debias.retrieval.models import dssm
        from debias.retrieval.training.fitting import fit

        known, later = world(seed)
        log, worth = learned_from(self.row, known), WORTH.get(self.row, ())
        begun = time.perf_counter()
        model = dssm(
            log.users.schema,
            log.items.schema,
            DIM * max(len(worth), 1),
            length=LENGTH,
            temperature=0.3,
            seed=seed,
            embedding=DIM,
            worth=worth,
        )
        fit(model, log, epochs=PASSES, seed=seed, repeat="allow")
        found = {"train_seconds": time.perf_counter() - begun}
        score = scorer(model, log, LENGTH)
        for name in known.targets:
            metrics = evaluate_on(score, known, later.of_target(name))
            found |= {f"{name}_{k}": metrics[k] for k in ("hr@10", "hr@50", "ndcg@10")}
        return found


TABLE = Table(
    name="retrieval-targets",
    title="Clicks and orders: vectors with a part per target, or a tower per target",
    experiments=tuple(TargetExperiment(row) for row in ROWS),
    baseline="together",
    metrics=(
        *("click_hr@10", "click_hr@50", "click_ndcg@10"),
        *("order_hr@10", "order_hr@50", "order_ndcg@10", "train_seconds"),
    ),
    paired=("click_hr@50", "order_hr@50"),
    clicks="",
    seeds=5,
    lower=("train_seconds",),
)
