"""Choice of the number of mixture components by held-out clicks.

Protocol, fixed before any result was seen:

1. Each small world has 5,000 sessions that the production ranker logged. A population
   has one to four kinds of users. The kinds have equal shares, except in `uneven`:

   | population | kinds of users |
   |---|---|
   | `one` | position-based |
   | `depths` | two kinds that differ only in the depth to which they read |
   | `two` | impatient and picky users, who differ in depth and in taste |
   | `uneven` | 90% impatient and 10% picky users |
   | `three` | position-based; clicks depend on rank only; clicks depend on item only |
   | `four` | the kinds of `three`, and the picky users of `two` |

2. The models are trained with the defaults of `debias.fit`, except for batches of 128
   sessions. `kinds_1` is the product model. `kinds_2` to `kinds_4` are mixtures of two
   to four product models with learned shares. `chosen` is the one of these four rows
   with the best click likelihood on the validation sessions. The same sessions also
   decide which weights of a training run are used. `averaged` averages three separately
   trained product models, so it has the size of `kinds_3`.
3. `kinds` is the number of components of the row, and `right` is 1 if this number
   equals the true number of kinds. `type_rand_index` is the adjusted Rand index between
   the most likely component and the true kind of the user in each session. NDCG@5 and
   expected clicks are measured on the test queries, and the click likelihood on 5,000
   test sessions.
4. The seeds are 100 to 109. The baseline is `kinds_1`. Holm's correction covers all
   differences of the table.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.harness.memory import forget
from benchmarks.harness.plan import Table
from benchmarks.questions.settings import config, learning

if TYPE_CHECKING:
    from simulators.populations import Population

SESSIONS = 5_000
MOST = 4  # most components
TRUE: Mapping[str, int] = {
    **{"one": 1, "depths": 2, "two": 2},
    **{"uneven": 2, "three": 3, "four": 4},
}
PRESETS = {
    **{"one": "pbm", "depths": "two-depths", "two": "impatient-picky"},
    "three": "mixed",
}
FITTED = (*(f"kinds_{k}" for k in range(1, MOST + 1)), "averaged")
ROWS = (*FITTED[:MOST], "chosen", "averaged")


class Result(NamedTuple):
    """Validation likelihood and metrics of a fitted row."""

    validation: float
    metrics: dict[str, float]


@dataclass(frozen=True)
class Kinds:
    """One row: a number of mixture components, on one population."""

    row: str
    population: str

    def settings(self) -> dict[str, Any]:
        size = {"sessions": SESSIONS, "most": MOST}
        return {**size, **learning()}

    def measure(self, seed: int, data: str | None) -> dict[str, float]:
        if self.row == "averaged":
            return results(self.population, seed)["averaged"].metrics
        every = {k: results(self.population, seed)[k] for k in FITTED[:MOST]}
        name = self.row
        if name == "chosen":
            name = max(every, key=lambda row: every[row].validation)
        kinds = int(name.removeprefix("kinds_"))
        right = float(kinds == TRUE[self.population])
        return {**every[name].metrics, "kinds": float(kinds), "right": right}


@lru_cache(maxsize=1)
def results(population: str, seed: int) -> dict[str, Result]:
    """The results of all fitted rows in one world; the last result is cached."""
    from benchmarks.questions.worlds import logged, parts, stochastic

    forget()
    three = parts(seed)
    scores = [part.production for part in three]
    found = logged(crowd(population), three, scores, stochastic, SESSIONS, seed)
    return {row: measured(row, found, seed) for row in FITTED}


def crowd(name: str) -> "Population":
    """The population with this name."""
    from simulators.populations import Population, named

    if name in PRESETS:
        return named(PRESETS[name])
    (_, impatient), (_, picky) = named("impatient-picky").types
    if name == "uneven":
        return Population(((0.9, impatient), (0.1, picky)))
    users = [*(user for _, user in named("mixed").types), picky]
    return Population(tuple((1 / len(users), user) for user in users))


def measured(row: str, found: Any, seed: int) -> Result:
    """Fits one row to the clicks of a world and compares it with the truth."""
    from benchmarks.ranking.protocol import (
        click_metrics,
        predicted_logits,
        ranking_metrics,
        scores,
        trained,
    )
    from benchmarks.ranking.truths import type_rand_index

    model, validation = trained(found, builder(row, found), config(seed))
    metrics = ranking_metrics(found, scores(model.score, found.test.data))
    logits = predicted_logits(model, found.test)
    metrics |= click_metrics(found.test.log, logits)
    if row not in ("kinds_1", "averaged") and len(found.population.types) > 1:
        metrics["type_rand_index"] = type_rand_index(model, found.test)
    return Result(validation, metrics)


def builder(row: str, found: Any) -> Callable[[int], Any]:
    """Function from a seed to the untrained click model of a row."""
    from debias.data.layout import layout_of
    from debias.models import Mixture, Product
    from debias.models.builders import INIT_STD, bias, product, product_three, relevance

    layout = layout_of(found.train.log)
    if row == "averaged":
        return lambda seed: product_three(layout, seed)
    kinds = int(row.removeprefix("kinds_"))
    if kinds == 1:
        return lambda seed: product(layout, seed)

    def mixture(seed: int) -> Any:
        seeds = [kinds * seed + kind for kind in range(kinds)]
        return Mixture(
            [
                Product(relevance(s), bias(layout, init_std=INIT_STD, seed=s))
                for s in seeds
            ],
            "learned",
        )

    return mixture


TABLE = Table(
    name="kinds",
    title="Number of mixture components chosen by held-out clicks, by population",
    experiments=tuple(Kinds(row, population) for population in TRUE for row in ROWS),
    metrics=(
        *("ndcg@5", "expected_clicks", "click_log_likelihood"),
        *("type_rand_index", "kinds", "right"),
    ),
    baseline="kinds_1",
    paired=("ndcg@5", "click_log_likelihood"),
    clicks="click_log_likelihood",
    first_seed=100,
    holm=True,
)
